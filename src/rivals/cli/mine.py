"""`rivals mine`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.errors import RivalsError
from rivals.files import atomic_file
from rivals.progress import set_quiet
from rivals.workflow.config import model_name
from rivals.workflow.mining_config import MiningPlan, load_mining_plan, parse_part, plan_to_toml, with_window

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset
    from rivals.data.pipeline import Retriever, Transform
    from rivals.models import Encoder
    from rivals.negatives import Mined, MiningAudit
    from rivals.negatives.judging import Judge

_LABELS = "labels of people"


def run_mine(
    *,
    output: str,
    data: Mapping[str, str],
    config: str,
    model: str,
    split: str,
    negatives: int | None,
    candidates: int | None,
    sources: str,
    filters: list[str] | None,
    relative: float | None,
    sampler: str,
    window: int | None,
    form: str | None,
    labels: str,
    sample: int | None,
    seed: int | None,
    device: str,
    engine: str,
    address: str,
    cpus: float,
    gpus: float,
    work: str,
    print_config: bool,
    quiet: bool,
) -> None:
    """Mine hard negatives for a dataset's queries and write them with their audit."""
    from rivals.cli.train import _quoted

    set_quiet(quiet)
    plan = load_mining_plan(config) if config else MiningPlan()
    given = {name: str(Path(value).resolve()) for name, value in data.items() if value}
    changes: dict[str, Any] = {
        "model": model_name(model) if model else "",
        "split": split,
        "negatives": negatives,
        "candidates": candidates,
        "form": form,
        "seed": seed,
        "device": device,
        "sources": tuple(parse_part(part) for part in sources.split(",")) if sources else None,
        "sampler": parse_part(sampler) if sampler else None,
        "data": replace(plan.data, **given) if given else None,  # type: ignore[arg-type]
    }
    plan = replace(plan, **{name: value for name, value in changes.items() if value not in (None, "")})
    plan = replace(plan, sampler=with_window(plan.sampler, window), filters=_filters(plan, filters, relative))
    if labels:
        people = {"kind": "labels", "name": _LABELS, "path": str(Path(labels).resolve())}
        plan = replace(plan, judges=(*plan.judges, people), estimate=replace(plan.estimate, judge=_LABELS))
    if sample is not None:
        plan = replace(plan, estimate=replace(plan.estimate, sample=sample))
    plan.check()
    if print_config:
        print(plan_to_toml(plan), end="")
        return
    _check_output(output, plan.form)
    dataset = _dataset(plan)
    run_path = output if plan.form == "run" else f"{output}.run.parquet"
    folder = Path(work or f"{output}.work") if work or engine == "ray" else None
    ray = {"address": address or None, "cpus": cpus, "gpus": gpus} if engine == "ray" else None
    judge = _judge(plan, dataset)
    try:
        mined = _mine(plan, dataset, folder, run_path, ray)
    except KeyboardInterrupt:
        how = f"the same command goes on with what is in {folder}" if folder else ""
        raise KeyboardInterrupt(*([how] if how else [])) from None
    rows = mined.audit.proposed if plan.form == "run" else _export(plan.form, mined, output)
    audit = mined.audit
    if judge is not None:
        audit = _estimated(plan, dataset, audit, run_path, judge, everything=bool(labels) and sample is None)
    write_audit(output, audit)
    _write(f"{output}.toml", plan_to_toml(plan))
    print(audit)
    print(f"Wrote {rows} rows to {output} and the audit to {output}.audit.json")
    if audit.suspects:
        print(f"Look at suspects: rivals review {_quoted(output)}")
    if folder is not None and not work:
        shutil.rmtree(folder, ignore_errors=True)


def _filters(plan: MiningPlan, filters: list[str] | None, relative: float | None) -> tuple[dict[str, Any], ...]:
    if filters is not None and relative is not None:
        raise RivalsError('--relative sets the default filter; write it into --filters: "positive-aware relative=..."')
    if relative is not None:
        return ({"kind": "positive-aware", "relative": relative},)
    if filters is None:
        return plan.filters
    return () if filters == ["none"] else tuple(parse_part(text) for text in filters)


def _check_output(output: str, form: str) -> None:
    if Path(output).is_dir():
        raise RivalsError(f"{output} is a folder; --output names the file to write")
    endings = (".parquet",) if form == "run" else (".jsonl", ".parquet")
    if Path(output).suffix not in endings:
        raise RivalsError(f"cannot write {form} to {output}; let its name end in {' or '.join(endings)}")


