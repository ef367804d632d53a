"""Label noise found by nearest neighbours: positives that annotators left in the class "none of these", and the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.negatives.label_noise import as_labels, check_negative_label
from rivals.retrieve._topk import exact_top_k

Strategy = Literal["intrinsic", "extrinsic"]
Action = Literal["eliminate", "relabel", "weight"]

_PAIRS = 10_000  # of one class, drawn to estimate the usual distance within a class


@dataclass(frozen=True, eq=False)
class Suspects:
    """Items whose label is doubtful, in ascending order.

    `index` int64[m]; `proposed` [m], the label that the neighbours suggest; `score` float64[m], how strongly: the share
    of agreeing neighbours (extrinsic), or the similarities of the misread positives that point to the item, added up
    (intrinsic); `evidence` int64[m], the nearest item of the proposed label; `distance` float64[m] to it.
    """

    index: NDArray[np.int64]
    proposed: NDArray[Any]
    score: NDArray[np.float64]
    evidence: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of suspects."""
        return len(self.index)

    def take(self, chosen: NDArray[Any]) -> Suspects:
        """Return some of them: those at places `chosen`, or where it is True."""
        return Suspects(*(getattr(self, column.name)[chosen] for column in fields(self)))


class CleanedLabels(NamedTuple):
    """What cleaning made of the labels: `keep` bool[N], `labels` [N], `weight` float32[N], the `suspects`, and the
    `report`, counts by name."""

    keep: NDArray[np.bool_]
    labels: NDArray[Any]
    weight: NDArray[np.float32]
    suspects: Suspects
    report: Mapping[str, float]


