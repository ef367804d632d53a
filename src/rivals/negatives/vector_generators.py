"""Candidates that no text has, made from the vectors of a training batch: mixed, perturbed, noise, centroids.

A generator takes a `VectorBatch` and returns it with other or further vectors; `VectorBatch.lists` turns the result into
scores, relevance and mask for any loss of the house. Generators compose with `>>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    OnlineClusters,
    adversarial_negative,
    adversarial_noise_negatives,
    distant_positive,
    extrapolate_positives,
    info_nce_loss,
    interpolate_negatives,
)
from rivals.losses.candidates import Distribution
from rivals.negatives.vector_batch import VectorBatch, VectorGenerator


@dataclass(frozen=True)
class MixedFeatures(VectorGenerator):
    """Push queries and positives apart and mix the negatives: harder positives and new negatives without another pass.

    q' = f q + (1 - f) p, p' = f p + (1 - f) q, f in (1, 2) (`extrapolate_positives`); N' = g N + (1 - g) N[shuffled],
    g in (0, 1) (`interpolate_negatives`), in the place of N or, with `append`, besides it. A mixture may count for a
    query only if both of its parts may.

    When to use: momentum contrast with a queue as negatives, or in-batch training with many. Unit vectors in, and
    `lists(normalize=False)` after it: mixtures are not of length 1. Begin when positives are similar already
    (`start_step`), otherwise their scores become very negative.

    Args:
        positives, negatives: which of the two to do. positive_alpha, negative_alpha: of the Beta distributions of f - 1
            and g. per_dimension: a factor for every number. distribution: "beta" or "uniform". append: see above.
            start_step: the first step with mixing.

    Source: Zhu et al. 2021, Improving contrastive learning by visualizing feature transformation, section 4 (paper 34);
    defaults of its commands. What may count for whom in a batch, and `append`, are ours.

    Raises:
        RivalsError: alphas not above 0, an unknown distribution, start_step below 0, neither of the two to do.

    >>> batch = VectorBatch(torch.eye(2), torch.eye(2).flip(0), torch.eye(2))
    >>> mixed = MixedFeatures()(batch, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(mixed.queries + mixed.positives, batch.queries + batch.positives)
    True
    """

    positives: bool = True
    negatives: bool = True
    positive_alpha: float = 2.0
    negative_alpha: float = 1.6
    per_dimension: bool = False
    distribution: Distribution = "beta"
    append: bool = False
    start_step: int = 0

    def __post_init__(self) -> None:
        if not (self.positives or self.negatives):
            raise RivalsError("MixedFeatures has nothing to do; set positives or negatives to True")
        for name, value in (("positive_alpha", self.positive_alpha), ("negative_alpha", self.negative_alpha)):
            if not (math.isfinite(value) and value > 0):
                raise RivalsError(f"{name} must be a finite number above 0, not {value!r}")
        if self.distribution not in ("beta", "uniform"):
            raise RivalsError(f"distribution must be 'beta' or 'uniform', not {self.distribution!r}")
        if self.start_step < 0:
            raise RivalsError(f"start_step must be 0 or more, not {self.start_step}")

    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        if step < self.start_step:
            return batch
        if self.positives:
            pushed = extrapolate_positives(
                batch.queries,
                batch.positives,
                alpha=self.positive_alpha,
                per_dimension=self.per_dimension,
                distribution=self.distribution,
                generator=generator,
            )
            batch = replace(batch, queries=pushed.queries, positives=pushed.keys)
        if not self.negatives or not len(batch.negatives):
            return batch
        order = torch.randperm(len(batch.negatives), generator=generator, device=generator.device)
        order = order.to(batch.negatives.device)
        made = interpolate_negatives(
            batch.negatives,
            alpha=self.negative_alpha,
            per_dimension=self.per_dimension,
            distribution=self.distribution,
            permutation=order,
            generator=generator,
        )
        both = None if batch.allowed is None else batch.allowed & batch.allowed[:, order]
        if not self.append:
            return replace(batch, negatives=made, allowed=both)
        allowed = None if batch.allowed is None or both is None else torch.cat([batch.allowed, both], 1)
        return replace(batch, negatives=torch.cat([batch.negatives, made.to(batch.negatives.dtype)]), allowed=allowed)


@dataclass(frozen=True)
class NoiseNegatives(VectorGenerator):
    """Add Gaussian vectors, moved towards where they disturb the queries most, as negatives of every query.

    They stand where no document is and fill the space, which makes the vectors more uniform. Of length 1 and without
    gradient; see `rivals.losses.adversarial_noise_negatives`.

    Args:
        times: so many a query, rounded down: 1 for BERT-base in the source, 2.5 to 5 for larger models. steps, step_size:
            of the ascent; at their defaults the noise stays nearly what was drawn. temperature: of the loss ascended.

    Source: Zhou et al. 2022, DCLR, section 4.1 (paper 114).

    Raises:
        RivalsError: times or steps below 0, step_size or temperature not above 0.

    >>> batch = VectorBatch.in_batch(torch.eye(4), torch.eye(4))
    >>> NoiseNegatives(times=2.5)(batch, generator=torch.Generator().manual_seed(0)).negatives.shape
    torch.Size([14, 4])
    """

    times: float = 1.0
    steps: int = 4
    step_size: float = 1e-3
    temperature: float = 0.05

    def __post_init__(self) -> None:
        for name, value, above in (("times", self.times, False), ("steps", self.steps, False)):
            _check_number(name, value, above)
        for name, value in (("step_size", self.step_size), ("temperature", self.temperature)):
            _check_number(name, value, True)

    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        scored = batch.lists()
        cosines = scored.scores.detach().masked_fill(~scored.mask, -1.0)  # -1 adds next to nothing to the loss
        own = torch.full((len(cosines), len(cosines)), -1.0, dtype=cosines.dtype, device=cosines.device)
        own.diagonal().copy_(cosines[:, 0])
        noise = adversarial_noise_negatives(
            batch.queries.detach(),
            torch.cat([own, cosines[:, 1:]], 1),
            count=int(len(cosines) * self.times),
            steps=self.steps,
            step_size=self.step_size,
            temperature=self.temperature,
            generator=generator,
        )
        return batch.with_negatives(F.normalize(noise, dim=-1))


#: A scalar of a batch in which `states` float[B, D] stand for the positives.
StateLoss = Callable[[VectorBatch, Tensor], Tensor]


def retrieval_loss(batch: VectorBatch, states: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return the InfoNCE loss of finding `states` float[B, D] among the batch's negatives, the usual measure of likelihood.

    >>> batch = VectorBatch.in_batch(torch.eye(2), torch.eye(2))
    >>> retrieval_loss(batch, batch.positives, temperature=1.0)
    tensor(0.3133)
    """
    return info_nce_loss(*replace(batch, positives=states).lists(), temperature=temperature)


def neighbourhood_divergence(batch: VectorBatch, states: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return how much `states` float[B, D] differ from the positives in which of the batch's negatives they are like.

    KL( softmax(cos(p, N) / t) || softmax(cos(states, N) / t) ), mean over the batch: the meaning of a vector as far as the
    batch can tell. At low temperatures a few negatives decide, and a step against the gradient overshoots.

    >>> batch = VectorBatch.in_batch(torch.eye(2), torch.eye(2))
    >>> neighbourhood_divergence(batch, batch.positives)
    tensor(0.)
    """
    if not len(batch.negatives):
        raise RivalsError("without negatives there is nothing to compare a vector with")
    negatives = F.normalize(batch.negatives.detach(), dim=-1)
    before, after = (
        (F.normalize(each, dim=-1) @ negatives.T / temperature).log_softmax(-1)
        for each in (batch.positives.detach(), states)
    )
    return (before.exp() * (before - after)).sum(-1).mean()


@dataclass(frozen=True)
class Adversarial(VectorGenerator):
    """Perturb positives along gradients: imposters, close by and less likely, and distant positives, far and alike.

    An imposter is a negative of its own query: p + e g/|g|, g the gradient of `likelihood` by p. A distant positive
    moves e up the gradient of `likelihood`, away from the query, and then e down that of `meaning`, back to what it says.
    e is a share of the mean length of the positives. Both are constants for the loss.

    When to use: a batch whose negatives have become easy. Train on `batch.lists()`, and with distant positives on the mean
    of that loss and the one of `batch.with_distant_as_positives().lists()`.

    Args:
        imposter, distant: the length of the steps, above 0; None makes none. likelihood, meaning: scalars of a batch and
            of vectors in the place of its positives; by default `retrieval_loss` and `neighbourhood_divergence`. A
            decoder's loss and the divergence of its output are the source's.

    Source: Lee et al. 2021, CLAPS (paper 99), on a decoder's states with steps of 1 and 3; on embeddings, with these
    losses and shares, it is ours.

    Raises:
        RivalsError: neither of the two, or a step that is not above 0.

    >>> batch = VectorBatch.in_batch(torch.tensor([[0.8, 0.6], [-0.6, 0.8]]), torch.eye(2))
    >>> made = Adversarial(imposter=0.5)(batch, generator=torch.Generator())
    >>> (made.private[:, 0] - batch.positives).round(decimals=4).tolist()  # away from its query
    [[0.0, -0.5], [0.5, 0.0]]
    """

    imposter: float | None = 0.3
    distant: float | None = None
    likelihood: StateLoss = retrieval_loss
    meaning: StateLoss = neighbourhood_divergence

    def __post_init__(self) -> None:
        if self.imposter is None and self.distant is None:
            raise RivalsError("Adversarial has nothing to make; give the step of imposters or of distant positives")
        for name, value in (("imposter", self.imposter), ("distant", self.distant)):
            if value is not None:
                _check_number(name, value, True)

    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        if not len(batch.queries):
            return batch
        fixed = replace(
            batch,
            queries=batch.queries.detach(),
            positives=batch.positives.detach(),
            negatives=batch.negatives.detach(),
            private=None if batch.private is None else batch.private.detach(),
        )
        length = float(torch.linalg.vector_norm(fixed.positives, dim=-1).mean())
        if not length > 0:
            raise RivalsError("the positives are all of length 0; their perturbations have no direction")

        def likelihood(states: Tensor) -> Tensor:
            return self.likelihood(fixed, states)

        def meaning(states: Tensor) -> Tensor:
            return self.meaning(fixed, states)

        if self.imposter is not None:
            made = adversarial_negative(fixed.positives, likelihood, epsilon=self.imposter * length)[:, None]
            batch = replace(batch, private=made if batch.private is None else torch.cat([batch.private, made], 1))
        if self.distant is not None:
            far = distant_positive(fixed.positives, likelihood, meaning, epsilon=self.distant * length)
            batch = replace(batch, distant=far)
        return batch


@dataclass(frozen=True, eq=False)
class CentroidNegatives(VectorGenerator):
    """Add each query's second nearest centroid, of clusters learnt along the way, as a negative of every query.

    The clusters are moved by the batch's queries first, and nothing is added until they have started; see
    `rivals.losses.OnlineClusters`. With `remove_mates` negatives of a query's own cluster do not count for it.

    Source: Deng et al. 2023, ClusterNS, section 3.2 (paper 85); without its band loss, for which
    `rivals.losses.cluster_negatives_loss` is there. Removing mates is an extension.

    >>> clusters = OnlineClusters(2, num_clusters=2)
    >>> clusters.start(torch.eye(2))
    >>> batch = VectorBatch.in_batch(torch.eye(2), torch.eye(2))
    >>> CentroidNegatives(clusters)(batch, generator=torch.Generator()).negatives.round(decimals=2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    """

    clusters: OnlineClusters
    remove_mates: bool = False

    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        view = self.clusters.step(batch.queries.detach(), batch.positives.detach(), generator=generator)
        if view is None:
            return batch
        if self.remove_mates and len(batch.negatives):
            own, theirs = (self.clusters.assign(each.detach()) for each in (batch.queries, batch.negatives))
            apart = own[:, None] != theirs
            batch = replace(batch, allowed=apart if batch.allowed is None else batch.allowed & apart)
        return batch.with_negatives(view.hard_negatives)


def _check_number(name: str, value: float, above: bool) -> None:
    if not (math.isfinite(value) and (value > 0 if above else value >= 0)):
        raise RivalsError(f"{name} must be a finite number{' above 0' if above else ', 0 or more'}; not {value!r}")
