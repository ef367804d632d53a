"""Full ranking: every answer's rank among all documents, at the speed of a matrix product, for any scorer by blocks.

For recommenders (users, items) and knowledge graphs (head and relation, entities). Scores are made block by block and
counted, never held as a whole; known positives are filtered; ties are told apart from wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.errors import RivalsError
from rivals.evaluate.ranked_answers import RankedAnswers
from rivals.progress import progress

if TYPE_CHECKING:
    from rivals.evaluate.evaluation_negatives import EvaluationNegatives

BlockScorer: TypeAlias = Callable[[NDArray[np.int64]], Any]
"""Query rows int64[B] -> their scores of all documents, [B, N]: numpy or torch."""

_CELLS = 1_300_000  # scores made at once, so that they are counted while still in the cache


class SampledRankingWarning(UserWarning):
    """Measures on sampled negatives are not those of the full ranking, and may order systems differently.

    >>> issubclass(SampledRankingWarning, UserWarning)
    True
    """


def vector_scores(queries: Any, documents: Any) -> BlockScorer:
    """Return the scorer by inner products of vectors: queries[Q, D], documents[N, D], numpy or torch.

    Use it for matrix factorisation and encoders whose vectors are at hand; products are float32. The block it returns
    is used again by the next call.

    Raises:
        RivalsError: the vectors are no matrices of one width.

    >>> vector_scores([[1.0, 0.0]], [[2.0, 0.0], [0.0, 3.0]])(np.array([0])).tolist()
    [[2.0, 0.0]]
    """
    import torch

    asked, held = (torch.as_tensor(part).detach().float().contiguous() for part in (queries, documents))
    if asked.dim() != 2 or held.dim() != 2 or asked.shape[1] != held.shape[1]:
        raise RivalsError(
            f"queries and documents must be vectors of one width, not {tuple(asked.shape)} and {tuple(held.shape)}"
        )
    buffer = torch.empty(0)

    def score(rows: NDArray[np.int64]) -> Any:
        nonlocal buffer
        size = len(rows) * len(held)
        if buffer.numel() < size or buffer.device != held.device:
            buffer = torch.empty(size, device=held.device)
        return torch.mm(
            asked[torch.as_tensor(rows, device=asked.device)], held.T, out=buffer[:size].view(len(rows), -1)
        )

    return score


def full_ranking(
    scorer: BlockScorer,
    positives: Judgements,
    *,
    known: Judgements | None = None,
    negatives: EvaluationNegatives | None = None,
    relevance_level: float = 1,
    block: int | None = None,
    threads: int | None = None,
) -> RankedAnswers:
    """Rank every answer of every query among all documents.

    above = documents with a higher score that are neither answers nor known, tied = those with the same score. All
    ranks and measures of `RankedAnswers` follow from the two, so ties cost a scorer what they should: a constant scorer
    has realistic ranks in the middle, not at the top. Cost: the scores, and one pass over a row for each answer.

    Args:
        scorer: rows -> scores [B, N]; see `vector_scores`. NaN is an error, -inf ranks last.
        positives: the answers, relevance of `relevance_level` and up; queries without any are left out and counted.
        known: judged over the same queries; its relevant pairs (training items, all true triples) are filtered. What
            is an answer stays one.
        negatives: stored negatives: then `.sampled` holds the ranks among them, and a `SampledRankingWarning` says
            that those are biased.
        block: queries at once; None takes about a million scores. threads: of the counting; None takes torch's.

    Source: filtered ranks: Bordes et al. 2013; optimistic, pessimistic and realistic: Berrendorf et al. 2020
    (arXiv 2002.06914); sampled measures: Krichene and Rendle 2020 (doi 10.1145/3394486.3403226).

    Raises:
        RivalsError: no query has an answer; scores of another shape, or NaN; known or negatives over other queries;
            an answer among the negatives; block or threads below 1.

    >>> answers = Judgements.build([0, 1], [1, 0], [1, 1], queries=2, documents=3)
    >>> ranking = full_ranking(vector_scores([[1.0], [-1.0]], [[3.0], [2.0], [1.0]]), answers)
    >>> ranking.ranks().tolist()
    [2.0, 3.0]
    """
    import torch

    queries = len(positives.offsets) - 1
    if not relevance_level > 0:
        raise RivalsError(f"relevance_level is {relevance_level}; it must be above 0")
    if (block is not None and block < 1) or (threads is not None and threads < 1):
        raise RivalsError(f"block is {block} and threads {threads}; both must be at least 1, or None")
    for name, other in (("known", known), ("negatives", negatives)):
        if other is not None and len(other.offsets) != len(positives.offsets):
            raise RivalsError(f"{name} covers {len(other.offsets) - 1} queries, the positives {queries}; align them")
    keep = positives.relevance >= relevance_level
    offsets = lists.keep_values(keep, positives.offsets)
    rows = np.flatnonzero(np.diff(offsets) > 0)
    if not len(rows):
        raise RivalsError(f"none of the {queries} queries has an answer of relevance {relevance_level:g} or more")
    offsets = lists.offsets_from_lengths(np.diff(offsets)[rows])
    answer, relevance = positives.document[keep], positives.relevance[keep]
    out_offsets, out = _excluded(offsets, answer, None if known is None else known.positives.take(rows))
    listed = None if negatives is None else negatives.take(rows)
    if listed is not None and (lists.find_pairs(out_offsets, out, listed.query, listed.document) >= 0).any():
        raise RivalsError("the evaluation negatives hold answers or known positives; draw them for these positives")
    score = np.zeros(len(answer), np.float64)
    above, tied, among, equal = (np.zeros(len(answer), np.int64) for _ in range(4))
    nan = np.zeros(len(rows), np.int64)
    width, at, workers = 0, 0, threads or torch.get_num_threads()
    from rivals.evaluate._rank_counts import count_listed, count_rows

    with ThreadPoolExecutor(workers) as pool, progress("Ranking all documents", len(rows)) as advance:
        while at < len(rows):
            size = block or (min(1024, max(8, _CELLS // width)) if width else 1)
            scores = _as_block(scorer(rows[at : at + size]), len(rows[at : at + size]), width)
            if not width:
                width = scores.shape[1]
                _check_documents(width, out, listed)
            cuts = [len(scores) * i // workers for i in range(workers + 1)]
            common = (at, out_offsets, out, offsets, answer, score, above, tied, nan)
            list(pool.map(lambda low, high, s=scores, c=common: count_rows(s, low, high, *c), cuts[:-1], cuts[1:]))
            if listed is not None:
                count_listed(scores, at, listed.offsets, listed.document, offsets, answer, among, equal)
            if nan[at : at + len(scores)].any():
                raise RivalsError(
                    f"{int(nan.sum())} scores are NaN, first of query row {rows[at + int(nan[at:].argmax())]}"
                )
            at += len(scores)
            advance(len(scores))
    left_out = queries - len(rows)
    sampled = None
    if listed is not None:
        sampled = RankedAnswers(
            rows, offsets, answer, relevance, score, among, equal, np.diff(listed.offsets), left_out
        )
        warnings.warn(
            f"measures on {negatives} are not those of the full ranking and may order systems differently "
            "(Krichene and Rendle 2020); report the full ones",
            SampledRankingWarning,
            stacklevel=2,
        )
    rivals = width - np.diff(out_offsets)
    return RankedAnswers(rows, offsets, answer, relevance, score, above, tied, rivals, left_out, sampled)


def _excluded(
    offsets: NDArray[np.int64], answer: NDArray[np.int64], known: Judgements | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the answers and the known positives of each query, each once: offsets and documents."""
    if known is None:
        return offsets, answer
    documents = np.int64(max(answer.max(initial=0), known.document.max(initial=0)) + 1)
    answers = lists.segment_ids(offsets) * documents + answer
    keys = np.sort(
        np.concatenate([answers, known.query * documents + known.document]), kind="stable"
    )  # two sorted runs
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    query, document = np.divmod(keys[new], documents)
    return lists.offsets_from_lengths(np.bincount(query, minlength=len(offsets) - 1)), document


def _as_block(scores: Any, rows: int, width: int) -> NDArray[Any]:
    """Return a scorer's block as a matrix of float32 or float64, or raise."""
    import torch

    if isinstance(scores, torch.Tensor):
        scores = scores.detach()
        scores = (scores if scores.dtype in (torch.float32, torch.float64) else scores.float()).cpu().numpy()
    block = np.asarray(scores)
    if block.dtype not in (np.float32, np.float64):
        block = block.astype(np.float32 if block.dtype == np.float16 else np.float64)
    if block.ndim != 2 or len(block) != rows or block.shape[1] == 0 or (width and block.shape[1] != width):
        wanted = width or "documents"
        raise RivalsError(f"the scorer gave scores of shape {block.shape} for {rows} queries; give [{rows}, {wanted}]")
    return np.ascontiguousarray(block)


def _check_documents(width: int, documents: NDArray[np.int64], listed: EvaluationNegatives | None) -> None:
    """Raise if a document row lies outside of what the scorer scores."""
    most = max(int(documents.max(initial=-1)), -1 if listed is None else int(listed.document.max(initial=-1)))
    if most >= width:
        raise RivalsError(f"document row {most} is named, but the scorer scores only {width} documents")
