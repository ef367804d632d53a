"""Queries of many conditions: does the document that meets them all still win, and do scores fall as conditions break?

`condition_items` makes such a set from any documents, `condition_report` runs a scorer over it. The measures need scores
alone: of a document and its edited rival for queries of 1 to K conditions (`pair_win_rate`), or of a chain of documents
with 0, 1, 2, ... conditions broken (`chain_monotonicity`, `order_flip_rate`). Comparisons are strict: a tie is a loss.
Numpy or torch; results are numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rivals.diagnose.condition_sets import ConditionItem
from rivals.errors import RivalsError
from rivals.measures import kendall_tau
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.progress import progress

Floats = NDArray[np.float64]
Score = Callable[[list[str], list[str]], Any]
"""Scores pairs of texts: `score(queries, documents)` gives one number for every pair."""

_TIE = 1e-9


class WinRate(NamedTuple):
    """One value a number of conditions, [K]."""

    win_rate: Floats
    gap: Floats

    @property
    def drop(self) -> float:
        """How much lower the last win rate is than the first; negative where it falls."""
        return float(self.win_rate[-1] - self.win_rate[0])

    @property
    def slope(self) -> float:
        """The least-squares slope of the win rate on the number of conditions, 0 for one column."""
        if len(self.win_rate) < 2:
            return 0.0
        return float(np.polyfit(np.arange(len(self.win_rate)), self.win_rate, 1)[0])


class Monotonicity(NamedTuple):
    """How well scores follow a chain: the share of items right at each step, in the whole chain, and mean tau-b."""

    step_win_rate: Floats
    chain_rate: float
    kendall: float


def pair_win_rate(positive: ArrayLike, negative: ArrayLike, *, ties: Literal["loss", "half"] = "loss") -> WinRate:
    """Win rate and mean gap of a document over its rival, for queries of 1 to K conditions.

    win_rate_k = share of items with s(q_k, positive) > s(q_k, rival_k); gap_k = mean of the difference.

    Shapes: positive[N, K], negative[N, K] -> two [K]. Random scores win half of the time.

    Source: Lu et al. 2025, MultiConIR, complexity robustness. Paper 82.

    Raises:
        RivalsError: shapes differ or are not [N, K] with N, K at least 1; NaN; unknown ties.

    >>> pair_win_rate([[1.], [2.]], [[0.], [2.]], ties="half")
    WinRate(win_rate=array([0.75]), gap=array([0.5]))
    """
    if ties not in ("loss", "half"):
        raise RivalsError(f"ties is '{ties}'; it can be 'loss' or 'half'")
    good, bad = _table(positive, "positive", 1), _table(negative, "negative", 1)
    if good.shape != bad.shape:
        raise RivalsError(f"positive has shape {good.shape} and negative {bad.shape}; they must be equal")
    wins = (good > bad) + (0.5 * (good == bad) if ties == "half" else 0.0)
    return WinRate(wins.mean(0), (good - bad).mean(0))


def chain_monotonicity(scores: ArrayLike) -> Monotonicity:
    """How often scores fall along a chain of documents, each with one condition more broken than the one before.

    step_j = share of items with s(c_j) > s(c_{j+1}); chain = share with all steps right; kendall = mean tau-b of the
    scores with the order of the chain.

    Shapes: scores[N, M] of the M documents in the true order -> [M - 1] and two numbers.

    Source: Lu et al. 2025, MultiConIR, relevance monotonicity; chain rate and tau are ours. Paper 82.

    Raises:
        RivalsError: not [N, M] with N at least 1 and M at least 2; NaN.

    >>> chain_monotonicity([[3., 2., 1.], [3., 1., 2.]]).step_win_rate.tolist()
    [1.0, 0.5]
    """
    chain = _table(scores, "scores", 2)
    falls = chain[:, :-1] > chain[:, 1:]
    order = np.broadcast_to(-np.arange(chain.shape[1], dtype=np.float64), chain.shape)
    return Monotonicity(falls.mean(0), float(falls.all(1).mean()), float(kendall_tau(chain, order).mean()))


def order_flip_rate(scores_a: ArrayLike, scores_b: ArrayLike) -> float:
    """Share of the steps of a chain that two wordings of the query compare differently; 0 is invariant.

    flip rate = number of (item, step) where [a_j > a_{j+1}] differs from [b_j > b_{j+1}] / (N (M - 1)).

    Shapes: scores_a[N, M], scores_b[N, M] -> number. Two independent random orders flip half of the steps.

    Source: Lu et al. 2025, MultiConIR, format invariance. Paper 82.

    Raises:
        RivalsError: shapes differ or are not [N, M] with N at least 1 and M at least 2; NaN.

    >>> order_flip_rate([[3., 2., 1.]], [[3., 2., 4.]])
    0.5
    """
    first, second = _table(scores_a, "scores_a", 2), _table(scores_b, "scores_b", 2)
    if first.shape != second.shape:
        raise RivalsError(f"scores_a has shape {first.shape} and scores_b {second.shape}; they must be equal")
    falls = [table[:, :-1] > table[:, 1:] for table in (first, second)]
    return float((falls[0] != falls[1]).mean())


@dataclass(frozen=True)
class ConditionReport:
    """What `condition_report` returns.

    `win_rate` and `gap` by number of conditions; `drop` is the last win rate less the first, an interval over items;
    `steps` the share of items whose score falls at each step of the chain; `chain_rate` and `kendall` of whole chains;
    `flip_rate` between listed and running queries; `ties` the share of comparisons within 1e-9, as after truncation.
    """

    items: int
    win_rate: tuple[float, ...]
    gap: tuple[float, ...]
    drop: Interval
    slope: float
    steps: tuple[float, ...]
    chain_rate: float
    kendall: float
    flip_rate: float
    ties: float

    def __str__(self) -> str:
        wins = ", ".join(f"{rate:.3f}" for rate in self.win_rate)
        steps = ", ".join(f"{rate:.3f}" for rate in self.steps)
        return (
            f"{self.items} items; wins with 1 to {len(self.win_rate)} conditions: {wins}; from first to last {self.drop}\n"
            f"scores fall at each broken condition: {steps}; whole chains {self.chain_rate:.3f}, tau {self.kendall:.3f}\n"
            f"comparisons that another form of the query flips: {self.flip_rate:.3f}; ties: {self.ties:.3f}"
        )


def condition_report(
    items: Sequence[ConditionItem],
    score: Score,
    *,
    batch_size: int = 256,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> ConditionReport:
    """Run any scorer over items of many conditions: win rates, monotonicity of chains, invariance to the query's form.

    Source: Lu et al. 2025, MultiConIR, tasks 1 to 3. Paper 82.

    Raises:
        RivalsError: no item, items of different numbers of conditions, as many scores as pairs not given, NaN.

    >>> item = ConditionItem("a", ("x.",), ("1. x.",), ("x.",), ("x.", "y."), (0,), ("y.",), (0,))
    >>> condition_report([item], lambda q, d: [float(a[-2] == b[0]) for a, b in zip(q, d)]).win_rate
    (1.0,)
    """
    if not len(items):
        raise RivalsError("items holds no item")
    size = len(items[0].queries)
    if any(len(item.queries) != size or len(item.chain) != size + 1 for item in items):
        raise RivalsError("items have different numbers of conditions; make them with one call of condition_items")
    pairs = [
        pair
        for item in items
        for pair in (
            *((query, item.chain[0]) for query in item.queries),
            *zip(item.queries, item.rivals, strict=True),
            *((item.queries[-1], document) for document in item.chain),
            *((item.running[-1], document) for document in item.chain),
        )
    ]
    scores = score_pairs(score, pairs, batch_size).reshape(len(items), -1)
    positive, negative, listed, running = np.split(scores, [size, 2 * size, 3 * size + 1], axis=1)
    wins, chain = pair_win_rate(positive, negative), chain_monotonicity(listed)
    change = (positive[:, -1] > negative[:, -1]).astype(np.float64) - (positive[:, 0] > negative[:, 0])
    drop = bootstrap_interval(change, level=level, resamples=resamples, seed=seed)
    tied = np.abs(np.concatenate([positive - negative, np.diff(listed, axis=1)], axis=1)) < _TIE
    return ConditionReport(
        len(items),
        tuple(wins.win_rate.tolist()),
        tuple(wins.gap.tolist()),
        Interval(*map(float, drop)),
        wins.slope,
        tuple(chain.step_win_rate.tolist()),
        chain.chain_rate,
        chain.kendall,
        order_flip_rate(listed, running),
        float(tied.mean()),
    )


def score_pairs(score: Score, pairs: Sequence[tuple[str, str]], batch_size: int) -> Floats:
    """Return a scorer's numbers of pairs (query, document), batch by batch, checked: one finite or infinite number each."""
    if batch_size < 1:
        raise RivalsError(f"batch_size is {batch_size}; it must be at least 1")
    found = np.empty(len(pairs))
    with progress("Scoring pairs", len(pairs)) as advance:
        for start in range(0, len(pairs), batch_size):
            queries, documents = map(list, zip(*pairs[start : start + batch_size], strict=True))
            values = score(queries, documents)
            values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
            if values.shape != (len(queries),):
                raise RivalsError(
                    f"score returned shape {values.shape} for {len(queries)} pairs; it must be one a pair"
                )
            found[start : start + len(queries)] = values
            advance(len(queries))
    return found


def _table(values: Any, name: str, columns: int) -> Floats:
    table = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if table.ndim != 2 or len(table) < 1 or table.shape[1] < columns:
        raise RivalsError(f"{name} has shape {table.shape}; it must be [items, documents], at least {columns} a row")
    if np.isnan(table).any():
        raise RivalsError(f"{name} holds NaN")
    return table
