"""The configuration of `rivals mine`: sources, filters in their order, sampler, judges; read from TOML, written back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rivals.errors import DataError, RivalsError
from rivals.workflow.config import (
    DataConfig,
    ExperimentConfig,
    Precision,
    _assignment,
    _check,
    _from_folder,
    _line,
    model_name,
    read_toml,
)

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset
    from rivals.data.pipeline import Retriever, Transform
    from rivals.models import Encoder
    from rivals.negatives import Sampler
    from rivals.negatives.judging import Judge
    from rivals.workflow.mining_materials import Materials

Form = Literal["triples", "tuples", "lists", "run"]
Group = Literal["drawn", "kept", "marked"]
Spec = dict[str, Any]

_PATHS = ("path", "prompt", "cache")  # options of parts that name files
_WORD = re.compile(
    r"""(?:[^\s"'\[\]]|"[^"]*"|'[^']*'|\[[^\]]*\])+"""
)  # blanks part words, but not inside quotes or brackets
_WINDOW = 10  # of the samplers that draw from the hardest survivors, unless the configuration says otherwise


@dataclass(frozen=True)
class EstimateConfig:
    """The estimate of false negatives after mining.

    Args:
        judge: the name of a configured judge; empty for no estimate.
        sample: how many candidates of each group it judges.
        groups: "drawn", "kept", "marked".
    """

    judge: str = ""
    sample: int = 200
    groups: tuple[Group, ...] = ("drawn",)

    def __post_init__(self) -> None:
        _check(self, "estimate", sample=self.sample >= 1)


@dataclass(frozen=True)
class MiningPlan:
    """Everything that decides what `rivals mine` gives.

    Args:
        model, device, precision, max_length: of the encoder, which sources and filters share.
        candidates: how deep each source looks. negatives: how many to draw for a query.
        split: mine for the queries of one split only. form: of the file that is written.
        fusion: "union" of the sources, scored by the last of them that scores pairs, or "rrf", fused by their ranks.
        block: queries that go through the pipeline together.
        sources, filters, sampler, judges: the parts, each with its kind and options; `rivals.workflow.mining_parts`
            lists them. Judges also have a name, by which filters and the estimate call them.
    """

    model: str = "all-MiniLM-L6-v2"
    device: str = "auto"
    precision: Precision = "auto"
    max_length: int = 0
    seed: int = 0
    candidates: int = 100
    negatives: int = 4
    split: str = ""
    form: Form = "triples"
    fusion: Literal["union", "rrf"] = "union"
    block: int = 1000
    data: DataConfig = field(default_factory=DataConfig)
    sampler: Spec = field(default_factory=lambda: {"kind": "top"})
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    sources: tuple[Spec, ...] = ({"kind": "bm25"}, {"kind": "dense"})
    filters: tuple[Spec, ...] = ({"kind": "positive-aware", "relative": 0.05},)
    judges: tuple[Spec, ...] = ()

    def __post_init__(self) -> None:
        _check(
            self,
            "",
            model=bool(self.model.strip()),
            max_length=self.max_length >= 0,
            seed=0 <= self.seed < 2**63,
            candidates=self.candidates >= 1,
            negatives=self.negatives >= 1,
            block=self.block >= 1,
            sources=bool(self.sources),
        )

    @property
    def judge_names(self) -> tuple[str, ...]:
        """The judges' names: the one given, else the kind."""
        return tuple(str(spec.get("name") or spec.get("kind")) for spec in self.judges)

    def materials(self, dataset: Dataset, folder: Path | None = None) -> Materials:
        """Return what the parts are made of."""
        from rivals.workflow.mining_materials import Materials

        return Materials(
            dataset,
            negatives=self.negatives,
            seed=self.seed,
            model=self.model,
            device=self.device,
            precision=self.precision,
            max_length=self.max_length,
            folder=folder,
            judge_names=self.judge_names,
            make_judge=self._judge,
        )

    def open_encoder(self, model: str) -> Encoder:
        """Load one of the plan's encoders."""
        return self.materials(None).open_encoder(model)  # type: ignore[arg-type]  # encoders need no data

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders whose document vectors the parts need, each once."""
        from rivals.workflow.mining_parts import TABLES

        found: list[str] = []
        for what, specs in (("source", self.sources), ("filter", self.filters), ("judge", self.judges)):
            for spec in specs:
                if TABLES[what][spec["kind"]].encodes:
                    found += spec.get("models") or [spec.get("model") or self.model]
        return tuple(dict.fromkeys(found))

    def prepare(self, materials: Materials) -> None:
        """Put vectors and indices into the materials' folder, where workers find them."""
        self.source(materials)
        for model in self.encoders:
            _ = materials.dense_of(model)

    def search_fingerprint(self) -> str:
        """Return what decides the candidates and their marks, as text: all but what happens after the filters."""
        before = replace(
            self, negatives=1, form="triples", sampler={"kind": "top"}, estimate=EstimateConfig(), device="auto"
        )
        return plan_to_toml(before)

    def source(self, materials: Materials) -> Retriever:
        """Open the sources, united or fused.

        Raises:
            RivalsError: two of one name, and what the sources raise.
        """
        from rivals.retrieve import ReciprocalRankFusion
        from rivals.workflow.mining_options import make_part
        from rivals.workflow.mining_parts import SOURCES

        opened: list[Retriever] = [make_part(SOURCES, "source", spec, materials) for spec in self.sources]
        if self.fusion == "rrf":
            return ReciprocalRankFusion(opened, depth=self.candidates)
        return reduce(lambda left, right: left | right, opened)

    def open_filters(self, materials: Materials) -> tuple[Transform, ...]:
        """Make the filters, in their order."""
        from rivals.workflow.mining_options import make_part
        from rivals.workflow.mining_parts import FILTERS

        return tuple(make_part(FILTERS, "filter", spec, materials) for spec in self.filters)

    def open_sampler(self, materials: Materials) -> Sampler:
        """Make the sampler."""
        from rivals.workflow.mining_options import make_part
        from rivals.workflow.mining_parts import SAMPLERS

        sampler: Sampler = make_part(SAMPLERS, "sampler", self.sampler, materials)
        return sampler

    def _judge(self, name: str, materials: Materials) -> Judge:
        from rivals.workflow.mining_options import make_part
        from rivals.workflow.mining_parts import JUDGES

        spec = self.judges[self.judge_names.index(name)]
        judge: Judge = make_part(JUDGES, "judge", spec, materials)
        return judge

    def check(self) -> None:
        """Check the parts as far as that goes without data: kinds, options, types, and what needs no data whole.

        Raises:
            RivalsError: the first mistake.
        """
        for mistake in self._mistakes():
            raise RivalsError(str(mistake.error))

    def _mistakes(self) -> Iterator[_Mistake]:
        from rivals.workflow.mining_options import PartError, check_part, make_part
        from rivals.workflow.mining_parts import TABLES

        arrays = (
            ("source", "sources", self.sources),
            ("filter", "filters", self.filters),
            ("judge", "judges", self.judges),
        )
        places = [(what, table, number, spec) for what, table, specs in arrays for number, spec in enumerate(specs)]
        for what, table, number, spec in [*places, ("sampler", "sampler", None, self.sampler)]:
            try:
                check_part(TABLES[what], what, spec)
                part = TABLES[what][spec["kind"]]
                if what in ("filter", "sampler") and set(part.given.values()) <= {"negatives"} and not part.judges:
                    make_part(TABLES[what], what, spec, self.materials(None))  # type: ignore[arg-type]
            except PartError as error:
                yield _Mistake(error, table, number, error.option)
        names = self.judge_names
        for number, name in enumerate(names):
            if name in names[:number]:
                yield _Mistake(
                    RivalsError(f"two judges are called '{name}'; give each a name"), "judges", number, "name"
                )
        if self.estimate.judge and self.estimate.judge not in names:
            known = ", ".join(names) or "none"
            message = f"no judge is called '{self.estimate.judge}'; the configured ones are {known}"
            yield _Mistake(RivalsError(message), "estimate", None, "judge")


@dataclass(frozen=True)
class _Mistake:
    """What is wrong, in which table (and which of its parts), at which option."""

    error: RivalsError
    table: str
    number: int | None
    option: str


# ------------------------------------------------------------------------------------------------ TOML


def load_mining_plan(path: str | Path) -> MiningPlan:
    """Read a mining configuration from a TOML file. Paths in it start at the file's folder.

    Raises:
        DataError: the file is missing or not TOML; an option or part is unknown, of the wrong type or out of range; with
            the line.
    """
    path = Path(path)
    plan, text = read_toml(path, MiningPlan)
    for mistake in plan._mistakes():
        line = part_line(text, mistake.table, mistake.number, mistake.option)
        raise DataError(str(mistake.error), path=path, line=line)
    return _from(plan, path.parent)


def _from(plan: MiningPlan, folder: Path) -> MiningPlan:
    """Return the plan with its relative paths made absolute, as seen from a folder."""

    def absolute(specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return tuple(
            {
                name: str((folder / value).resolve())
                if name in _PATHS and value
                else model_name(value, folder)
                if name == "model" and value
                else [model_name(one, folder) for one in value]
                if name == "models"
                else value
                for name, value in spec.items()
            }
            for spec in specs
        )

    both = _from_folder(ExperimentConfig(model=plan.model, data=plan.data), folder)
    parts: dict[str, Any] = {name: absolute(getattr(plan, name)) for name in ("sources", "filters", "judges")}
    return replace(plan, model=both.model, data=both.data, **parts)


def part_line(text: str, table: str, number: int | None, option: str) -> int | None:
    """Return the line that sets an option of a part, or that opens the part.

    >>> part_line("[[filters]]\\nkind = 'a'\\n[[filters]]\\nkind = 'b'\\n", "filters", 1, "kind")
    4
    """
    opened, seen, inside = None, -1, False
    for at, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$", line)
        if header:
            seen += header[1] == table
            inside = header[1] == table and (number is None or seen == number)
            opened = at if inside else opened
        elif inside and option and line.split("=")[0].strip().strip("\"'") == option:
            return at
    return opened or _line(text, table)


def plan_to_toml(plan: MiningPlan) -> str:
    """Return the plan as TOML that `load_mining_plan` reads back.

    >>> "[[filters]]" in plan_to_toml(MiningPlan())
    True
    """
    values = msgspec.json.decode(msgspec.json.encode(plan))
    values["data"] = {name: value for name, value in values["data"].items() if value and name not in ("dev", "test")}
    values["estimate"] = values["estimate"] if plan.estimate.judge else {}
    lines = [_assignment(name, value) for name, value in values.items() if not isinstance(value, dict | list)]
    for name, table in values.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{name}]", *(_setting(k, v) for k, v in table.items())]
        for part in table if isinstance(table, list) else ():
            lines += ["", f"[[{name}]]", *(_setting(k, v) for k, v in part.items())]
    empty = [f"{name} = []" for name in ("filters",) if not values[name]]
    return "\n".join([*empty, *lines]) + "\n"


def _setting(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{name} = [{', '.join(_assignment('', one).removeprefix(' = ') for one in value)}]"
    return _assignment(name, value)


# ------------------------------------------------------------------------------------------------ the command line


def parse_part(text: str) -> Spec:
    """Read a part as the command line spells it: its kind, then its options.

    Raises:
        RivalsError: a word after the kind that is no option=value.

    >>> parse_part("positive-aware relative=0.1 anchor=max")
    {'kind': 'positive-aware', 'relative': 0.1, 'anchor': 'max'}
    """
    words = _WORD.findall(text)
    if _WORD.sub("", text).strip():
        raise RivalsError(f"'{text}' cannot be read; close its quotes and brackets")
    if not words or "=" in words[0]:
        raise RivalsError(f"'{text}' names no part; write its kind, then option=value")
    spec: Spec = {"kind": words[0]}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise RivalsError(f"'{word}' in '{text}' is no option=value")
        spec[name.replace("-", "_")] = _value(value)
    return spec


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def with_window(sampler: Mapping[str, Any], window: int | None) -> Spec:
    """Return a sampler's settings with a window, where it has one and none is set; `None` leaves it to the sampler's kind."""
    if sampler["kind"] == "top" or "window" in sampler:
        return dict(sampler)
    if window is None and sampler["kind"] not in ("uniform", "softmax"):
        return dict(sampler)
    return {**sampler, "window": _WINDOW if window is None else window}