def _dataset(plan: MiningPlan) -> Dataset:
    from rivals.cli.train import open_data

    dataset = open_data(plan.data, plan.seed)
    if plan.split:
        dataset = dataset.split(plan.split)
    known = dataset.judgements.positives.offsets
    answered = (known[1:] > known[:-1]).nonzero()[0]
    if len(answered) < len(dataset.queries):
        print(f"{len(dataset.queries) - len(answered)} queries have no relevant document and are left out")
        dataset = dataset.take(answered)
    return dataset


class Opener:
    """Opens the source and the filters of a plan, here or in a worker of a cluster."""

    def __init__(self, plan: MiningPlan, folder: Path | None) -> None:
        self.plan, self.folder = plan, folder

    def __call__(self, dataset: Dataset) -> tuple[Retriever, tuple[Transform, ...]]:
        materials = self.plan.materials(dataset, self.folder)
        return self.plan.source(materials), self.plan.open_filters(materials)


class EncoderOpener:
    """Opens one of a plan's encoders in a worker."""

    def __init__(self, plan: MiningPlan, model: str) -> None:
        self.plan, self.model = plan, model

    def __call__(self) -> Encoder:
        return self.plan.open_encoder(self.model)


def _mine(plan: MiningPlan, dataset: Dataset, folder: Path | None, run_path: str, ray: dict[str, Any] | None) -> Mined:
    from rivals.negatives import mine_hard_negatives

    options: dict[str, Any] = {
        "sampler": plan.open_sampler(plan.materials(dataset)),
        "top_k": plan.candidates,
        "seed": plan.seed,
        "block": plan.block,
        "output": run_path,
        "hold": "drawn",
    }
    opener = Opener(plan, folder.resolve() if folder else None)
    if ray is None:
        source, filters = opener(dataset)
        return mine_hard_negatives(source, dataset, filters=filters, **options)
    from rivals.negatives.engines import encode_with_ray, mine_with_ray

    assert folder is not None
    for model in plan.encoders:
        encode_with_ray(EncoderOpener(plan, model), dataset.documents.full_texts, folder / "encoded", **ray)
    plan.prepare(plan.materials(dataset, folder))
    return mine_with_ray(opener, dataset, folder / "blocks", about=plan.search_fingerprint(), **options, **ray)


def _export(form: str, mined: Mined, output: str) -> int:
    from rivals.negatives import export

    write = {"triples": export.write_triples, "tuples": export.write_tuples, "lists": export.write_lists}[form]
    written = write(mined.run, mined.draw, output)
    if written.dropped:
        print(f"{written.dropped} queries are left out of {output} for want of negatives")
    return written.rows


def _judge(plan: MiningPlan, dataset: Dataset) -> Judge | None:
    """Open the judge of the estimate, before the long work, so that its mistakes come first."""
    if not plan.estimate.judge:
        return None
    return plan.materials(dataset).judges_named([plan.estimate.judge])[0]


def _estimated(
    plan: MiningPlan, dataset: Dataset, audit: MiningAudit, run_path: str, judge: Judge, *, everything: bool
) -> MiningAudit:
    """Return the audit with the configured estimates of false negatives."""
    from rivals.data import load_run
    from rivals.negatives.export import drawn_of
    from rivals.negatives.false_negatives import estimate_false_negatives, group_rows

    run = load_run(run_path, dataset.queries, dataset.documents)
    draw = drawn_of(run)
    sample = None if everything else plan.estimate.sample
    for group in plan.estimate.groups:
        if len(group_rows(run, draw, group)):
            found = estimate_false_negatives(run, draw, judge, of=group, sample=sample, seed=plan.seed)
            audit = audit.with_false_negatives(found)
        else:
            audit = replace(audit, notes=(*audit.notes, f"no candidate is {group}, so none was judged"))
    return audit


def write_audit(output: str, audit: MiningAudit) -> None:
    """Write an audit beside a mined file: as JSON, and as a page where the extra `report` is installed."""
    from rivals.evaluate.mining_report import write_mining_report

    _write(f"{output}.audit.json", audit.to_json())
    try:
        write_mining_report(f"{output}.audit.html", audit, title=f"Mined negatives: {Path(output).name}")
    except RivalsError as missing:
        print(f"No page is written: {missing}")


def _write(path: str, text: str) -> None:
    with atomic_file(path) as out:
        out.write(text)
