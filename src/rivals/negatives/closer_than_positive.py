"""The triangle rule: a hard negative is nearer to the query than the positive is, and nearer to it than to the positive."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._row_cosines import row_cosines
from rivals.negatives.filters import NO_POSITIVE, WithoutPositive, known_positives, positive_threshold
from rivals.negatives.vector_source import VectorSource, nearest_positive_cosine, vectors_of

Fallback = Literal["none", "nearest", "relax"]

FARTHER = "farther from the query than its positive"
NEAR_POSITIVE = "nearer to a positive than to the query"


@dataclass(frozen=True, eq=False, repr=False)
class CloserThanPositive(Transform):
    """Keep as negatives the candidates nearer to the query than its positive is, and nearer to it than to the positive.

    With the cosine distance d, a candidate D of the query Q with the positive P is kept where

        d(Q, D) + m1 < d(Q, P)   and   d(Q, D) + m2 < d(P, D),   m1 = `query_margin`, m2 = `positive_margin`.

    The first makes it hard, the second leaves out near copies of the positive, which are likely right themselves. Of
    several positives the nearest counts, in both. What breaks a condition is marked under a reason of its own.

    The first condition is the opposite of `PositiveAware`, and the two leave nothing together. It says nothing where the
    positive comes first, so a good encoder leaves few candidates: look at how many queries keep any. Put a judge behind
    it where false negatives matter.

    Args:
        source: gives the vectors of queries and documents, `EnsembleSource` or any `Dense`; all three distances are
            measured in its space, whoever proposed and scored the candidates.
        query_margin, positive_margin: 0 or more, in cosines.
        fallback: for queries where no candidate passes. "none" leaves them none. "nearest" keeps the nearest that meets
            the second condition; "relax" multiplies d(Q, P) by 1 + step until some do.
        step: of "relax", above 0. without_positive: as in `PositiveAware`.

    Source: "Hard Negative Mining for Domain-Specific Retrieval in Enterprise Systems" (2025), both conditions. Paper 60.
    Margins and fallbacks are ours.

    Raises:
        RivalsError: options out of range; a source without vectors or over other documents; a vector of length 0; a query
        with candidates and without positive.

    >>> from rivals.data import Collection
    >>> class Plane:
    ...     documents = Collection(["p", "d1", "d2", "d3"])
    ...     vectors = np.stack([np.cos(np.radians([40, -20, 45, 25])), np.sin(np.radians([40, -20, 45, 25]))], axis=1)
    ...     def query_vectors(self, queries): return np.array([[1.0, 0.0]])
    >>> run = Run.build(Collection(["q"]), Plane.documents, [0, 3], [1, 2, 3], [.9, .7, .9], positives=([0, 1], [0]))
    >>> marked = CloserThanPositive(Plane())(run)
    >>> marked.documents.ids[marked.document[marked.keep]].tolist()
    ['d1']
    """

    source: VectorSource
    query_margin: float = 0.0
    positive_margin: float = 0.0
    fallback: Fallback = "none"
    step: float = 0.1
    without_positive: WithoutPositive = "error"

    def __post_init__(self) -> None:
        for name, value in (("query_margin", self.query_margin), ("positive_margin", self.positive_margin)):
            if not (math.isfinite(value) and value >= 0):
                raise RivalsError(f"{name} must be a number, 0 or more; not {value!r}")
        if self.fallback not in ("none", "nearest", "relax"):
            raise RivalsError(f"fallback must be 'none', 'nearest' or 'relax', not {self.fallback!r}")
        if not (math.isfinite(self.step) and self.step > 0):
            raise RivalsError(f"step must be a number above 0, not {self.step!r}")
        if self.without_positive not in ("error", "keep", "mark"):
            raise RivalsError(f"without_positive must be one of error, keep, mark, not {self.without_positive!r}")

    def __repr__(self) -> str:
        return (
            f"CloserThanPositive(query_margin={self.query_margin:g}, positive_margin={self.positive_margin:g}, "
            f"fallback={self.fallback!r})"
        )

    @property
    def reasons(self) -> tuple[str, str]:
        """The reasons of the first and of the second condition."""
        first = f"{FARTHER} by {self.query_margin:g}" if self.query_margin else FARTHER
        second = f"{NEAR_POSITIVE} by {self.positive_margin:g}" if self.positive_margin else NEAR_POSITIVE
        tail = "" if self.fallback == "none" else f" ({self.fallback})"
        return first + tail, second

    def __call__(self, run: Run) -> Run:
        own, positive, nearest = self._cosines(run)
        compared = run.replace(positive_score=positive)
        threshold, present = positive_threshold(compared, "max", error=self.without_positive == "error")
        lengths = np.diff(run.offsets)
        hard = own > np.repeat(threshold + np.float32(self.query_margin), lengths)
        clear = own > nearest + np.float32(self.positive_margin)
        if self.fallback != "none":
            hard |= self._relaxed(run, own, np.repeat(threshold, lengths), hard, clear)
        lonely = None if present.all() else np.repeat(~present, lengths)
        if lonely is not None:
            hard, clear = hard | lonely, clear | lonely
        first, second = self.reasons
        run = run.mark(~hard, first).mark(~clear, second)
        if lonely is not None and self.without_positive == "mark":
            run = run.mark(lonely, NO_POSITIVE)
        if len(run) and not run.keep.any():
            warnings.warn(
                f"{self!r} and what stands before it leave not one of {len(run)} candidates; PositiveAware asks for the "
                "opposite of the first condition",
                UserWarning,
                stacklevel=2,
            )
        return run

    def _cosines(self, run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The cosines of queries with candidates, of queries with positives, and of candidates with the nearest positive."""
        queries, documents = vectors_of(run, self.source)
        owner = lists.segment_ids(run.positive_offsets)
        own = row_cosines(queries, documents, run.query, run.document)
        positive = row_cosines(queries, documents, owner, run.positive)
        for cosine, query, document in ((own, run.query, run.document), (positive, owner, run.positive)):
            if np.isnan(cosine).any():
                row = int(np.isnan(cosine).argmax())
                raise RivalsError(
                    f"query '{run.queries.ids[query[row]]}' and document '{run.documents.ids[document[row]]}' have no "
                    "distance: the vector of one has length 0 or is not finite; leave out empty texts"
                )
        return own, positive, nearest_positive_cosine(run, documents)

    def _relaxed(
        self,
        run: Run,
        own: NDArray[np.float32],
        threshold: NDArray[np.float32],
        hard: NDArray[np.bool_],
        clear: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """What the fallback lets through the first condition, in queries where nothing passed both."""
        allowed = clear & ~known_positives(run)
        empty = ~lists.segment_reduce(np.logical_or, hard & clear, run.offsets)
        allowed &= np.repeat(empty, np.diff(run.offsets))
        distance = np.where(allowed, 1.0 - own.astype(np.float64), np.inf)
        least = np.repeat(lists.segment_reduce(np.minimum, distance, run.offsets, np.inf), np.diff(run.offsets))
        if self.fallback == "nearest":
            best = allowed & (distance == least)
            first = np.unique(run.query[best], return_index=True)[1]
            chosen = np.zeros(len(run), bool)
            chosen[np.flatnonzero(best)[first]] = True
            return chosen
        limit = 1.0 - threshold.astype(np.float64)
        possible = allowed & (limit > 0)
        distance, least = distance + self.query_margin, least + self.query_margin
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.floor(np.log(np.maximum(least, 1e-300) / limit) / math.log1p(self.step)) + 1
            widened = limit * (1 + self.step) ** np.maximum(steps, 1)
            widened = np.where(least < widened, widened, widened * (1 + self.step))  # the logarithm was rounded
            return possible & (distance < widened)


def closer_than_positive_mask(
    query: Any,
    positive: Any,
    candidates: Any,
    mask: Any = None,
    *,
    query_margin: float = 0.0,
    positive_margin: float = 0.0,
) -> NDArray[np.bool_]:
    """Return which candidates pass both conditions of `CloserThanPositive`, bool[Q, C]; its functional core.

    Shapes: query and positive float[Q, r], candidates float[Q, C, r], mask bool[Q, C]; masked entries are not looked at
    and False. Cosines in the dtype of the vectors.

    Source: Paper 60, as `CloserThanPositive`.

    Raises:
        RivalsError: shapes that do not fit, a vector of length 0 or not finite, a margin below 0.

    >>> angle = np.radians([[-20.0, 45.0, 25.0]])
    >>> candidates = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    >>> positive = [[np.cos(np.radians(40)), np.sin(np.radians(40))]]
    >>> closer_than_positive_mask([[1.0, 0.0]], positive, candidates).tolist()
    [[True, False, False]]
    """
    q, p, c = (np.asarray(values) for values in (query, positive, candidates))
    if q.ndim != 2 or p.shape != q.shape or c.ndim != 3 or (len(c), c.shape[2]) != q.shape:
        raise RivalsError(
            f"query [Q, r], positive [Q, r] and candidates [Q, C, r] are needed; not {q.shape}, {p.shape}, {c.shape}"
        )
    there = np.ones(c.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if there.shape != c.shape[:2]:
        raise RivalsError(f"mask {there.shape} must be {c.shape[:2]}, as the candidates are")
    if not (query_margin >= 0 and positive_margin >= 0):
        raise RivalsError(f"margins must be 0 or more, not {query_margin!r} and {positive_margin!r}")
    q, p = _unit(q, "query"), _unit(p, "positive")
    c = _unit(np.where(there[..., None], c, np.ones(1, c.dtype)), "candidate")
    own = np.einsum("qd,qcd->qc", q, c)
    hard = own > np.einsum("qd,qd->q", q, p)[:, None] + query_margin
    return there & hard & (own > np.einsum("qd,qcd->qc", p, c) + positive_margin)


def _unit(vectors: NDArray[Any], what: str) -> NDArray[Any]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise RivalsError(f"a {what} vector has length 0 or is not finite; its distances are not defined")
    return vectors / length
