"""Fork and merge: averaging the weights of branches trained on other mixtures of tasks, as validation says (ForkMerge)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype

State = Mapping[str, Tensor]

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The shares that ForkMerge tries."""


class Merged(NamedTuple):
    """Merged weights: `state`, the coefficient of every branch, the `score` of the merge, how often it was evaluated."""

    state: dict[str, Tensor]
    coefficients: tuple[float, ...]
    score: float
    evaluations: int


def branch_weights(targets: Sequence[str], auxiliaries: Sequence[str], top_k: int) -> dict[str, float]:
    """Return the sampling probabilities of the tasks in the branch that uses the `top_k` best auxiliaries.

    Every target weighs 1 / targets, every auxiliary used 1 / top_k, the others 0; divided by the sum, so the
    auxiliaries together weigh as much as the targets together. top_k = 0 is the branch of the targets alone, which a
    fork always has.

    Args:
        targets: names. auxiliaries: names, best first (say, by the target score after training on each with the
            targets for an epoch). top_k: 0 to the number of auxiliaries.

    Source: Jiang et al. (2023), ForkMerge, and its code. Paper 58.

    Raises RivalsError: no target, a name twice, top_k out of range.

    >>> branch_weights(["target"], ["a", "b"], 1)
    {'target': 0.5, 'a': 0.5, 'b': 0.0}
    """
    if not targets:
        raise RivalsError("a branch needs one target or more")
    names = [*targets, *auxiliaries]
    if len(set(names)) < len(names):
        raise RivalsError(f"tasks must have different names; got {names}")
    if not 0 <= top_k <= len(auxiliaries):
        raise RivalsError(f"top_k must lie in 0..{len(auxiliaries)}, the number of auxiliaries; got {top_k}")
    raw = [1 / len(targets)] * len(targets) + [1 / max(top_k, 1)] * top_k + [0.0] * (len(auxiliaries) - top_k)
    total = math.fsum(raw)
    return {name: weight / total for name, weight in zip(names, raw, strict=True)}


