"""Leaving training sets out: the effects that were put in are found, by real training too, and bad values are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rivals.diagnose import leave_one_out
from rivals.errors import RivalsError


def test_effects_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(8, 200))
    worth = {"a": 0.3, "b": 0.0, "bad": -0.2}
    draws = iter(noise)

    def evaluate(kept: dict[str, float]) -> np.ndarray:
        return sum(kept.values()) + 0.1 * next(draws)

    report = leave_one_out(worth, lambda kept: kept, evaluate, resamples=500, permutations=999)
    assert report.harmful() == ("bad",)
    assert report.needed() == ("a",)
    assert [effect.name for effect in report.effects] == ["bad", "b", "a"]
    for effect in report.effects:
        assert effect.gain.low <= -worth[effect.name] + 0.05
        assert effect.gain.high >= -worth[effect.name] - 0.05
        assert float(effect.gain.estimate) == pytest.approx(effect.without - float(report.full.estimate))
    assert "without bad" in str(report)
    assert "200 queries" in str(report)


def test_a_set_with_wrong_labels_is_found_by_training() -> None:
    torch.manual_seed(0)
    true = torch.randn(6)

    def drawn(wrong: bool) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(150, 6)
        y = (x @ true > 0).float()
        return x, 1 - y if wrong else y

    sets = {"first": drawn(False), "second": drawn(False), "flipped": drawn(True)}
    x_test, y_test = drawn(False)

    def train(kept: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> nn.Linear:
        torch.manual_seed(1)
        x, y = (torch.cat([pair[part] for pair in kept.values()]) for part in (0, 1))
        model = nn.Linear(6, 1)
        optimiser = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
            optimiser.step()
        return model

    @torch.no_grad()
    def likelihood(model: nn.Linear) -> torch.Tensor:
        return -nn.functional.binary_cross_entropy_with_logits(model(x_test)[:, 0], y_test, reduction="none")

    report = leave_one_out(sets, train, likelihood, resamples=200, permutations=499)
    assert report.harmful() == ("flipped",)
    assert set(report.needed()) == {"first", "second"}


def test_several_trainings_are_averaged() -> None:
    def evaluate(kept: dict[str, float]) -> np.ndarray:
        return np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]) * len(kept)

    report = leave_one_out({"a": 1, "b": 1}, lambda kept: kept, evaluate, resamples=100, permutations=100)
    assert (float(report.full.estimate), report.queries) == (4.0, 3)


@pytest.mark.parametrize(
    ("sets", "evaluate", "message"),
    [
        ({"a": 1}, lambda model: [1.0], "at least two training sets"),
        ({"a": 1, "b": 2}, lambda model: [1.0] * len(model), "must measure the same queries"),
        ({"a": 1, "b": 2}, lambda model: [float("nan")], "not finite with all sets"),
        ({"a": 1, "b": 2}, lambda model: 1.0, "one value a query"),
    ],
)
def test_what_is_refused(sets, evaluate, message) -> None:
    with pytest.raises(RivalsError, match=message):
        leave_one_out(sets, lambda kept: kept, evaluate, permutations=100)
