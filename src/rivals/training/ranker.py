"""Any scorer under any loss over lists: rankers on the joint negatives of several retrievers, retrievers, students of a ranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.losses.contrastive import info_nce_loss
from rivals.losses.distillation import listwise_kl_loss
from rivals.losses.listwise import softmax_loss
from rivals.negatives.batching.batch import Batch
from rivals.training.executor import Vectors
from rivals.training.held_out import HeldOut, held_out_score
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.scorers import Scorer, inference, rescore
from rivals.training.vector_scorers import VectorScorer

ListLoss = Callable[..., Tensor]


class ListObjective:
    """What objectives over lists of candidates share: the batches, the held-out score, the count of lists that teach nothing.

    `unfilled` counts the lists met so far that had no negative.
    """

    def __init__(
        self,
        batches: QueryBatches,
        *,
        evaluate: HeldOut | None = None,
        rates: Mapping[str, float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.query_batches, self._evaluate, self.unfilled = batches, evaluate, 0
        self.rates, self.options = dict(rates or {}), {**batches.options, **(options or {})}

    def batches(self, epoch: int) -> Sequence[Batch]:
        """Return the epoch's batches, each made when it is read."""
        return self.query_batches(epoch)

    def evaluate(self) -> float:
        """Return the held-out score."""
        return held_out_score(self._evaluate)

    def listed(self, batch: Batch) -> CandidateLists:
        """Return a batch's lists and count those that are empty."""
        found = CandidateLists.of(batch)
        self.unfilled += found.empty
        return found


