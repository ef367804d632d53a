"""`rivals review`: suspected false negatives in the terminal and on a sheet; answers become labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rivals.errors import DataError, RivalsError
from rivals.workflow.config import DataConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rivals.data import Dataset, Run
    from rivals.negatives.review import Order
    from rivals.negatives.review_sheets import Answers

_CUT = 240  # characters of a text in the terminal


class _Mined(NamedTuple):
    """A mined file: the name that everything beside it begins with, and its run."""

    base: str
    run_path: str
    run: Run


def run_review(
    *,
    run: str,
    data: Mapping[str, str],
    of: str,
    order: Order,
    limit: int,
    per_query: int,
    seed: int,
    sheet: str,
    apply: str,
    output: str,
    judgements: str,
) -> None:
    """List what a person should look at, or apply what a person answered."""
    if sheet and apply:
        raise RivalsError("--sheet writes a sheet and --apply reads one; give one of them")
    if not apply and (output or judgements):
        raise RivalsError("--output and --judgements go with --apply")
    if limit < 1 or per_query < 0:
        raise RivalsError("--limit must be 1 or more and --per-query 0 or more")
    mined = _open(run, data)
    if apply:
        _apply(mined, apply, output or f"{mined.base}.reviewed.parquet", judgements or f"{mined.base}.judgements.jsonl")
    else:
        _list(mined, of=of, order=order, limit=limit, per_query=per_query or None, seed=seed, sheet=sheet)


# ------------------------------------------------------------------------------------------------ listing


def _list(mined: _Mined, *, of: str, order: Order, limit: int, per_query: int | None, seed: int, sheet: str) -> None:
    from rivals.cli._console import result_console
    from rivals.cli.train import _quoted
    from rivals.negatives.review import load_reviews, suspect_rows
    from rivals.negatives.review_sheets import write_sheet

    answers = load_reviews(mined.run_path)
    if of == "drawn":
        rows = _drawn(mined.run, answers, seed)
        shown, what = rows[:limit], "drawn negatives"
    else:
        options = {"order": order, "answers": answers, "seed": seed}
        rows = suspect_rows(mined.run, per_query=None, **options)  # type: ignore[arg-type]
        shown = suspect_rows(mined.run, per_query=per_query, limit=limit, **options)  # type: ignore[arg-type]
        what = "suspected false negatives"
    console = result_console()
    if len(shown):
        console.print(_table(mined.run, shown))
    done = f"; {len(answers):,} were answered before" if answers else ""
    print(f"{len(shown)} of {len(rows):,} {what}{done}")
    if sheet and len(shown):
        write_sheet(mined.run, shown, sheet)
        then = f"rivals review {_quoted(mined.base)} --apply {_quoted(sheet)}"
        print(f"Wrote {sheet}: fill in the column relevant with yes or no, then: {then}")


def _drawn(run: Run, answers: Answers, seed: int) -> NDArray[np.int64]:
    """The drawn negatives that nobody answered for, in random order."""
    from rivals.negatives.export import drawn_of
    from rivals.negatives.review_sheets import candidate_rows

    drawn = drawn_of(run).chosen(run)
    drawn[[row for row in candidate_rows(run, list(answers)).tolist() if row >= 0]] = False
    return np.random.default_rng([seed, 83]).permutation(np.flatnonzero(drawn))


def _table(run: Run, rows: NDArray[np.int64]) -> object:
    from rich.table import Table
    from rich.text import Text

    from rivals.negatives.review_sheets import sheet_columns

    columns = sheet_columns(run, rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="dim")
    table.add_column("", justify="right")
    for name in ("query", "labelled positive", "candidate"):
        table.add_column(name, ratio=1, overflow="fold")
    table.add_column("marked", ratio=1)

    def cell(identifier: str, score: float | None, text: str | None) -> Text:
        said = Text(f"{identifier}{'' if score is None else f' {score:.3f}'}\n", style="dim")
        return said.append((text or "")[:_CUT] + ("…" if text and len(text) > _CUT else ""), style="not dim")

    for number in range(len(rows)):
        at = {name: column[number] for name, column in columns.items()}
        table.add_row(
            str(number + 1),
            cell(at["query_id"], None, at["query"]),
            cell(at["positive_id"], at["positive_score"], at["positive"]),
            cell(at["document_id"], at["score"], at["document"]),
            Text(at["reasons"]),
        )
    return table


# ------------------------------------------------------------------------------------------------ answers


def _apply(mined: _Mined, sheet: str, output: str, judgements: str) -> None:
    from rivals.data import save_run
    from rivals.negatives.review import add_reviews, apply_reviews
    from rivals.negatives.review_sheets import read_answers

    if Path(output).suffix != ".parquet":
        raise RivalsError(f"the reviewed run {output} keeps every column; let its name end in .parquet")
    answers = read_answers(sheet, mined.run)
    if not answers:
        raise RivalsError(f"{sheet} has no answer yet; fill in the column relevant with yes or no")
    everything, counts = add_reviews(mined.run_path, answers)
    reviewed = apply_reviews(mined.run, everything)
    save_run(reviewed, output)
    rows = _write_judgements(reviewed, judgements)
    print(counts)
    print(f"Wrote the reviewed run to {output} and {rows} judgements to {judgements}")
    _estimate(mined, everything)


def _write_judgements(run: Run, path: str) -> int:
    from rivals.data import Dataset, save_qrels
    from rivals.data.formats.tables import write_table
    from rivals.negatives.review import reviewed_judgements

    known = reviewed_judgements(run)
    if Path(path).suffix in (".qrels", ".trec", ".txt"):
        save_qrels(Dataset(run.queries, run.documents, known), path)
    else:
        columns = {
            "query_id": run.queries.ids[known.query].tolist(),
            "document_id": run.documents.ids[known.document].tolist(),
            "relevance": known.relevance.tolist(),
        }
        write_table(columns, path)
    return len(known)


def _estimate(mined: _Mined, answers: Answers) -> None:
    """Where drawn negatives were answered for, print the rate of false negatives and put it into the audit beside the run."""
    from rivals.cli.mine import write_audit
    from rivals.negatives import MiningAudit
    from rivals.negatives.export import DRAWN, drawn_of
    from rivals.negatives.false_negatives import estimate_false_negatives
    from rivals.negatives.judging import LabelJudge
    from rivals.negatives.review_sheets import candidate_rows

    if DRAWN not in mined.run.features:
        return
    draw = drawn_of(mined.run)
    rows = candidate_rows(mined.run, list(answers))
    if not draw.chosen(mined.run)[rows[rows >= 0]].any():
        return
    judge = LabelJudge({pair: float(answer) for pair, answer in answers.items()}, highest=1, name="review")
    estimate = estimate_false_negatives(mined.run, draw, judge, sample=None, show=False)
    print(estimate)
    audit = Path(f"{mined.base}.audit.json")
    if audit.is_file():
        write_audit(mined.base, MiningAudit.from_json(audit.read_text(encoding="utf-8")).with_false_negatives(estimate))
        print(f"Added to {audit}")


# ------------------------------------------------------------------------------------------------ files


def _open(name: str, data: Mapping[str, str]) -> _Mined:
    """Find the run of a mined file, or take a run file, and load it with the texts of the data it was mined from."""
    from rivals.data import load_run

    beside = f"{name}.run.parquet"
    run_path = beside if Path(beside).is_file() else name
    base = run_path.removesuffix(".run.parquet")
    if not Path(run_path).is_file():
        raise RivalsError(f"there is no file {name}; give what rivals mine wrote, or a run file (.parquet)")
    dataset = _dataset(base, data)
    if dataset is None:
        print("The run holds ids only; give --documents and --pairs to see texts")
        return _Mined(base, run_path, load_run(run_path))
    return _Mined(base, run_path, load_run(run_path, dataset.queries, dataset.documents))


def _dataset(base: str, data: Mapping[str, str]) -> Dataset | None:
    """The data given, else that of the configuration beside the run."""
    from rivals.cli.train import open_data
    from rivals.workflow.mining_config import load_mining_plan

    given = {name: value for name, value in data.items() if value}
    if given:
        return open_data(replace(DataConfig(), **given), 0)  # type: ignore[arg-type]
    config = Path(f"{base}.toml")
    if not config.is_file():
        return None
    try:
        plan = load_mining_plan(config)
        return open_data(plan.data, plan.seed)
    except DataError as error:
        raise RivalsError(
            f"the data that {base} was mined from cannot be read ({error}); give --documents and --pairs"
        ) from None
