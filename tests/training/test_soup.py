"""Model soups: averaging trainings that start from one point."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.training import TrainingResult, train_soup


class Point(torch.nn.Module):
    """A model of one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))


def trainer(point: Point, ends: list[float], scores: list[float], seen: list[float]):
    def train(member: int) -> TrainingResult:
        seen.append(point.value.item())
        with torch.no_grad():
            point.value.fill_(ends[member])
        losses, held_out = [(1, 0.5), (2, 0.4)], [(2, scores[member])]
        return TrainingResult(2, losses, held_out, best_step=2, best_score=scores[member], seconds=1.5)

    return train


def nearness(point: Point, target: float):
    return lambda: -abs(point.value.item() - target)


def test_members_start_alike_and_are_averaged() -> None:
    point, seen = Point(7.0), []
    soup = train_soup(point, trainer(point, [1.0, 2.0, 6.0], [-2, -1, -3], seen), 3, evaluate=nearness(point, 3.0))
    assert seen == [7.0, 7.0, 7.0]
    assert soup.kept
    assert soup.score == 0
    assert point.value.item() == 3.0
    joined = soup.joined()
    assert (joined.steps, joined.best_step, joined.best_score, joined.seconds) == (6, 6, 0, 4.5)
    assert [step for step, _ in joined.losses] == [1, 2, 3, 4, 5, 6]
    assert joined.scores == [(2, -2), (4, -1), (6, -3)]


def test_a_member_that_is_better_stays() -> None:
    point = Point(0.0)
    soup = train_soup(point, trainer(point, [1.0, 2.0, 9.0], [-1, 0, -7], []), 3, evaluate=nearness(point, 2.0))
    assert not soup.kept
    assert soup.score == -2.0
    assert point.value.item() == 2.0
    joined = soup.joined()
    assert (joined.best_step, joined.best_score) == (4, 0)


def test_one_member_is_a_plain_training() -> None:
    point = Point(0.0)
    soup = train_soup(point, trainer(point, [5.0], [0.25], []), 1, evaluate=nearness(point, 0.0))
    assert soup.kept
    assert soup.score == 0.25
    assert point.value.item() == 5.0
    assert soup.joined() == soup.members[0]


def test_without_held_out_scores_the_average_is_kept() -> None:
    point = Point(0.0)
    soup = train_soup(point, trainer(point, [1.0, 2.0], [math.nan, math.nan], []), 2)
    assert soup.kept
    assert math.isnan(soup.score)
    assert point.value.item() == 1.5
    scored = train_soup(point, trainer(point, [1.0, 2.0], [math.nan, math.nan], []), 2, evaluate=nearness(point, 9.0))
    assert scored.kept


def test_errors() -> None:
    point = Point(0.0)
    with pytest.raises(RivalsError, match="1 member or more"):
        train_soup(point, trainer(point, [], [], []), 0)
    with pytest.raises(RivalsError, match="NaN"):
        train_soup(point, trainer(point, [1.0, 2.0], [0, 0], []), 2, evaluate=lambda: math.nan)
