"""Model soups: several trainings from one start, their weights averaged into one model that costs no more to serve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from rivals.errors import RivalsError
from rivals.training.branch_merging import weighted_average
from rivals.training.checkpoint import restore_weights, trainable_state
from rivals.training.keeper import TrainingResult


@dataclass(frozen=True)
class Soup:
    """What a soup is made of: each member's result, the average's held-out score (NaN without one) and whether the average was kept."""

    members: tuple[TrainingResult, ...]
    score: float
    kept: bool

    def joined(self) -> TrainingResult:
        """Return the members' results end to end, as one training; the best is what is in the model now.

        `best_step` is the last of all steps where the average was kept, else the best step of the best member; 0 without scores.
        """
        done = TrainingResult(best_score=self.score)
        best, averaged = _best(self.members), self.kept and len(self.members) > 1
        for number, member in enumerate(self.members):
            done.losses += [(done.steps + step, loss) for step, loss in member.losses]
            done.scores += [(done.steps + step, score) for step, score in member.scores]
            if not averaged and number == best:
                done.best_step, done.best_score = done.steps + member.best_step, member.best_score
            done.steps += member.steps
            done.seconds += member.seconds
            done.stopped_early |= member.stopped_early
        if averaged and done.scores:
            done.best_step = done.steps
        return done


def train_soup(
    model: nn.Module,
    train: Callable[[int], TrainingResult],
    members: int,
    *,
    evaluate: Callable[[], float] | None = None,
) -> Soup:
    """Train `members` times from the model's present weights and leave the average of the trained weights in the model.

    The members must start from the same pretrained weights and differ in little (the order of the data, the draws): then their
    average lies in the same valley and is, as a rule, better than any of them. The cost is that of `members` trainings;
    searching with the average costs what one model does, unlike an ensemble.

    Args:
        model: its weights now are where every member starts; in the end it holds the average.
        train: number of the member (from 0) -> its result; trains `model` in place. With a folder for each member and resume=True
            a soup that was cut off goes on where it stopped, as finished members are read back.
        members: 1 or more; 1 is a plain training.
        evaluate: the held-out score of the model's present weights, higher is better. With it, an average that scores below the
            best member gives way to that member. None keeps the average unseen.

    Source: Wortsman et al. (2022), Model soups, the uniform soup.

    Raises:
        RivalsError: members < 1; a held-out score that is NaN; what `train` raises.

    >>> import torch
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> def train(member):
    ...     with torch.no_grad():
    ...         layer.weight.fill_([1.0, 3.0][member])
    ...     return TrainingResult(steps=1)
    >>> train_soup(layer, train, 2).kept, layer.weight.item()
    (True, 2.0)
    """
    if members < 1:
        raise RivalsError(f"a soup needs 1 member or more, not {members}")
    start = trainable_state(model)
    results, states = [], []
    for member in range(members):
        restore_weights(model, start)
        results.append(train(member))
        states.append(trainable_state(model))
    if members == 1:
        return Soup((results[0],), results[0].best_score, kept=True)
    restore_weights(model, weighted_average(states, [1.0] * members))
    if evaluate is None:
        return Soup(tuple(results), math.nan, kept=True)
    score = float(evaluate())
    if math.isnan(score):
        raise RivalsError("the held-out score of the averaged weights is NaN; check what evaluate returns")
    best = _best(results)
    kept = not score < results[best].best_score  # a member without a score cannot be better
    if not kept:
        restore_weights(model, states[best])
    return Soup(tuple(results), score, kept)


def _best(results: list[TrainingResult] | tuple[TrainingResult, ...]) -> int:
    """Return the place of the best held-out score; the first where none has one."""
    return max(
        range(len(results)), key=lambda i: -math.inf if math.isnan(results[i].best_score) else results[i].best_score
    )


__all__ = ["Soup", "train_soup"]
