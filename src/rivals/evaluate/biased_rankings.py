"""Rankings biased against a group, and a curve that tells what bounds on a shortlist regain, by committee score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.evaluate.committees import Kind, check_positions, committee_score, single_scores
from rivals.evaluate.shortlists import select_subset

_TRUTH = 2000  # unbiased rankings that stand for the truth


def bias_rankings(
    utilities: ArrayLike,
    disadvantaged: ArrayLike,
    *,
    beta: float = 1.0,
    model: Literal["utility", "swap"] = "utility",
    generator: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Return positions[n, m] of rankings by utilities[n, m] that under-rate a group.

    utility: a disadvantaged item's utility counts beta times, beta in (0, 1]. swap: in one pass from the top, each
    neighbouring pair of a disadvantaged item above another changes places with probability 1 - beta. beta = 1: no bias.

    Source: Kleinberg and Raghavan 2018 (utility); a simple swap model; which of them is the general one of Mehrotra and
    Vishnoi 2023 we do not know. Paper 67.

    Raises:
        RivalsError: beta outside (0, 1], shapes that do not fit, utilities below 0 or not finite, unknown model, swap
            without a generator.

    >>> bias_rankings([[0.9, 0.8]], [True, False], beta=0.5).tolist()
    [[2, 1]]
    """
    values, group = np.asarray(utilities, np.float64), np.asarray(disadvantaged, bool)
    if values.ndim != 2 or group.shape != values.shape[1:] or not np.isfinite(values).all():
        raise RivalsError(f"utilities must be finite [rankings, items] and the group [items]; got {values.shape}")
    if not 0 < beta <= 1:
        raise RivalsError(f"beta is {beta}; it must be above 0 and at most 1, which is no bias")
    if model == "utility":
        # A utility below 0, which noise can give, must not gain by being shrunk.
        biased = np.where(group & (values > 0), beta * values, np.where(group, values / beta, values))
        return _places(np.argsort(-biased, axis=1, kind="stable"))
    if model != "swap":
        raise RivalsError(f"model is '{model}'; it can be 'utility' or 'swap'")
    if generator is None:
        raise RivalsError("the swap model draws; give it a generator")
    order = np.argsort(-values, axis=1, kind="stable")
    for place in range(values.shape[1] - 1):
        upper, lower = order[:, place].copy(), order[:, place + 1].copy()
        swap = group[upper] & ~group[lower] & (generator.random(len(order)) < 1 - beta)
        order[:, place], order[:, place + 1] = np.where(swap, lower, upper), np.where(swap, upper, lower)
    return _places(order)


def _places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    positions = np.empty_like(order)
    np.put_along_axis(positions, order, np.arange(1, order.shape[1] + 1)[None].repeat(len(order), axis=0), axis=1)
    return positions


class Smoothness(NamedTuple):
    """How surely a better item of the same group has the higher score: `agreement` of pairs (ties half), and the mean
    difference of their scores over the largest score, `gap`."""

    agreement: float
    gap: float


def score_smoothness(
    positions: ArrayLike, latent: ArrayLike, groups: ArrayLike, k: int, kind: Kind = "borda", *, q: int | None = None
) -> Smoothness:
    """Return how smooth a committee score is on rankings of items whose true utility, latent[m], is known.

    A smooth score (Borda: agreement near 1) needs few rankings until bounds repair a bias; one where most pairs tie at
    0 (sntv) needs very many. Pairs are of the same group with different latent utilities.

    Source: the direction of the theorems of Mehrotra and Vishnoi 2023; the two statistics are ours. Paper 67.

    Raises:
        RivalsError: latent or groups of another length; no such pair; as `single_scores`.

    >>> score_smoothness([[1, 2, 3]], [3.0, 2.0, 1.0], [0, 0, 0], 1, "sntv").agreement
    0.8333333333333334
    """
    true, group = np.asarray(latent, np.float64), np.asarray(groups)
    items = check_positions(positions).shape[1]
    if true.shape != (items,) or group.shape != (items,):
        raise RivalsError(f"latent and groups must be one value an item, [{items}]")
    scores = single_scores(positions, k, kind, q=q)
    pair = (group[:, None] == group[None]) & (true[:, None] > true[None])
    if not pair.any():
        raise RivalsError("no two items of one group differ in latent utility; nothing can be compared")
    difference = (scores[:, None] - scores[None])[pair]
    agreement = ((difference > 0) + 0.5 * (difference == 0)).mean()
    return Smoothness(float(agreement), float(difference.mean() / max(scores.max(), 1e-12)))


class Recovery(NamedTuple):
    """A row of `constraint_benefit_curve`: what the shortlist from `rankings` biased rankings is worth to unbiased ones,
    as a share of the best, `free` and `bounded`; means over repeats with their standard deviations."""

    kind: str
    rankings: int
    free: float
    bounded: float
    free_deviation: float
    bounded_deviation: float


def constraint_benefit_curve(
    latent: ArrayLike,
    disadvantaged: ArrayLike,
    *,
    k: int,
    kinds: Sequence[Kind] = ("sntv", "bloc", "borda", "chamberlin_courant"),
    rankings: Sequence[int] = (3, 10, 30, 100),
    lower: int | None = None,
    beta: float = 0.6,
    model: Literal["utility", "swap"] = "utility",
    noise: float = 0.2,
    repeats: int = 30,
    seed: int = 0,
) -> list[Recovery]:
    """Return what bounds on the shortlist regain, by committee score and number of biased rankings: which score to use.

    A ranking sorts latent[m] plus normal noise, unbiased; the biased ones count a disadvantaged item's utility less.
    The truth is 2,000 unbiased rankings; recovery = score of the shortlist on them / score of the best shortlist.

    Args:
        lower: at least so many of the disadvantaged and of the others; None takes the smaller share of proportional ones.

    Source: Mehrotra and Vishnoi 2023 (arXiv 2306.09835). Paper 67.

    Raises:
        RivalsError: repeats below 1; as `bias_rankings` and `select_subset`.

    >>> rows = constraint_benefit_curve(np.linspace(1, 0, 8), np.arange(8) % 2 == 1, k=4, kinds=["borda"], rankings=[30], repeats=2)
    >>> rows[0].bounded > rows[0].free
    True
    """
    true, group = np.asarray(latent, np.float64), np.asarray(disadvantaged, bool)
    if repeats < 1 or true.ndim != 1:
        raise RivalsError(
            f"repeats is {repeats} and latent of shape {true.shape}; give at least 1, and one value an item"
        )
    if lower is None:
        lower = int(k * min(group.sum(), (~group).sum()) // len(group))
    bounds = {0: lower, 1: lower}
    generator = np.random.default_rng([seed, 67])
    truth = bias_rankings(true + noise * generator.standard_normal((_TRUTH, len(true))), group)
    best = {kind: committee_score(truth, select_subset(truth, k, kind), kind) for kind in kinds}
    found = []
    for count in rankings:
        values: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            seen = true + noise * generator.standard_normal((count, len(true)))
            biased = bias_rankings(seen, group, beta=beta, model=model, generator=generator)
            for kind in kinds:
                free = select_subset(biased, k, kind)
                bounded = select_subset(biased, k, kind, groups=group.astype(int), lower=bounds)
                values[kind].append(
                    (
                        committee_score(truth, free, kind) / best[kind],
                        committee_score(truth, bounded, kind) / best[kind],
                    )
                )
        for name, pairs in values.items():
            mean, spread = np.mean(pairs, axis=0), np.std(pairs, axis=0)
            found.append(Recovery(name, count, *map(float, mean), *map(float, spread)))
    return found
