"""Choosing k items from several rankings, with bounds on how many of each group: separable, greedy, or exact."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data.pipeline import check_aligned
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.evaluate.committees import Kind, check_positions, positions_of, rank_weights, satisfaction

Solver = Literal["auto", "separable", "greedy", "exact", "milp"]
_MOST = 200_000  # subsets that are enumerated


def proportional_bounds(groups: ArrayLike, k: int) -> dict[int, int]:
    """Return lower bounds floor(k |group| / m) for every group; warns where one is 0.

    >>> proportional_bounds([0, 0, 0, 1], 4)
    {0: 3, 1: 1}
    """
    labels, counts = np.unique(np.asarray(groups), return_counts=True)
    bounds = {int(label): int(k * count // counts.sum()) for label, count in zip(labels, counts, strict=True)}
    empty = [label for label, bound in bounds.items() if not bound]
    if empty:
        warnings.warn(f"the proportional bound of group {empty} is 0, so it is not protected", stacklevel=2)
    return bounds


def select_subset(
    positions: ArrayLike,
    k: int,
    kind: Kind = "borda",
    *,
    groups: ArrayLike | None = None,
    lower: Mapping[int, int] | None = None,
    upper: Mapping[int, int] | None = None,
    q: int | None = None,
    weights: ArrayLike | None = None,
    solver: Solver = "auto",
) -> NDArray[np.int64]:
    """Return k items with a high committee score and lower_g <= chosen of group g <= upper_g, in the order chosen.

    Rankings that under-rate a group are repaired by a bound; how many rankings that takes depends on the score: few for
    Borda, very many for sntv. Bounds help against bias between groups, not against noise inside one.

    Args:
        positions: int[n, m], see `positions_of`. kind, q, weights: see `committee_score`.
        groups: int[m], the group of each item. lower, upper: bounds by group; missing ones are 0 and k.
        solver: separable (borda, sntv, bloc): exact, the best of each group up to its lower bound, then the best left.
            greedy: the item with the largest gain that leaves the bounds within reach; at least half of the best, 1 - 1/e
            without bounds. exact: all subsets, up to 200,000. milp: exact, by a mixed-integer programme (HiGHS).
            auto: separable where it can be, else greedy. Equal gains: the lower item number.

    Source: Mehrotra and Vishnoi 2023 (arXiv 2306.09835). Paper 67.

    Raises:
        RivalsError: k outside 1..m, bounds that no subset meets, bounds without groups, separable for a score that is
            not, exact with too many subsets, milp without a solution; as `committee_score`.

    >>> select_subset([[1, 2, 3, 4]], 2, groups=[0, 0, 1, 1], lower={1: 1}).tolist()
    [0, 2]
    """
    places = check_positions(positions)
    items = places.shape[1]
    if isinstance(k, bool) or not 1 <= k <= items:
        raise RivalsError(f"k is {k}; it must lie in 1..{items}, the number of items")
    bounds = _bounds(groups, lower, upper, k, items)
    gains = satisfaction(places, k, kind, q=q)
    factors = rank_weights(k, kind, weights)
    separable = len(factors) == k and bool((factors == factors[0]).all())
    if solver == "auto":
        solver = "separable" if separable else "greedy"
    if solver == "separable":
        if not separable:
            raise RivalsError(f"'{kind}' is not a sum over items; use solver='greedy', 'exact' or 'milp'")
        return _separable(gains.sum(axis=0), k, bounds)
    if solver == "greedy":
        return _greedy(gains, factors, k, bounds)
    if solver == "exact":
        return _enumerate(gains, factors, k, bounds)
    if solver == "milp":
        return _programme(gains, factors, k, bounds)
    raise RivalsError(f"solver is '{solver}'; it can be 'auto', 'separable', 'greedy', 'exact' or 'milp'")


def shortlist_runs(
    runs: Mapping[str, Run],
    k: int,
    kind: Kind = "borda",
    *,
    groups: ArrayLike | None = None,
    lower: Mapping[int, int] | None = None,
    upper: Mapping[int, int] | None = None,
    q: int | None = None,
) -> Run:
    """Return one run of k documents a query, chosen from what several runs rank, with bounds on groups of documents.

    Each run is one ranking of the documents that any of them lists for the query; those it does not list stand last. A
    query with fewer than k documents gets all; bounds that its documents cannot meet are lowered to what they can, and
    a warning counts those queries. Scores are k, k - 1, ... in the order chosen.

    Args:
        runs: over the same queries and documents. groups: int[documents]. The others: as `select_subset`.

    Source: Mehrotra and Vishnoi 2023 (arXiv 2306.09835). Paper 67.

    Raises:
        RivalsError: no run; runs over other collections; as `select_subset`.

    >>> from rivals.data import Collection
    >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b", "c"])
    >>> one = Run.build(queries, documents, [0, 2], [0, 1], [2.0, 1.0])
    >>> two = Run.build(queries, documents, [0, 2], [1, 2], [2.0, 1.0])
    >>> found = shortlist_runs({"one": one, "two": two}, 2)
    >>> found.documents.ids[found.document].tolist()
    ['b', 'a']
    """
    if not runs:
        raise RivalsError("there is no run to choose from; give at least one, by name")
    systems = list(runs.values())
    queries, documents = check_aligned(systems)
    label = None if groups is None else np.asarray(groups)
    if label is not None and label.shape != (len(documents),):
        raise RivalsError(f"groups must be one label a document, [{len(documents)}], not {label.shape}")
    chosen: list[NDArray[np.int64]] = []
    lowered = 0
    for query in range(len(queries)):
        ranked = [run.document[run.offsets[query] : run.offsets[query + 1]] for run in systems]
        pool = np.unique(np.concatenate(ranked))
        size = min(k, len(pool))
        if not size:
            chosen.append(pool)
            continue
        own = None if label is None else label[pool]
        met, short = _reachable(own, lower, upper, size)
        lowered += short
        positions = positions_of([np.searchsorted(pool, r).tolist() for r in ranked], items=len(pool), missing="last")
        reach = min(size if q is None else q, len(pool))
        found = select_subset(positions, size, kind, groups=own, lower=met, upper=None if short else upper, q=reach)
        chosen.append(pool[found])
    if lowered:
        warnings.warn(
            f"{lowered} of {len(queries)} queries have too few documents of a group; bounds lowered", stacklevel=2
        )
    offsets = lists.offsets_from_lengths([len(found) for found in chosen])
    document = np.concatenate([*chosen, np.zeros(0, np.int64)]).astype(np.int64)
    score = k - lists.positions(offsets).astype(np.float32)
    return Run.build(queries, documents, offsets, document, score, scorer=f"shortlist by {kind}")


def _reachable(
    groups: NDArray[np.int64] | None, lower: Mapping[int, int] | None, upper: Mapping[int, int] | None, k: int
) -> tuple[dict[int, int] | None, bool]:
    """Return lower bounds that a query's documents can meet, and whether bounds had to give way."""
    if groups is None or (not lower and not upper):
        return None if lower is None else dict(lower), False
    counts = {int(label): int((groups == label).sum()) for label in np.unique(groups)}
    wanted = dict(lower or {})
    met = {label: min(bound, counts.get(label, 0)) for label, bound in wanted.items() if label in counts}
    while sum(met.values()) > k:
        met[max(met, key=lambda label: met[label])] -= 1
    room = sum(min(count, (upper or {}).get(label, k)) for label, count in counts.items())
    missed = any(bound > met.get(label, 0) for label, bound in wanted.items())
    return met, missed or room < k


