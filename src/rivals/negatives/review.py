"""Review by a person: which marked candidates to look at, a sheet to fill in, and what the answers change in the run.

The answers to a run are kept beside it, in RUN.reviews.jsonl, one a line; every answer of every sheet ends up there, so
a second sheet adds to the first. The run as mined is never changed: the reviewed run is made anew of it and all answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.files import atomic_file
from rivals.negatives.audit import relabelled_rows
from rivals.negatives.filters import POSITIVE_TEXT, REPEATED_TEXT, known_positives
from rivals.negatives.review_sheets import Answers, candidate_rows, read_rows

Order = Literal["nearest", "farthest", "random"]
#: Reasons that a review leaves in a run.
RELEVANT, NOT_RELEVANT = "reviewed: relevant", "reviewed: not relevant"


def suspect_rows(
    run: Run,
    *,
    order: Order = "nearest",
    per_query: int | None = 1,
    limit: int | None = None,
    answers: Answers | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return the run's rows that a person should look at, in the order to look, int64[m].

    A suspect was marked and scores at or above its query's lowest positive, or was relabelled by a filter. Known
    positives, copies of a positive or of a candidate further up, and pairs with an answer are left out.

    Args:
        order: "nearest" above the positive first, where a label is hardest to foresee; "farthest" first, where most
            false negatives are; or "random" (under `seed`), for counting.
        per_query: at most this many of a query, in that order; None for all. limit: at most this many in all.
        answers: pairs that need no other look.

    Raises:
        RivalsError: an unknown order, per_query or limit below 1.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 2], [1, 2], [.9, .5],
    ...                 positives=([0, 1], [0]), positive_score=[.8])
    >>> suspect_rows(run.mark(run.score > .4, "too high")).tolist()
    [0]
    """
    if order not in ("nearest", "farthest", "random"):
        raise RivalsError(f"order must be 'nearest', 'farthest' or 'random', not {order!r}")
    for name, value in (("per_query", per_query), ("limit", limit)):
        if value is not None and value < 1:
            raise RivalsError(f"{name} must be 1 or more, not {value}")
    lowest = lists.segment_reduce(np.minimum, run.positive_score, run.positive_offsets, empty=np.nan)  # NaN spreads
    relabelled = relabelled_rows(run)
    marked = (~run.keep & ~known_positives(run)) | relabelled
    marked &= ~(run.where_reason(POSITIVE_TEXT) | run.where_reason(REPEATED_TEXT))
    rows = np.flatnonzero(marked)
    query = np.searchsorted(run.offsets, rows, side="right") - 1
    excess = run.score[rows].astype(np.float64) - lowest[query]
    wanted = (excess >= 0) | relabelled[rows]
    if answers:
        wanted &= ~_answered(run, rows, query, answers)
    rows, query, excess = rows[wanted], query[wanted], np.nan_to_num(excess[wanted], nan=np.inf)
    keys = {
        "nearest": np.abs(excess),
        "farthest": -np.where(np.isinf(excess), -np.inf, excess),
        "random": np.random.default_rng([seed, 89]).random(len(rows)),
    }
    turn = np.argsort(keys[order], kind="stable")
    if per_query is not None:
        by_query = turn[np.argsort(query[turn], kind="stable")]
        place = np.empty(len(rows), np.int64)
        place[by_query] = lists.positions(lists.offsets_from_lengths(np.bincount(query, minlength=len(run.queries))))
        turn = turn[place[turn] < per_query]
    return rows[turn][:limit]


def _answered(run: Run, rows: NDArray[np.int64], query: NDArray[np.int64], answers: Answers) -> NDArray[np.bool_]:
    asked, found = run.queries.find(q for q, _ in answers), run.documents.find(d for _, d in answers)
    keys = asked * np.int64(len(run.documents)) + found
    return np.isin(query * np.int64(len(run.documents)) + run.document[rows], keys[(asked >= 0) & (found >= 0)])


# ------------------------------------------------------------------------------------------------ answers


def reviews_path(run_path: str | Path) -> Path:
    """Return where the answers to a run are kept."""
    return Path(f"{run_path}.reviews.jsonl")


def load_reviews(run_path: str | Path) -> dict[tuple[str, str], bool]:
    """Return all answers given to a run so far; none if there is no file of them.

    Raises:
        DataError: the file is damaged.
    """
    path = reviews_path(run_path)
    if not path.exists() or not path.stat().st_size:
        return {}
    return {(row.query_id, row.document_id): row.relevant for row in read_rows(path)}


@dataclass(frozen=True)
class ReviewCounts:
    """What a sheet added to the answers: how many were `new`, `changed` or `unchanged`, and all answers so far."""

    new: int
    changed: int
    unchanged: int
    relevant: int
    not_relevant: int

    def __str__(self) -> str:
        total = self.relevant + self.not_relevant
        share = f" ({self.relevant / total:.0%})" if total else ""
        return (
            f"{self.new} new answers, {self.changed} changed, {self.unchanged} as before; of {total} reviewed candidates "
            f"{self.relevant} are relevant{share} and {self.not_relevant} are not"
        )