class ScorerObjective(ListObjective):
    """A loss over lists (`loss(scores, relevance, mask)`, all [Q, W]) of what a scorer gives to a dataset's queries.

    With the default loss and a `PairScorer` it is the list-wise ranker L = - log( exp s(q, d+) / sum over the list of exp s(q, d) ),
    mean over queries. Negatives of several retrievers make it robust against the label noise of any one:
    `Negatives((bm25 | dense)(train, 200), Joint(15))`. With a `VectorScorer` and `pairwise_logistic_loss` it is the triplet objective
    of ANCE (share="own") or that of STAR (share="all").

    Args:
        scorer: trained in place. batches: see `QueryBatches`. loss: any list loss of `rivals.losses`, with its options bound.
        weighted: hand the run's weights to the loss, as `weight=`.
        evaluate: held-out score, higher is better, such as `Reranking`; None where nothing is evaluated.
        rates: factors on the learning rate by beginning of name. options: JSON values that a resumed run must share.

    When to use: everything that is one model and one loss. Costs what scoring its lists costs.

    Source: "Towards Robust Ranker for Text Retrieval" (2023), paper 4: 15 negatives of 200 a retriever; the objectives of papers 29
    (STAR) and 37 (ANCE).

    Raises:
        RivalsError: while evaluating, no held-out score; under `CachedGradients`, a scorer that is not made of vectors.
    """

    def __init__(
        self,
        scorer: Scorer,
        batches: QueryBatches,
        loss: ListLoss = softmax_loss,
        *,
        weighted: bool = False,
        evaluate: HeldOut | None = None,
        rates: Mapping[str, float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(batches, evaluate=evaluate, rates=rates, options=options)
        self.scorer, self.list_loss, self.weighted = scorer, loss, weighted

    @property
    def model(self) -> nn.Module:
        """The scorer's module."""
        return self.scorer.model

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch's lists."""
        found = self.listed(batch)
        return self.loss_of(self.scorer(found.query, found.document, found.mask), found)

    def parts(self, batch: Batch) -> Sequence[Callable[[], Vectors]]:
        """Return what makes the vectors of the batch, for `CachedGradients`."""
        found = CandidateLists.of(batch)
        return self._vectors().parts(found.query, found.document, found.mask)

    def joined(self, batch: Batch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the loss from what `parts` gave."""
        found = self.listed(batch)
        return self.loss_of(self._vectors().joined(vectors, found.query, found.document, found.mask), found)

    def loss_of(self, scores: Tensor, found: CandidateLists) -> Tensor:
        """Return the loss of lists under these scores; a subclass may do more than the list loss does."""
        relevance, mask, weight = found.tensors(scores.device)
        more = {"weight": weight} if self.weighted else {}
        return self.list_loss(scores, relevance, mask, **more)

    def _vectors(self) -> VectorScorer:
        if not isinstance(self.scorer, VectorScorer):
            raise RivalsError(
                f"{type(self.scorer).__name__} scores pairs in one piece, which the gradient cache cannot cut; train it with the "
                "plain executor"
            )
        return self.scorer


class TaughtObjective(ScorerObjective):
    """A scorer that learns a frozen ranker's distribution over each list, beside the labels.

    L = distillation KL(softmax(t / T) || softmax(s / T)) + contrastive InfoNCE(s), s the student's scores and t the ranker's, over
    the same lists.

    Args:
        scorer: the student. teacher: scores the same rows; it is not trained. temperature: T. contrastive_temperature: of InfoNCE.
        contrastive, distillation: their weights, 1 and 1 (unverified in the source).

    Source: "Towards Robust Ranker for Text Retrieval" (2023), the retriever distilled from the ranker (paper 4).

    Raises:
        RivalsError: a weight below 0, both 0, a temperature not above 0.
    """

    def __init__(
        self,
        scorer: Scorer,
        teacher: Scorer,
        batches: QueryBatches,
        *,
        temperature: float = 1.0,
        contrastive_temperature: float = 1.0,
        contrastive: float = 1.0,
        distillation: float = 1.0,
        evaluate: HeldOut | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if min(contrastive, distillation) < 0 or contrastive + distillation == 0:
            raise RivalsError(f"the weights must be 0 or more, not both 0; got {contrastive} and {distillation}")
        if not (temperature > 0 and contrastive_temperature > 0):
            raise RivalsError(f"temperatures must be above 0; got {temperature} and {contrastive_temperature}")
        options = {
            "temperature": temperature,
            "contrastive_temperature": contrastive_temperature,
            "contrastive": contrastive,
            "distillation": distillation,
        }
        super().__init__(scorer, batches, evaluate=evaluate, rates=rates, options=options)
        self.teacher, self.temperature, self.contrastive_temperature = teacher, temperature, contrastive_temperature
        self.contrastive, self.distillation = contrastive, distillation

    def loss_of(self, scores: Tensor, found: CandidateLists) -> Tensor:
        """Return the weighted sum of both losses."""
        relevance, mask, _ = found.tensors(scores.device)
        loss = scores.new_zeros(())
        if self.distillation:
            targets = frozen_scores(self.teacher, found).to(scores)
            loss = loss + self.distillation * listwise_kl_loss(scores, targets, mask, temperature=self.temperature)
        if self.contrastive:
            labels = info_nce_loss(scores, relevance, mask, temperature=self.contrastive_temperature)
            loss = loss + self.contrastive * labels
        return loss


def frozen_scores(scorer: Scorer, found: CandidateLists) -> Tensor:
    """Return a scorer's scores of lists without gradient and dropout, [Q, W]."""
    with inference(scorer.model):
        return scorer(found.query, found.document, found.mask)


def zero_loss_share(scorer: Scorer, run: Run, *, below: float = 0.01) -> float:
    """Return the share of a run's queries whose list is learned: the softmax loss of positives against kept candidates is small.

    Lists of weak retrievers are mostly of this kind. Queries without a positive or a candidate are not counted; NaN if all are such.

    Args:
        below: what counts as no loss.
    """
    scored = rescore(scorer, run)
    loss = _list_losses(scored)
    counted = np.isfinite(loss)
    return float((loss[counted] < below).mean()) if counted.any() else float("nan")


def _list_losses(run: Run) -> NDArray[np.float64]:
    """log(1 + sum_n exp(s_n - s_p)) of each query's best positive against its usable candidates; NaN where either is missing."""
    usable = run.keep & (run.label != 1) & (run.relevance() == 0)
    best = lists.segment_reduce(np.maximum, run.positive_score.astype(np.float64), run.positive_offsets, empty=np.nan)
    gap = np.where(usable, run.score - np.repeat(best, np.diff(run.offsets)), -np.inf)
    mass = lists.segment_reduce(np.add, np.exp(np.minimum(gap, 700.0)), run.offsets)
    there = lists.segment_reduce(np.add, usable.astype(np.float64), run.offsets) > 0
    found: NDArray[np.float64] = np.where(there & np.isfinite(best), np.log1p(mass), np.nan)
    return found


__all__ = ["ListLoss", "ListObjective", "ScorerObjective", "TaughtObjective", "frozen_scores", "zero_loss_share"]