def _bounds(
    groups: ArrayLike | None, lower: Mapping[int, int] | None, upper: Mapping[int, int] | None, k: int, items: int
) -> _Bounds:
    """Return the group of every item as 0, 1, ..., and the bounds of the groups; raises if no subset meets them."""
    if groups is None:
        if lower or upper:
            raise RivalsError("there are bounds but no groups; give the group of every item")
        return _Bounds(np.zeros(items, np.int64), np.zeros(1, np.int64), np.full(1, k, np.int64))
    given = np.asarray(groups)
    if given.shape != (items,):
        raise RivalsError(f"groups must be one label an item, [{items}], not {given.shape}")
    labels, group, counts = np.unique(given, return_inverse=True, return_counts=True)
    low, high = np.zeros(len(labels), np.int64), np.minimum(counts, k).astype(np.int64)
    names = labels.tolist()
    for name, bounds, out in (("lower", lower, low), ("upper", upper, high)):
        for label, bound in (bounds or {}).items():
            if label not in names:
                if name == "lower" and bound > 0:
                    raise RivalsError(f"the lower bound of group {label} is {bound}, but no item is in it")
                continue
            place = names.index(label)
            if bound < 0 or (name == "lower" and bound > counts[place]):
                raise RivalsError(f"the {name} bound of group {label} is {bound}; it has {counts[place]} items")
            out[place] = min(bound, high[place]) if name == "upper" else bound
    if (low > high).any() or low.sum() > k or high.sum() < k:
        raise RivalsError(
            f"no {k} items meet the bounds: lower ones sum to {low.sum()}, upper ones leave room for {high.sum()}"
        )
    return _Bounds(group.astype(np.int64), low, high)


class _Bounds(NamedTuple):
    """The group of every item, int64[m], and how many of each group, int64[G], must and may be chosen."""

    group: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    def allowed(self, count: NDArray[np.int64], left: int) -> NDArray[np.bool_]:
        """Return which items may be added to `count` of each group with `left` places open, so that all bounds can be met."""
        unmet = np.maximum(self.low - count, 0)
        return ((count < self.high) & ((unmet > 0) | (unmet.sum() < left)))[self.group]


