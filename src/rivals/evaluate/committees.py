"""Committee scores: how good a shortlist of items is for several rankings of them, by multiwinner voting rules.

Rankings are given as positions[n, m]: where each of n rankings (rerankers, annotators, users) puts each of m items, 1 the
best. To choose a shortlist see `rivals.evaluate.shortlists`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError

Kind = Literal["borda", "sntv", "bloc", "chamberlin_courant", "coverage", "harmonic"]


class Rule(NamedTuple):
    """A committee score as satisfaction of a ranking with one item, and weights of its best, second best, ... item."""

    gain: Literal["borda", "approval"]
    weights: Literal["all", "best", "harmonic"]


RULES: dict[str, Rule] = {
    "borda": Rule("borda", "all"),
    "sntv": Rule("approval", "all"),
    "bloc": Rule("approval", "all"),
    "chamberlin_courant": Rule("borda", "best"),
    "coverage": Rule("approval", "best"),
    "harmonic": Rule("borda", "harmonic"),
}
"""Every committee score by name; sntv is approval of the first place alone."""


def positions_of(
    rankings: Sequence[Sequence[int]], *, items: int, missing: Literal["raise", "last"] = "raise"
) -> NDArray[np.int64]:
    """Return positions int64[n, m] of rankings given as item numbers, best first.

    Args:
        items: m. missing: "last" puts items that a ranking leaves out at position m, all of them (Borda 0).

    Raises:
        RivalsError: an item twice or out of range; a ranking that leaves items out, with missing="raise".

    >>> positions_of([[2, 0, 1]], items=3).tolist()
    [[2, 3, 1]]
    """
    if missing not in ("raise", "last"):
        raise RivalsError(f"missing is '{missing}'; it can be 'raise' or 'last'")
    positions = np.full((len(rankings), items), items, np.int64)
    for number, ranking in enumerate(rankings):
        listed = np.asarray(ranking, np.int64)
        if len(np.unique(listed)) < len(listed):
            raise RivalsError(f"ranking {number} names an item twice")
        if len(listed) and (listed.min() < 0 or listed.max() >= items):
            raise RivalsError(f"ranking {number} names item {listed.max()}, but there are {items}")
        if missing == "raise" and len(listed) < items:
            raise RivalsError(
                f"ranking {number} holds {len(listed)} of {items} items; missing='last' puts the rest last"
            )
        positions[number, listed] = np.arange(1, len(listed) + 1)
    return positions


def check_positions(positions: ArrayLike) -> NDArray[np.int64]:
    """Return positions as int64[n, m], or raise a RivalsError; items beyond a ranking's end may share position m.

    >>> check_positions([[1, 2]]).tolist()
    [[1, 2]]
    """
    found = np.asarray(positions)
    if found.ndim != 2 or found.shape[0] == 0 or found.shape[1] == 0 or found.dtype.kind not in "iu":
        raise RivalsError(
            f"positions must be whole numbers [rankings, items], not {found.dtype} of shape {found.shape}"
        )
    m = found.shape[1]
    if found.min() < 1 or found.max() > m:
        raise RivalsError(f"positions must lie in 1..{m}, the number of items; they span {found.min()}..{found.max()}")
    inner = np.sort(found, axis=1)
    twice = (inner[:, 1:] == inner[:, :-1]) & (inner[:, 1:] < m)
    if twice.any():
        raise RivalsError(f"ranking {int(twice.any(1).argmax())} gives one position to two items")
    return found.astype(np.int64)


def satisfaction(positions: ArrayLike, k: int, kind: Kind = "borda", *, q: int | None = None) -> NDArray[np.float64]:
    """Return how satisfied each ranking is with each item alone, [n, m]: m - position, or position <= q.

    q is k unless given; of sntv it is 1.

    Raises:
        RivalsError: unknown kind, q outside 1..m, positions as `check_positions`.

    >>> satisfaction([[1, 2, 3]], 2, "bloc").tolist()
    [[1.0, 1.0, 0.0]]
    """
    found = check_positions(positions)
    if kind not in RULES:
        raise RivalsError(f"no committee score is called '{kind}'; there are {', '.join(RULES)}")
    if RULES[kind].gain == "borda":
        return (found.shape[1] - found).astype(np.float64)
    reach = 1 if kind == "sntv" else k if q is None else q
    if not 1 <= reach <= found.shape[1]:
        raise RivalsError(f"q is {reach}; it must lie in 1..{found.shape[1]}, the number of items")
    return (found <= reach).astype(np.float64)


def rank_weights(k: int, kind: Kind = "borda", weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the weights of a ranking's best to worst chosen item, without trailing zeros; non-increasing, from 0.

    Raises:
        RivalsError: given weights that are not k non-increasing numbers of at least 0, the first above 0.

    >>> rank_weights(3, "harmonic").round(3).tolist(), rank_weights(3, "coverage").tolist()
    ([1.0, 0.5, 0.333], [1.0])
    """
    if weights is None:
        shape = RULES[kind].weights
        return np.ones(k) if shape == "all" else np.ones(1) if shape == "best" else 1 / np.arange(1, k + 1)
    found = np.asarray(weights, np.float64)
    if (
        found.shape != (k,)
        or not np.isfinite(found).all()
        or (np.diff(found) > 0).any()
        or found[-1] < 0
        or found[0] <= 0
    ):
        raise RivalsError(
            f"weights must be {k} non-increasing numbers of 0 or more, the first above 0; got {found.tolist()}"
        )
    return found[: int((found > 0).sum())]


def committee_score(
    positions: ArrayLike,
    subset: ArrayLike,
    kind: Kind = "borda",
    *,
    q: int | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """Return the score of a shortlist: sum over rankings of sum over l of weight_l x satisfaction with its l-th best item.

    borda: all items count, m - position. sntv: the first place alone. bloc: places up to q (k unless given).
    chamberlin_courant: the best item's m - position. coverage: 1 if any item is within q. harmonic: weights 1 / l. All
    are monotone and submodular in the subset, also with other non-increasing `weights` (ordered weighted averages).

    Source: the multiwinner score functions of Mehrotra and Vishnoi 2023 (arXiv 2306.09835); Elkind et al. 2017. Paper 67.

    Raises:
        RivalsError: an empty subset, an item twice or out of range; as `satisfaction` and `rank_weights`.

    >>> [committee_score([[1, 2, 3, 4]], [0, 2], kind) for kind in ("borda", "chamberlin_courant", "harmonic")]
    [4.0, 3.0, 3.5]
    """
    chosen = np.asarray(subset, np.int64)
    items = check_positions(positions).shape[1]
    if chosen.ndim != 1 or not len(chosen) or len(np.unique(chosen)) < len(chosen):
        raise RivalsError("the subset must be a list of at least one item, each once")
    if chosen.min() < 0 or chosen.max() >= items:
        raise RivalsError(f"the subset names item {chosen.max()}, but there are {items}")
    gains = satisfaction(positions, len(chosen), kind, q=q)[:, chosen]
    factors = rank_weights(len(chosen), kind, weights)
    return float((-np.sort(-gains, axis=1)[:, : len(factors)] @ factors).sum())


def single_scores(positions: ArrayLike, k: int, kind: Kind = "borda", *, q: int | None = None) -> NDArray[np.float64]:
    """Return every item's satisfaction summed over rankings, [m]: its score as a shortlist of one.

    Raises:
        RivalsError: as `satisfaction`.

    >>> single_scores([[1, 2, 3], [2, 1, 3]], 1).tolist()
    [3.0, 3.0, 0.0]
    """
    return satisfaction(positions, k, kind, q=q).sum(axis=0)
