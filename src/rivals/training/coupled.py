"""Two models trained side by side: one learns what is relevant, the other what was ever looked at, and each weighs the other's pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses.weighted_pairs import coupled_losses
from rivals.negatives.batching.batch import Batch
from rivals.training.held_out import HeldOut
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ListObjective, frozen_scores
from rivals.training.scorers import Scorer


class CoupledObjective(ListObjective):
    """Coupled estimation: a relevance and a selection model learn from the same pairs, each weighted by what the other says.

    In every step both score the batch without gradient and dropout; a negative weighs 1 + exp(s / debias_ratio) in the relevance
    loss, s what the selection model gives it, and the other way round. Both losses go back in one step; each model's gradients are
    clipped by themselves. Afterwards only the relevance model is of use.

    Args:
        relevance, selection: scorers over the same queries and documents, of separate parameters. They may start from one
            checkpoint, but with heads of different seeds: equal models would stay equal and weigh by their own opinion.
        batches: with ready-made negatives of a strong retriever, one a query in the source; lists of several count all their pairs.
        debias_ratio: 10 in the training script, 2 its code's default. max_weight: cuts weights off (ours).
        evaluate: held-out score; None where nothing is evaluated.

    The model's parameters are named `relevance.` and `selection.`. `mean_weight` holds the mean weight of the last batch's negatives
    in the relevance loss.

    When to use: labels from pools and mined negatives, many of which nobody judged. Four forward passes and two backward ones a step.

    Source: Cai et al. 2022, Hard negatives or false negatives: correcting pooling bias (paper 5).

    Raises:
        RivalsError: debias_ratio not above 0, max_weight below 1, models that share parameters or are equal.
    """

    clips_apart = ("relevance.", "selection.")

    def __init__(
        self,
        relevance: Scorer,
        selection: Scorer,
        batches: QueryBatches,
        *,
        debias_ratio: float = 10.0,
        max_weight: float | None = None,
        evaluate: HeldOut | None = None,
    ) -> None:
        if not debias_ratio > 0:
            raise RivalsError(f"debias_ratio must be above 0, not {debias_ratio!r}")
        if max_weight is not None and not max_weight >= 1:
            raise RivalsError(f"max_weight must be at least 1, the least weight there is; not {max_weight!r}")
        _check_apart(relevance.model, selection.model)
        options = {"debias_ratio": debias_ratio, "max_weight": max_weight}
        super().__init__(batches, evaluate=evaluate, options=options)
        self.relevance, self.selection = relevance, selection
        self.model: nn.Module = nn.ModuleDict({"relevance": relevance.model, "selection": selection.model})
        self.debias_ratio, self.max_weight, self.mean_weight = debias_ratio, max_weight, float("nan")

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the sum of both models' losses, which have no parameter in common."""
        found = self.listed(batch)
        judged = [frozen_scores(scorer, found) for scorer in (self.relevance, self.selection)]
        scores = [scorer(found.query, found.document, found.mask) for scorer in (self.relevance, self.selection)]
        relevance, mask, _ = found.tensors(scores[0].device)
        losses = coupled_losses(
            scores[0],
            scores[1],
            relevance,
            mask,
            debias_ratio=self.debias_ratio,
            max_weight=self.max_weight,
            relevance_eval_scores=judged[0],
            selection_eval_scores=judged[1],
        )
        self.mean_weight = float(losses.relevance_weight[mask & (relevance <= 0)].mean())
        return losses.relevance_loss + losses.selection_loss


def _check_apart(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    if {id(p) for p in mine.values()} & {id(p) for p in theirs.values()}:
        raise RivalsError("the relevance and the selection model share parameters; each needs its own")
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    if same:
        raise RivalsError("the relevance and the selection model are equal; give their heads different seeds")


__all__ = ["CoupledObjective"]
