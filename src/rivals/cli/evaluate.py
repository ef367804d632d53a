"""`rivals evaluate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError

if TYPE_CHECKING:
    from rivals.data.formats.tables import Table


def run_evaluate(
    *,
    runs: list[str],
    judgements: str,
    measures: list[str] | None,
    baselines: list[str] | None,
    json_file: str,
    seed: int,
) -> None:
    """Compare run files on the same judgements."""
    from rivals.cli._console import result_console
    from rivals.evaluate import evaluate
    from rivals.evaluate.evaluation import DEFAULT_MEASURES
    from rivals.files import atomic_file

    names = [Path(path).stem for path in runs]
    for name in names:
        if names.count(name) > 1:
            raise RivalsError(
                f"two runs are called '{name}'; run files need different names, since the table shows them"
            )
    systems, dataset = load_runs(dict(zip(names, runs, strict=True)), judgements)
    evaluation = evaluate(
        systems,
        dataset,
        measures=tuple(measures or DEFAULT_MEASURES),
        baselines=tuple(baselines or names[:1]),
        seed=seed,
    )
    result_console().print(evaluation)
    if json_file:
        with atomic_file(json_file) as out:
            out.write(evaluation.to_json())


def load_runs(paths: dict[str, str], judgements: str) -> tuple[dict[str, Run], Dataset]:
    """Load run files and judgements over one collection of documents: every id that a run or a judgement names."""
    from rivals.data.formats.trec import load_trec_run, read_qrels_table

    table = read_qrels_table(judgements)
    if not len(table):
        raise DataError("holds no judgement; every line needs: query id, 0, document id, relevance", path=judgements)
    columns = table.columns
    judged = list(zip(columns["query_id"], columns["document_id"], columns["relevance"], strict=True))
    loaded = {name: load_trec_run(path) for name, path in paths.items()}
    ids = {document for _, document, _ in judged}.union(*(run.documents.ids.tolist() for run in loaded.values()))
    documents = Collection(sorted(ids))
    queries = Collection(sorted({query for query, _, _ in judged}), name="query")
    pairs = [(query, document, _grade(table, row, grade)) for row, (query, document, grade) in enumerate(judged)]
    dataset = Dataset.from_pairs(queries, documents, pairs, name=Path(judgements).name)
    return {name: load_trec_run(path, documents=documents) for name, path in paths.items()}, dataset


def _grade(table: Table, row: int, text: str) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise table.error(row, f"the relevance '{text}' is not a number")
    return grade
