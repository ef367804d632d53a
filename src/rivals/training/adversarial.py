"""A retriever and a ranker that train each other: the ranker on what the retriever finds, the retriever on what fools the ranker."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses.adversarial import adversarial_retriever_loss
from rivals.losses.listwise import softmax_loss
from rivals.negatives.batching.batch import Batch
from rivals.training.held_out import HeldOut
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ListLoss, ListObjective, frozen_scores
from rivals.training.schedules import Phases
from rivals.training.scorers import Scorer

RETRIEVER, RANKER = "retriever", "ranker"


class AdversarialObjective(ListObjective):
    """AR2: in the ranker's phase, its list-wise softmax loss; in the retriever's, the adversarial loss and the ranker's distribution.

    The two read the same lists, of a positive and negatives that the retriever found when they were last mined. The one that is not
    at work is not called, or only without gradient and dropout.

    Args:
        retriever, ranker: any two scorers over the same queries and documents.
        batches: with the negatives in use; `Refresh(negatives, retriever.search, every=period)` mines them anew. The sampler is the
            method: 15 drawn uniformly are AR2's, `Ambiguous(15)` makes it the host of SimANS (paper 10, with adv_lambda=0).
        turns: says whose phase it is: `Alternate(["ranker", "retriever"], period=2000, first_steps=501)`, which goes to `fit` as
            well, beside the refresh: `regime=Together([turns, refresh])`.
        adv_lambda, temperature, adversarial_reduction, eps: see `adversarial_retriever_loss`.
        ranker_loss: of the ranker's phase. ranker_rate: factor on the learning rate of the ranker; 0.1 in the scripts.
        evaluate: held-out score; None where nothing is evaluated.

    The model's parameters are named `retriever.` and `ranker.` and clipped apart.
    When to use: a trained retriever and ranker to start from and the time for many refreshes, which cost an encoding of all
    documents each. Mind that the adversarial part grows with batch and list.

    Source: Zhang et al. 2022, AR2 (paper 11): 32,000 steps, learning rates 1e-5 and 1e-6, 15 negatives of the top 100.

    Raises:
        RivalsError: adv_lambda outside [0, 1], ranker_rate not above 0; in training, a phase that is neither's.
    """

    clips_apart = (f"{RETRIEVER}.", f"{RANKER}.")

    def __init__(
        self,
        retriever: Scorer,
        ranker: Scorer,
        batches: QueryBatches,
        turns: Phases,
        *,
        adv_lambda: float = 0.5,
        temperature: float = 1.0,
        adversarial_reduction: Literal["sum", "mean"] = "sum",
        eps: float = 1e-7,
        ranker_loss: ListLoss = softmax_loss,
        ranker_rate: float = 0.1,
        evaluate: HeldOut | None = None,
    ) -> None:
        if not 0 <= adv_lambda <= 1:
            raise RivalsError(f"adv_lambda must lie in 0..1, not {adv_lambda!r}")
        if not ranker_rate > 0:
            raise RivalsError(f"ranker_rate must be above 0, not {ranker_rate!r}")
        self.adversarial: dict[str, Any] = {
            "adv_lambda": adv_lambda,
            "temperature": temperature,
            "adversarial_reduction": adversarial_reduction,
            "eps": eps,
        }
        super().__init__(batches, evaluate=evaluate, rates={f"{RANKER}.": ranker_rate}, options=self.adversarial)
        self.retriever, self.ranker, self.turns, self.ranker_loss = retriever, ranker, turns, ranker_loss
        self.model: nn.Module = nn.ModuleDict({RETRIEVER: retriever.model, RANKER: ranker.model})

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of the model whose phase it is."""
        found, phase = self.listed(batch), self.turns.current.rpartition("/")[2]
        if phase == RANKER:
            scores = self.ranker(found.query, found.document, found.mask)
            return self.ranker_loss(scores, *found.tensors(scores.device)[:2])
        if phase != RETRIEVER:
            raise RivalsError(f"the phases of this objective are '{RANKER}' and '{RETRIEVER}', not '{phase}'")
        scores = self.retriever(found.query, found.document, found.mask)
        judged = frozen_scores(self.ranker, found).to(scores)
        relevance, mask, _ = found.tensors(scores.device)
        return adversarial_retriever_loss(scores, relevance, mask, ranker_scores=judged, **self.adversarial)


__all__ = ["AdversarialObjective"]