def add_reviews(run_path: str | Path, answers: Answers) -> tuple[dict[tuple[str, str], bool], ReviewCounts]:
    """Add answers to those kept beside a run, newer ones winning, and return all of them and the counts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = add_reviews(f"{folder}/run.parquet", {("q", "a"): True, ("q", "b"): True})
    ...     print(add_reviews(f"{folder}/run.parquet", {("q", "b"): False, ("q", "c"): False})[1])
    1 new answers, 1 changed, 0 as before; of 3 reviewed candidates 1 are relevant (33%) and 2 are not
    """
    before = load_reviews(run_path)
    merged = before | dict(answers)
    new = sum(pair not in before for pair in answers)
    changed = sum(before.get(pair, answer) != answer for pair, answer in answers.items())
    with atomic_file(reviews_path(run_path)) as out:
        for (query, document), relevant in merged.items():
            row = {"query_id": query, "document_id": document, "relevant": "yes" if relevant else "no"}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = ReviewCounts(
        new, changed, len(answers) - new - changed, sum(merged.values()), len(merged) - sum(merged.values())
    )
    return merged, counts


def apply_reviews(run: Run, answers: Answers) -> Run:
    """Return the run as a person sees it.

    A relevant candidate becomes a positive of its query: label 1, `keep` False, one of the run's positives with
    relevance 1 and its own score. One that is not relevant gets the label 0 and may be drawn again, the hardest
    negative there is, unless its text stands elsewhere in the list or is a positive's. Both say so in `reason`; the
    filters' own reasons stay. Applying the same answers twice changes nothing; a changed answer undoes the old one.

    Raises:
        RivalsError: a pair that is no candidate of the run.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> reviewed = apply_reviews(run.mark(run.score > 0, "high"), {("q", "a"): True, ("q", "b"): False})
    >>> reviewed.label.tolist(), reviewed.keep.tolist(), reviewed.positive.tolist()
    ([1, 0], [False, True], [0])
    """
    rows = candidate_rows(run, list(answers))
    if (rows < 0).any():
        query, document = list(answers)[int((rows < 0).argmax())]
        raise RivalsError(f"document '{document}' is no candidate of query '{query}' in this run")
    relevant = np.fromiter(answers.values(), bool, count=len(answers))
    yes, no = np.zeros(len(run), bool), np.zeros(len(run), bool)
    yes[rows[relevant]], no[rows[~relevant]] = True, True
    withdrawn = no & run.where_reason(RELEVANT)
    copies = run.where_reason(POSITIVE_TEXT) | run.where_reason(REPEATED_TEXT)
    run = run.mark(yes, RELEVANT).mark(no, NOT_RELEVANT, keep=True)
    bits = {name: np.uint64(1) << np.uint64(run.reasons.index(name)) for name in (RELEVANT, NOT_RELEVANT)}
    reason = np.where(yes, run.reason & ~bits[NOT_RELEVANT], np.where(no, run.reason & ~bits[RELEVANT], run.reason))
    return _with_positives(run, yes, withdrawn).replace(
        label=np.where(yes, np.int8(1), np.where(no, np.int8(0), run.label)),
        keep=np.where(no, ~copies, run.keep),
        reason=reason,
    )


def _with_positives(run: Run, added: NDArray[np.bool_], removed: NDArray[np.bool_]) -> Run:
    """Return the run with candidates added to and removed from its positives, which stand in the documents' order."""
    owner = lists.segment_ids(run.positive_offsets)
    fresh, gone = np.flatnonzero(added), np.flatnonzero(removed)
    query = run.query
    fresh = fresh[lists.find_pairs(run.positive_offsets, run.positive, query[fresh], run.document[fresh]) < 0]
    place = lists.find_pairs(run.positive_offsets, run.positive, query[gone], run.document[gone])
    if not len(fresh) and not (place >= 0).any():
        return run
    stay = np.ones(len(run.positive), bool)
    stay[place[place >= 0]] = False
    whose = np.concatenate([owner[stay], query[fresh]])
    document = np.concatenate([run.positive[stay], run.document[fresh]])
    order = np.lexsort((document, whose))
    score = np.concatenate([run.positive_score[stay], run.score[fresh]])
    relevance = np.concatenate([run.positive_relevance[stay], np.ones(len(fresh), np.float32)])
    return replace(
        run,
        positive_offsets=lists.offsets_from_lengths(np.bincount(whose, minlength=len(run.queries))),
        positive=document[order],
        positive_score=score[order],
        positive_relevance=relevance[order],
    )


def reviewed_judgements(run: Run) -> Judgements:
    """Return what is known of a reviewed run's queries: its positives, and its candidates with the label 0.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> reviewed_judgements(apply_reviews(run, {("q", "a"): True, ("q", "b"): False})).relevance.tolist()
    [1.0, 0.0]
    """
    refused = np.flatnonzero((run.label == 0) & ~known_positives(run))
    return Judgements.build(
        np.concatenate([lists.segment_ids(run.positive_offsets), run.query[refused]]),
        np.concatenate([run.positive, run.document[refused]]),
        np.concatenate([run.positive_relevance, np.zeros(len(refused), np.float32)]),
        queries=len(run.queries),
        documents=len(run.documents),
    )