def weighted_average(
    states: Sequence[State], weights: Sequence[float], *, exclude: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the weighted average of state dicts, tensor by tensor; weights are divided by their sum.

    Running statistics are averaged as everything else. What is not floating-point (counters) comes from the state of
    the largest weight. Computed in float32 at least, returned in the first state's dtypes.

    Args:
        states: of one structure, trained from one start: the average of far-apart runs is worth nothing. weights: 0 or
            more, one a state. exclude: tensors whose name holds one of these come from the first state.

    Source: Jiang et al. (2023), ForkMerge, `sum_all_weights`. Paper 58. There counters are averaged into fractions.

    Raises RivalsError: no state, names or shapes that differ, weights that are negative, not finite, all 0 or not one
    a state.

    >>> weighted_average([{"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}], [3.0, 1.0])
    {'w': tensor([1.])}
    """
    _check_states(states)
    shares = [float(weight) for weight in weights]
    if len(shares) != len(states) or not all(math.isfinite(share) and share >= 0 for share in shares):
        raise RivalsError(f"weights must be {len(states)} numbers of 0 or more, one a state; got {list(weights)!r}")
    total = math.fsum(shares)
    if not total > 0:
        raise RivalsError("the weights are all 0; one state at least must count")
    largest = states[shares.index(max(shares))]
    average: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if any(part in name for part in exclude):
            average[name] = first.clone()
        elif not (first.is_floating_point() or first.is_complex()):
            average[name] = largest[name].clone()
        else:
            dtype = compute_dtype(first) if first.is_floating_point() else first.dtype
            mean = torch.zeros_like(first, dtype=dtype)
            for state, share in zip(states, shares, strict=True):
                if share:  # what does not count may hold anything
                    mean += share / total * state[name].to(mean)
            average[name] = mean.to(first.dtype)
    return average


def greedy_merge(
    states: Sequence[State],
    scores: Sequence[float],
    evaluate: Callable[[dict[str, Tensor]], float],
    *,
    alphas: Sequence[float] = ALPHAS,
    exclude: Sequence[str] = (),
) -> Merged:
    """Merge branches by a greedy search over their coefficients: the best has 1, the others join as far as they help.

    Branches come best first. With coefficients c_1 .. c_i fixed, the next one tries a * mean(c_1 .. c_i) for every a
    and keeps the one whose merge scores strictly above all merges so far, or else 0. So the result is never below the
    best branch alone. At most 1 + (branches - 1) * len(alphas) evaluations, against len(alphas) ** (branches - 1) for
    `grid_merge`.

    Args:
        states: of the branches. scores: validation scores of the branches, higher is better; ties keep their order.
        evaluate: merged weights -> validation score, higher is better. The data it uses are fitted to: report on
            others. alphas: shares in [0, 1]; 0 is always tried. exclude: see `weighted_average`.

    Returns:
        `Merged`, its coefficients in the order of the states.

    Source: Jiang et al. (2023), ForkMerge, algorithm 1 and its code. Paper 58. The code starts from a score of 0 and
    does not try 0 unless listed; here the search starts from the best branch's own score, so scores may be negative.

    Raises RivalsError: as `weighted_average`; scores that are not one a state, an alpha outside [0, 1], a score that is
    NaN.

    >>> states = [{"w": torch.tensor(0.0)}, {"w": torch.tensor(10.0)}]
    >>> merged = greedy_merge(states, [-16.0, -36.0], lambda state: -float((state["w"] - 4) ** 2))
    >>> merged.coefficients, merged.state["w"].item()
    ((1.0, 0.6), 3.75)
    """
    order = _best_first(states, scores, alphas)
    coefficients = [0.0] * len(states)
    coefficients[order[0]] = 1.0
    best, evaluations = _scored(evaluate, weighted_average(states, coefficients, exclude=exclude)), 1
    for fixed, branch in enumerate(order[1:], start=1):
        bound = math.fsum(coefficients) / fixed
        chosen = 0.0
        for alpha in alphas:
            if alpha == 0:
                continue
            coefficients[branch] = alpha * bound
            score = _scored(evaluate, weighted_average(states, coefficients, exclude=exclude))
            evaluations += 1
            if score > best:
                best, chosen = score, coefficients[branch]
        coefficients[branch] = chosen
    return Merged(weighted_average(states, coefficients, exclude=exclude), tuple(coefficients), best, evaluations)


def grid_merge(
    states: Sequence[State],
    scores: Sequence[float],
    evaluate: Callable[[dict[str, Tensor]], float],
    *,
    alphas: Sequence[float] = ALPHAS,
    exclude: Sequence[str] = (),
) -> Merged:
    """Merge branches by trying every combination of coefficients: 1 for the best branch, an alpha for each other.

    Args: as in `greedy_merge`. Of equal scores the first found stays; all 0 comes first.

    Source: Jiang et al. (2023), ForkMerge, the search that the greedy one replaces. Paper 58.

    Raises RivalsError: as `greedy_merge`.

    >>> states = [{"w": torch.tensor(0.0)}, {"w": torch.tensor(10.0)}]
    >>> grid_merge(states, [-16.0, -36.0], lambda state: -float((state["w"] - 4) ** 2)).evaluations
    6
    """
    order = _best_first(states, scores, alphas)
    shares = [0.0, *(alpha for alpha in dict.fromkeys(alphas) if alpha != 0)]
    best, chosen, evaluations = -math.inf, [0.0] * len(states), 0
    for combination in itertools.product(shares, repeat=len(states) - 1):
        coefficients = [0.0] * len(states)
        for branch, share in zip(order, (1.0, *combination), strict=True):
            coefficients[branch] = share
        score = _scored(evaluate, weighted_average(states, coefficients, exclude=exclude))
        evaluations += 1
        if score > best or evaluations == 1:
            best, chosen = score, coefficients
    return Merged(weighted_average(states, chosen, exclude=exclude), tuple(chosen), best, evaluations)


def _best_first(states: Sequence[State], scores: Sequence[float], alphas: Sequence[float]) -> list[int]:
    _check_states(states)
    if len(scores) != len(states) or any(math.isnan(score) for score in scores):
        raise RivalsError(f"scores must be {len(states)} numbers, one a state; got {list(scores)!r}")
    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise RivalsError(f"alphas must lie in 0..1; got {list(alphas)!r}")
    return sorted(range(len(states)), key=lambda branch: -scores[branch])


def _scored(evaluate: Callable[[dict[str, Tensor]], float], state: dict[str, Tensor]) -> float:
    score = float(evaluate(state))
    if math.isnan(score):
        raise RivalsError("the validation score of a merge is NaN; check what evaluate returns")
    return score


def _check_states(states: Sequence[State]) -> None:
    if not states:
        raise RivalsError("there is no state to merge")
    for state in states[1:]:
        if state.keys() != states[0].keys():
            names = sorted(state.keys() ^ states[0].keys())
            raise RivalsError(f"every state must name the same tensors; {names} are not in all")
        for name, tensor in state.items():
            if tensor.shape != states[0][name].shape:
                shapes = f"{tuple(tensor.shape)} and {tuple(states[0][name].shape)}"
                raise RivalsError(f"{name!r} must have one shape in every state; got {shapes}")