def _separable(scores: NDArray[np.float64], k: int, bounds: _Bounds) -> NDArray[np.int64]:
    order = np.argsort(-scores, kind="stable")
    chosen: list[int] = []
    count = np.zeros(len(bounds.low), np.int64)
    for item in order.tolist():
        if len(chosen) < k and bounds.allowed(count, k - len(chosen))[item]:
            chosen.append(item)
            count[bounds.group[item]] += 1
    return np.array(chosen, np.int64)


def _greedy(
    gains: NDArray[np.float64],
    factors: NDArray[np.float64],
    k: int,
    bounds: _Bounds,
) -> NDArray[np.int64]:
    """Add the item with the largest gain, k times; the state is each ranking's best chosen satisfactions, sorted."""
    rankings, items = gains.shape
    held = np.zeros((rankings, 0))
    chosen: list[int] = []
    count, free = np.zeros(len(bounds.low), np.int64), np.ones(items, bool)
    for step in range(k):
        width = held.shape[1]
        place = (held[:, :, None] >= gains[:, None, :]).sum(axis=1)  # how many chosen ones stand before the item
        stay, moved = held * factors[:width], held * np.append(factors[1:], 0.0)[:width]
        before = np.concatenate([np.zeros((rankings, 1)), np.cumsum(stay, axis=1)], axis=1)
        after = np.concatenate([np.cumsum(moved[:, ::-1], axis=1)[:, ::-1], np.zeros((rankings, 1))], axis=1)
        new = np.append(factors, 0.0)[np.minimum(place, len(factors))] * gains
        total = np.take_along_axis(before + after, place, axis=1) + new
        gain = np.where(free & bounds.allowed(count, k - step), total.sum(axis=0), -np.inf)
        item = int(np.flatnonzero(gain >= gain.max() - 1e-9 * max(1.0, abs(gain.max())))[0])
        chosen.append(item)
        free[item] = False
        count[bounds.group[item]] += 1
        held = -np.sort(-np.concatenate([held, gains[:, [item]]], axis=1), axis=1)[:, : len(factors)]
    return np.array(chosen, np.int64)


def _enumerate(
    gains: NDArray[np.float64],
    factors: NDArray[np.float64],
    k: int,
    bounds: _Bounds,
) -> NDArray[np.int64]:
    items = gains.shape[1]
    if math.comb(items, k) > _MOST:
        raise RivalsError(f"{math.comb(items, k):,} subsets are too many to try; use solver='milp' or 'greedy'")
    subsets = np.array(list(itertools.combinations(range(items), k)), np.int64)
    counts = np.stack([(bounds.group[subsets] == g).sum(axis=1) for g in range(len(bounds.low))], axis=1)
    subsets = subsets[((counts >= bounds.low) & (counts <= bounds.high)).all(axis=1)]
    scores = np.zeros(len(subsets))
    for ranking in gains:
        scores += -np.sort(-ranking[subsets], axis=1)[:, : len(factors)] @ factors
    best: NDArray[np.int64] = subsets[int(np.flatnonzero(scores >= scores.max() - 1e-9)[0])]
    return best


def _programme(
    gains: NDArray[np.float64],
    factors: NDArray[np.float64],
    k: int,
    bounds: _Bounds,
) -> NDArray[np.int64]:
    """Solve: x chooses items, z[v, l, i] says that item i is ranking v's l-th best; z is whole wherever x is."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array, eye_array, hstack, kron

    (n, m), levels = gains.shape, len(factors)
    cost = np.concatenate([np.zeros(m), -(gains[:, None, :] * factors[None, :, None]).ravel()])
    one_item = kron(eye_array(n * levels), np.ones((1, m)))  # every level of a ranking holds one item at most
    one_level = kron(eye_array(n), kron(np.ones((1, levels)), eye_array(m)))  # an item stands on one level, if chosen
    links = hstack([-kron(np.ones((n, 1)), eye_array(m)), one_level])
    member = coo_array((np.ones(m), (bounds.group, np.arange(m))), shape=(len(bounds.low), m))
    constraints = [
        LinearConstraint(hstack([coo_array((n * levels, m)), one_item]).tocsr(), -np.inf, 1),
        LinearConstraint(links.tocsr(), -np.inf, 0),
        LinearConstraint(
            hstack([member, coo_array((len(bounds.low), n * levels * m))]).tocsr(), bounds.low, bounds.high
        ),
        LinearConstraint(np.concatenate([np.ones(m), np.zeros(n * levels * m)])[None], k, k),
    ]
    whole = np.concatenate([np.ones(m), np.zeros(n * levels * m)])
    found = milp(cost, integrality=whole, bounds=Bounds(0, 1), constraints=constraints)
    if found.x is None:
        raise RivalsError(f"the programme was not solved: {found.message}; use solver='greedy'")
    return np.flatnonzero(found.x[:m] > 0.5)
