"""The configuration of one experiment: frozen dataclasses, read from TOML, written resolved into the run folder."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from rivals.errors import DataError, RivalsError

Precision = Literal["auto", "fast", "bfloat16", "float32", "int8"]
T = TypeVar("T")
SecondStageKind = Literal["auto", "all", "late-interaction", "list-wise", "cross-encoder", "none"]


@dataclass(frozen=True)
class DataConfig:
    """Where the data is; all empty = the embedded sample.

    Args:
        folder: a BEIR folder, instead of single files.
        documents, pairs, queries, judgements: JSONL, CSV, TSV or Parquet files.
        dev, test: shares of the queries held out when the data brings no splits.
        split_by: a query column whose equal values (a topic, a user) stay in one split.
    """

    folder: str = ""
    documents: str = ""
    pairs: str = ""
    queries: str = ""
    judgements: str = ""
    dev: float = 0.1
    test: float = 0.2
    split_by: str = ""

    def __post_init__(self) -> None:
        _check(self, "data", dev=0 < self.dev < 1, test=0 < self.test < 1)
        if self.dev + self.test >= 1:
            raise RivalsError(f"option 'data.dev' = {self.dev} and data.test = {self.test} leave nothing to train on")


@dataclass(frozen=True)
class MiningConfig:
    """`(bm25 | dense) >> PositiveAware(relative) >> sampler`.

    Args:
        candidates: how deep each source looks.
        relative: a candidate scoring above (1 - relative) times its positive is marked as a suspected false negative.
        sampler: "uniform" or "softmax" over the `window` hardest survivors, or "top".
        precision: of the untrained encoder, which mines and is the baseline; "fast" is bfloat16 or int8 where the machine has units
            for it (on the sample int8 moves its nDCG@10 by 0.0001; for the trained encoder by 0.003, so that one is exact by default).
    """

    candidates: int = 100
    relative: float = 0.05
    sampler: Literal["top", "uniform", "softmax"] = "top"
    window: int = 10
    precision: Precision = "fast"

    def __post_init__(self) -> None:
        _check(self, "mining", candidates=self.candidates >= 1, relative=0 < self.relative < 1, window=self.window >= 1)


@dataclass(frozen=True)
class RetrieverTraining:
    """The first stage; see `rivals.training.RetrieverConfig` and `LoopConfig` for what each option does.

    Args:
        members: trainings that differ in their seeds and are averaged into one model (a model soup), for that many times the time;
            searching costs what one model does.
        gradient_cache: take the gradient of a batch in the memory of one chunk, for a second forward pass: for batches of hundreds
            and thousands of questions.
        refresh_every: mine anew with the weights being trained every so many steps; 0 = never.
    """

    epochs: int = 2
    members: int = 1
    max_steps: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-4
    negatives: int = 1
    group_size: int = 8
    temperature: float = 0.05
    late_interaction: float = 1.0
    max_query_tokens: int = 64
    max_document_tokens: int = 128
    evaluations: int = 2
    patience: int = 0
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    gradient_cache: bool = False
    refresh_every: int = 0

    def __post_init__(self) -> None:
        _check(
            self,
            "retriever",
            epochs=self.epochs >= 1,
            members=self.members >= 1,
            max_steps=self.max_steps >= 0,
            batch_size=self.batch_size >= 2,
            learning_rate=0 < self.learning_rate < math.inf,
            negatives=self.negatives >= 0,
            group_size=self.group_size >= 1,
            temperature=0 < self.temperature < math.inf,
            late_interaction=0 <= self.late_interaction < math.inf,
            max_query_tokens=self.max_query_tokens >= 4,
            max_document_tokens=self.max_document_tokens >= 4,
            evaluations=self.evaluations >= 0,
            patience=self.patience >= 0,
            refresh_every=self.refresh_every >= 0,
        )


@dataclass(frozen=True)
class SecondStageConfig:
    """The second stage.

    Args:
        kind: "auto" fits what the budget allows and takes the best on dev; "all" fits every kind, however long it takes.
        depth: candidates of the first stage that are re-ranked.
        epochs: passes of the list-wise ranker or cross-encoder over the training queries.
    """

    kind: SecondStageKind = "auto"
    depth: int = 50
    epochs: int = 0

    def __post_init__(self) -> None:
        _check(self, "second_stage", depth=self.depth >= 1, epochs=self.epochs >= 0)


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides the outcome of `rivals train` and `rivals quickstart`.

    Args:
        model: folder, Hugging Face name, or all-MiniLM-L6-v2 from the installed package. max_length: tokens per text; 0 = the model's.
        precision: of encoding with the trained model, as `Encoder.load` takes it.
        language: of BM25's stemmer and stop words. candidates: what the first stage hands on.
    """

    model: str = "all-MiniLM-L6-v2"
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    language: str = "english"
    candidates: int = 100
    max_length: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    mining: MiningConfig = field(default_factory=MiningConfig)
    retriever: RetrieverTraining = field(default_factory=RetrieverTraining)
    second_stage: SecondStageConfig = field(default_factory=SecondStageConfig)

    def __post_init__(self) -> None:
        _check(
            self,
            "",
            model=bool(self.model.strip()),
            seed=0 <= self.seed < 2**63,
            candidates=self.candidates >= 1,
            max_length=self.max_length >= 0,
        )

    def to_json(self) -> str:
        """Return the resolved configuration as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ExperimentConfig:
        """Read what `to_json` wrote."""
        return msgspec.json.decode(text, type=cls)


def load_config(path: str | Path) -> ExperimentConfig:
    """Read an experiment from a TOML file; unknown names and wrong types are errors. Paths in it start at the file's folder.

    Raises:
        DataError: the file is missing or not TOML, or an option is unknown, of the wrong type or out of range.
    """
    config, _ = read_toml(Path(path), ExperimentConfig)
    return _from_folder(config, Path(path).parent)


def read_toml(path: Path, kind: type[T]) -> tuple[T, str]:
    """Return a TOML file as a configuration of one kind, and its text.

    Raises:
        DataError: the file is missing or not TOML, or an option is unknown, of the wrong type or out of range; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not TOML: {error}", path=path) from None
    _reject_unknown(values, kind, "", path, text)
    try:
        return msgspec.convert(values, kind), text
    except msgspec.ValidationError as error:
        message, _, place = str(error).replace("`", "'").partition(" - at '$.")
        ours = re.match(r"option '([^']+)'", message)
        option = ours[1] if ours else re.sub(r"\[.*", "", place.rstrip("'"))
        raise DataError(
            message if ours else f"option '{option}': {message}", path=path, line=_line(text, option)
        ) from None


