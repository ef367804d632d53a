"""Forking and merging (paper 58)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.training.branch_merging import branch_weights, greedy_merge, grid_merge, weighted_average


def states(*points: list[float]) -> list[dict[str, Tensor]]:
    return [{"w": torch.tensor(point, dtype=torch.float64)} for point in points]


def nearness(target: list[float]):
    wanted = torch.tensor(target, dtype=torch.float64)
    return lambda state: -float((state["w"] - wanted).square().sum())


def test_average() -> None:
    """Check 1."""
    pair = states([1.0, 2.0], [3.0, 6.0])
    assert weighted_average(pair, [1, 0])["w"].tolist() == [1, 2]
    assert weighted_average(pair, [2, 2])["w"].tolist() == [2, 4]
    assert weighted_average(pair, [0.3, 0.7])["w"].tolist() == pytest.approx(
        weighted_average(pair, [3, 7])["w"].tolist()
    )
    pair[1]["w"][0] = math.nan
    assert weighted_average(pair, [1, 0])["w"].tolist() == [1, 2]


def test_average_of_a_module_with_counters() -> None:
    models = [torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).half() for _ in range(2)]
    first, second = (model.state_dict() for model in models)
    second["1.num_batches_tracked"] = torch.tensor(7)
    mean = weighted_average([first, second], [0.25, 0.75], exclude=["1.bias"])
    assert mean["1.num_batches_tracked"].item() == 7
    assert mean["0.weight"].dtype == torch.float16
    wanted = (0.25 * first["0.weight"].float() + 0.75 * second["0.weight"].float()).half()
    assert torch.equal(mean["0.weight"], wanted)
    assert torch.equal(mean["1.bias"], first["1.bias"])
    models[0].load_state_dict(mean)


def test_identical_branches() -> None:
    """Check 2."""
    merged = greedy_merge(states([1.0, 2.0], [1.0, 2.0]), [3.0, 3.0], lambda state: 3.0)
    assert merged.state["w"].tolist() == [1, 2]
    assert merged.coefficients == (1.0, 0.0)


def test_never_below_the_best_branch() -> None:
    """Check 3, also without 0 among the alphas and with negative scores; the grid is never below the greedy search."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        branches = [{"w": row} for row in torch.randn(3, 4, generator=generator, dtype=torch.float64)]
        evaluate = nearness(torch.randn(4, generator=generator).tolist())
        scores = [evaluate(branch) for branch in branches]
        merged = greedy_merge(branches, scores, evaluate, alphas=[0.4, 1.0])
        assert merged.score >= max(scores)
        assert merged.score == evaluate(merged.state)
        assert merged.evaluations == 1 + 2 * 2
        every = grid_merge(branches, scores, evaluate)
        assert every.score >= greedy_merge(branches, scores, evaluate, alphas=[0, 1]).score
        assert every.evaluations == 6**2


def test_bounds_of_the_search() -> None:
    """Check 4: the second tries alphas * 1; after 0.4 the third tries alphas * 0.7."""
    tried = []

    def evaluate(state: dict[str, Tensor]) -> float:
        w = state["w"]
        tried.append((w[1] / w[0], w[2] / w[0]))
        return 1.0 if abs(w[1] / w[0] - 0.4) < 1e-9 and w[2] == 0 else 0.5 - float(w[1:].sum())

    branches = states([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    merged = greedy_merge(branches, [3, 2, 1], evaluate, alphas=[0, 0.4, 1.0])
    assert [float(second) for second, third in tried if third == 0] == pytest.approx([0, 0.4, 1.0])
    assert [float(third) for _, third in tried if third > 0] == pytest.approx([0.28, 0.7])
    assert merged.coefficients == pytest.approx((1.0, 0.4, 0.0))


def test_a_convex_toy() -> None:
    """Check 5."""
    merged = greedy_merge(states([0.0], [10.0]), [-16, -36], nearness([4.0]))
    assert merged.coefficients == (1.0, 0.6)
    assert merged.score == pytest.approx(-0.0625)


def test_order_and_ties() -> None:
    calls = []
    greedy_merge(states([0.0], [1.0], [2.0]), [1, 5, 5], lambda s: calls.append(s["w"].item()) or 0.0, alphas=[1.0])
    assert calls == pytest.approx(
        [1, 1.5, 2 / 3]
    )  # the second state leads, the third ties with it and comes next, then the first


def test_task_weights() -> None:
    """Check 6."""
    found = branch_weights(["t"], ["a", "b", "c", "d"], 3)
    assert list(found.values()) == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6, 0])
    assert branch_weights(["t", "u"], ["a"], 0) == {"t": 0.5, "u": 0.5, "a": 0.0}


def test_bad_input() -> None:
    pair = states([1.0], [2.0])
    for call in (
        lambda: weighted_average([], []),
        lambda: weighted_average(pair, [0, 0]),
        lambda: weighted_average(pair, [1]),
        lambda: weighted_average(pair, [1, -1]),
        lambda: weighted_average(pair, [1, math.nan]),
        lambda: weighted_average([*pair, {"v": torch.ones(1)}], [1, 1, 1]),
        lambda: weighted_average([*pair, {"w": torch.ones(2)}], [1, 1, 1]),
        lambda: greedy_merge(pair, [1], len),
        lambda: greedy_merge(pair, [1, math.nan], len),
        lambda: greedy_merge(pair, [1, 2], len, alphas=[1.5]),
        lambda: greedy_merge(pair, [1, 2], lambda state: math.nan),
        lambda: grid_merge(pair, [1, 2], len, alphas=[-0.5]),
        lambda: branch_weights([], ["a"], 1),
        lambda: branch_weights(["a"], ["a"], 1),
        lambda: branch_weights(["t"], ["a"], 2),
    ):
        with pytest.raises(RivalsError):
            call()