@dataclass(frozen=True)
class NeighbourCleaner:
    """Finds items of a dominating negative class that are positives, by their nearest neighbours, and cleans them out.

    "intrinsic" trusts the positives: suspects are, of the negatives, the `neighbours` nearest to every positive that
    out-of-fold predictions take for a negative; such a positive looks negative because its like were left unlabelled.
    Proposed is the label of the nearest such positive.
    "extrinsic" trusts a verified part of the data: suspects are the negatives (with scope "all" also positives) outside
    it whose `neighbours` nearest verified items have another label, at a share of `agreement` or more. A tie between two
    labels is no majority.

    Use it on data whose negatives nobody judged: relation classification, intents with an "other" class, distant
    supervision. Then train again, from the start. Eliminating is the safe choice; relabelling spreads the errors of
    what it copies. Neither helps where the model is poor: then hard negatives are what goes.

    Args:
        strategy, neighbours, agreement: above. `agreement` is read by "extrinsic" alone.
        action: "eliminate" sets `keep` to False, "relabel" gives the proposed label, "weight" sets the weight to
            1 - score (extrinsic) or 1 / (1 + score) (intrinsic).
        negative_label: the label of the negative class. scope: "negatives" or "all".
        metric: "cosine" (1 - cosine) or "euclidean".
        max_distance: suspect only what lies nearer than this to its evidence; "median" takes the median distance of
            two items of one label.
        max_share: alter at most this share of the negatives (of all items with scope "all"), the highest scores first;
            None sets no limit. The report says what was left.

    Source: "Noise in Relation Classification Dataset TACRED: Characterization and Reduction" (2023), strategies IS and
    ES with -E / -R, -EN / -RN, -ENP / -RNP. Paper 118. Numbers, ties, distance limit and weights are ours.

    Raises:
        RivalsError: an option out of range, scope "all" with "intrinsic", which trusts the positives.

    >>> vectors = np.array([[0.0], [10.0], [0.1], [9.9]])
    >>> cleaner = NeighbourCleaner("extrinsic", neighbours=1, metric="euclidean")
    >>> found = cleaner.find(vectors, [0, 1, 0, 0], clean=[0, 1])
    >>> found.index.tolist(), found.proposed.tolist()
    ([3], [1])
    """

    strategy: Strategy = "intrinsic"
    neighbours: int = 5
    agreement: float = 0.6
    action: Action = "eliminate"
    negative_label: Any = 0
    scope: Literal["negatives", "all"] = "negatives"
    metric: Literal["cosine", "euclidean"] = "cosine"
    max_distance: float | Literal["median"] | None = None
    max_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("strategy", self.strategy, ("intrinsic", "extrinsic")),
            ("action", self.action, ("eliminate", "relabel", "weight")),
            ("scope", self.scope, ("negatives", "all")),
            ("metric", self.metric, ("cosine", "euclidean")),
        ):
            if value not in allowed:
                raise RivalsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if self.strategy == "intrinsic" and self.scope == "all":
            raise RivalsError("the intrinsic strategy trusts the positives; scope 'all' needs strategy 'extrinsic'")
        if not isinstance(self.neighbours, int | np.integer) or self.neighbours < 1:
            raise RivalsError(f"neighbours must be a whole number, 1 or more; not {self.neighbours!r}")
        for name, share in (("agreement", self.agreement), ("max_share", self.max_share)):
            if share is not None and not 0 < share <= 1:
                raise RivalsError(f"{name} must lie in (0, 1], not {share!r}")
        limit = self.max_distance
        if limit is not None and limit != "median" and not (isinstance(limit, int | float) and limit > 0):
            raise RivalsError(f"max_distance must be a number above 0 or 'median', not {limit!r}")

    def find(self, embeddings: Any, labels: Any, *, predictions: Any = None, clean: Any = None) -> Suspects:
        """Return the suspects.

        Args:
            embeddings: float[N, d], of the classifier's last layer or a text encoder. labels: [N].
            predictions: [N], out of fold (intrinsic). clean: int[m], the rows that were verified (extrinsic); they are
                never suspects.

        Raises:
            RivalsError: no item of the negative label, no predictions or no clean rows where they are needed, more
            neighbours than there are items to choose from, vectors that do not fit, or of length 0 with cosines.
        """
        given = as_labels(labels, "labels")
        vectors = self._vectors(embeddings, len(given))
        check_negative_label(given, self.negative_label)
        negative = given == self.negative_label
        if self.strategy == "intrinsic":
            found = self._intrinsic(vectors, given, negative, predictions)
        else:
            found = self._extrinsic(vectors, given, negative, clean)
        limit = self._limit(vectors, given)
        return found.take(found.distance < limit)

    def apply(self, embeddings: Any, labels: Any, *, predictions: Any = None, clean: Any = None) -> CleanedLabels:
        """Find the suspects and do with them what `action` says; arguments and errors as in `find`.

        A negative class that loses more than 30 % of its items is warned about.

        >>> cleaner = NeighbourCleaner(neighbours=1, metric="euclidean", action="relabel")
        >>> cleaned = cleaner.apply([[10.0], [9.8], [0.0]], [1, 0, 0], predictions=[0, 0, 0])
        >>> cleaned.labels.tolist(), cleaned.report["suspects"]
        ([1, 1, 0], 1)
        """
        given = as_labels(labels, "labels").copy()
        found = self.find(embeddings, given, predictions=predictions, clean=clean)
        negatives = int((given == self.negative_label).sum())
        most = len(found)
        if self.max_share is not None:
            most = min(most, math.floor(self.max_share * (len(given) if self.scope == "all" else negatives)))
        chosen = np.sort(np.argsort(-found.score, kind="stable")[:most])
        suspects = found.take(chosen)
        share = float((given[suspects.index] == self.negative_label).sum() / negatives)
        if share > 0.3:
            warnings.warn(
                f"{share:.0%} of the negatives are suspects; a poor model makes hard negatives suspicious too, so compare "
                "on clean data, or set max_share",
                UserWarning,
                stacklevel=2,
            )
        keep, weight = np.ones(len(given), bool), np.ones(len(given), np.float32)
        if self.action == "eliminate":
            keep[suspects.index] = False
        elif self.action == "relabel":
            if not np.can_cast(suspects.proposed.dtype, given.dtype):
                given = given.astype(np.promote_types(given.dtype, suspects.proposed.dtype))
            given[suspects.index] = suspects.proposed
        else:
            less = 1 - suspects.score if self.strategy == "extrinsic" else 1 / (1 + suspects.score)
            weight[suspects.index] = less
        report = {
            "items": len(given),
            "negatives": negatives,
            "suspects": len(found),
            "altered": len(chosen),
            "left by max_share": len(found) - len(chosen),
            "share of negatives altered": share,
        }
        return CleanedLabels(keep, given, weight, suspects, report)

    def _intrinsic(
        self, vectors: NDArray[np.float64], given: NDArray[Any], negative: NDArray[np.bool_], predictions: Any
    ) -> Suspects:
        if predictions is None:
            raise RivalsError("the intrinsic strategy needs predictions; out_of_fold_predictions makes them")
        guessed = as_labels(predictions, "predictions")
        if len(guessed) != len(given):
            raise RivalsError(f"{len(given)} labels and {len(guessed)} predictions do not pair up")
        missed = np.flatnonzero(~negative & (guessed == self.negative_label))
        if not len(missed):
            warnings.warn(
                "no positive is predicted negative, so the intrinsic strategy suspects nothing; are the predictions out "
                "of fold?",
                UserWarning,
                stacklevel=4,
            )
            none = np.zeros(0, np.int64)
            return Suspects(none, given[none], none.astype(np.float64), none, none.astype(np.float64))
        pool = np.flatnonzero(negative)
        rows, distance = self._nearest(vectors, missed, pool)
        item, source = rows.ravel(), np.repeat(missed, self.neighbours)
        away = distance.ravel()
        alike = np.maximum(1 - away, 0.0) if self.metric == "cosine" else 1 / (1 + away)
        order = np.lexsort((source, away, item))
        item, source, away, alike = item[order], source[order], away[order], alike[order]
        index, first = np.unique(item, return_index=True)
        score = np.add.reduceat(alike, first)
        return Suspects(index, given[source[first]], score, source[first], away[first])

    def _extrinsic(
        self, vectors: NDArray[np.float64], given: NDArray[Any], negative: NDArray[np.bool_], clean: Any
    ) -> Suspects:
        verified = np.unique(np.asarray([] if clean is None else clean, np.int64))
        if not len(verified):
            raise RivalsError("the extrinsic strategy needs clean: the rows whose labels were verified")
        if verified[0] < 0 or verified[-1] >= len(given):
            raise RivalsError(f"clean names row {verified[-1]}, but there are {len(given)} items")
        open_ = negative.copy() if self.scope == "negatives" else np.ones(len(given), bool)
        open_[verified] = False
        asked = np.flatnonzero(open_)
        rows, distance = self._nearest(vectors, asked, verified)
        classes, place = np.unique(given, return_inverse=True)
        codes = place[rows]
        votes = np.zeros((len(asked), len(classes)), np.int64)
        np.add.at(votes, (np.arange(len(asked))[:, None], codes), 1)
        best = votes.argmax(1)
        most = votes.max(1, initial=0)
        alone = (votes == most[:, None]).sum(1) == 1
        share = most / self.neighbours
        doubtful = alone & (share >= self.agreement - 1e-12) & (classes[best] != given[asked])
        agreeing = (codes == best[:, None]).argmax(1)  # neighbours stand nearest first
        each = np.arange(len(asked))
        found = Suspects(asked, classes[best], share, rows[each, agreeing], distance[each, agreeing])
        return found.take(doubtful)

    def _nearest(
        self, vectors: NDArray[np.float64], asked: NDArray[np.int64], pool: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The nearest of `pool` to every row asked, nearest first, ties by row; and their distances."""
        if self.neighbours > len(pool):
            raise RivalsError(f"neighbours is {self.neighbours}, but there are only {len(pool)} items to choose from")
        left, right = vectors[asked], vectors[pool]
        if self.metric == "euclidean":  # the largest inner product less half the square is the least distance
            middle = right.mean(0)
            left, right = left - middle, right - middle
            half = (right**2).sum(1, keepdims=True) / 2
            left, right = np.hstack([left, np.ones((len(left), 1))]), np.hstack([right, -half])
        found = exact_top_k(left.astype(np.float32), right.astype(np.float32), self.neighbours, proven=True)[1]
        rows = pool[found]
        distance = np.empty(rows.shape)
        for column in range(rows.shape[1]):
            distance[:, column] = self._distance(vectors[asked], vectors[rows[:, column]])
        return rows, distance

    def _distance(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.metric == "cosine":
            return np.maximum(1 - np.einsum("nd,nd->n", left, right), 0.0)
        length: NDArray[np.float64] = np.linalg.norm(left - right, axis=1)
        return length

    def _vectors(self, embeddings: Any, items: int) -> NDArray[np.float64]:
        vectors = np.asarray(embeddings, np.float64)
        if vectors.ndim != 2 or len(vectors) != items or not np.isfinite(vectors).all():
            raise RivalsError(f"embeddings must be finite, one row a label ({items}); not of shape {vectors.shape}")
        if self.metric == "euclidean":
            return vectors
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not length.all():
            raise RivalsError(f"embedding {int((length == 0).argmax())} (counted from 0) has length 0 and no cosine")
        return vectors / length

    def _limit(self, vectors: NDArray[np.float64], given: NDArray[Any]) -> float:
        if self.max_distance is None:
            return math.inf
        if self.max_distance != "median":
            return float(self.max_distance)
        generator = np.random.default_rng(self.seed)
        order = np.argsort(np.unique(given, return_inverse=True)[1], kind="stable")
        _, start, size = np.unique(given[order], return_index=True, return_counts=True)
        several = size > 1
        if not several.any():
            raise RivalsError("max_distance='median' needs a label with two items or more")
        start, size = start[several], size[several]
        chosen = generator.choice(len(size), _PAIRS, p=size / size.sum())
        first = generator.integers(0, size[chosen])
        second = (first + generator.integers(1, size[chosen])) % size[chosen]
        base = start[chosen]
        return float(np.median(self._distance(vectors[order[base + first]], vectors[order[base + second]])))