def _from_folder(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """Return the configuration with its relative paths made absolute, as seen from a folder."""
    data = config.data
    named = {name: getattr(data, name) for name in ("folder", "documents", "pairs", "queries", "judgements")}
    found = {name: str((folder / value).resolve()) for name, value in named.items() if value}
    return replace(config, model=model_name(config.model, folder), data=replace(data, **found))  # type: ignore[arg-type]


def model_name(model: str, folder: Path = Path()) -> str:
    """Return the absolute path of a model that is a folder, and any other name as it is."""
    return str((folder / model).resolve()) if (folder / model).is_dir() else model


def _check(options: object, table: str, **fine: bool) -> None:
    """Raise for the first option that is out of range."""
    for name, is_fine in fine.items():
        if not is_fine:
            full = f"{table}.{name}" if table else name
            raise RivalsError(f"option '{full}' = {getattr(options, name)!r} is out of range")


def _reject_unknown(values: dict[str, object], kind: type, where: str, path: Path, text: str) -> None:
    known = {f.name: f.type for f in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined, union-attr]
    for name, value in values.items():
        full = f"{where}{name}"
        if name not in known:
            raise DataError(
                f"unknown option '{full}'; known here: {', '.join(sorted(known))}", path=path, line=_line(text, full)
            )
        inner = known[name]
        if isinstance(inner, msgspec.inspect.DataclassType):
            if not isinstance(value, dict):
                raise DataError(f"'{full}' is a table; write [{full}]", path=path, line=_line(text, full))
            _reject_unknown(value, inner.cls, f"{full}.", path, text)


def _line(text: str, option: str) -> int | None:
    """Return the number of the line that sets an option (`table.name`) or opens a table.

    >>> _line("seed = 1\\n[retriever]\\nseed = 2", "retriever.seed")
    3
    """
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if header:
            table = f"{header[1]}."
        set_here = header[1] if header else table + line.split("=")[0].strip().strip("\"'")
        if set_here == option:
            return number
    return None


def to_toml(config: ExperimentConfig) -> str:
    """Return the configuration as TOML that `load_config` reads back.

    >>> "learning_rate" in to_toml(ExperimentConfig())
    True
    """
    values = msgspec.to_builtins(config)
    lines = [_assignment(k, v) for k, v in values.items() if not isinstance(v, dict)]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(_assignment(k, v) for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _assignment(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{name} = {str(value).lower()}"
    if isinstance(value, int | float):
        return f"{name} = {value!r}"
    if isinstance(value, str):
        return f"{name} = {msgspec.json.encode(value).decode()}".replace("\x7f", "\\u007f")
    raise RivalsError(f"option {name} of type {type(value).__name__} cannot be written as TOML")
