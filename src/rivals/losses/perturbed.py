"""Candidates made by following a gradient: imposters, distant positives, noise that confuses; and a loss for them.

The perturbations are constants for the loss that uses them, and no parameter's `.grad` is touched on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_mask,
    check_positive,
    check_scores,
    check_shape,
)
from rivals.losses._in_batch import unit_rows
from rivals.losses._pairs import check_assignment
from rivals.losses.contrastive import in_batch_info_nce_loss, info_nce_loss

__all__ = ["adversarial_negative", "adversarial_noise_negatives", "distant_positive", "imposter_contrastive_loss"]

Norm = Literal["token", "sample"]
NO_STEP = 1e-8
"""A gradient shorter than this is rounding noise; no step is taken along it."""
SLACK = 1e-12
"""Added to a gradient's length before dividing by it, as in the reference."""


def adversarial_negative(
    states: Tensor,
    loss_fn: Callable[[Tensor], Tensor],
    *,
    epsilon: float = 1.0,
    mask: Tensor | None = None,
    norm: Norm = "token",
) -> Tensor:
    """Move states one step of length epsilon up the gradient of a loss: an imposter, close by and less likely.

    Args:
        states: float[..., D], for example a decoder's hidden states [B, T, D] or embeddings [B, D].
        loss_fn: takes states and returns a scalar, for example the negative log-likelihood of the target.
        epsilon: length of the step of every vector; rescale it with the length of the states.
        mask: bool[...], True = the vector is there; others stay where they are.
        norm: "token" gives every vector a step of length epsilon, "sample" every first-dimension entry as a whole.

    Source:
        Lee et al. (2021), CLAPS, eq. 5; epsilon 1 or 3 on T5. Paper 99. The gradient is divided by its length plus 1e-12,
        as in the reference; a vector whose gradient is below 1e-8 stays.

    Raises:
        RivalsError: states that are not floating point, a mask that does not fit, epsilon <= 0, an unknown norm.

    >>> adversarial_negative(torch.tensor([[3.0, 0.0]]), lambda states: (states[:, 1] * 5).sum())
    tensor([[3., 1.]])
    """
    check_positive(epsilon, "epsilon")
    return _step(states, loss_fn, epsilon, mask, norm)


def distant_positive(
    states: Tensor,
    away_fn: Callable[[Tensor], Tensor],
    keep_fn: Callable[[Tensor], Tensor],
    *,
    epsilon: float = 3.0,
    mask: Tensor | None = None,
    norm: Norm = "token",
) -> Tensor:
    """Move states up one loss and then down another: far from where they were, with the same meaning.

    Args:
        states, epsilon, mask, norm: as in `adversarial_negative`; both steps have length epsilon.
        away_fn: what to raise, for example the contrastive loss between source and target.
        keep_fn: what to lower afterwards, for example the divergence of the output distribution from the original one.

    Source:
        Lee et al. (2021), CLAPS, eqs. 6 and 7. Paper 99.

    Raises:
        RivalsError: as `adversarial_negative`.

    >>> found = distant_positive(torch.zeros(1, 2), lambda s: s[:, 0].sum(), lambda s: s[:, 1].sum(), epsilon=2.0)
    >>> found
    tensor([[ 2., -2.]])
    """
    check_positive(epsilon, "epsilon")
    return _step(_step(states, away_fn, epsilon, mask, norm), keep_fn, -epsilon, mask, norm)


def adversarial_noise_negatives(
    anchors: Tensor,
    scores: Tensor,
    *,
    count: int | None = None,
    steps: int = 4,
    step_size: float = 1e-3,
    temperature: float = 0.05,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return Gaussian vectors [M, D] moved towards where they disturb the anchors most: negatives of no document.

    Each of `steps` steps moves every vector by `step_size` up the gradient of the InfoNCE loss in which they are further
    negatives of the anchors (cosines, besides the given scores of the batch).

    Args:
        anchors: float[B, D]. scores: float[B, C] cosines of the batch, column i the positive of anchor i.
        count: M, by default B. noise: float[M, D] to start from instead of a draw. generator: for the draw.

    Source:
        Zhou et al. (2022), DCLR, section 4.1; count = B times 1 to 5 by model. Paper 114. A vector without a gradient
        stays.

    Raises:
        RivalsError: shapes or dtypes that do not fit, count or steps < 0, step_size or temperature <= 0, neither noise
        nor generator.

    >>> anchors, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> adversarial_noise_negatives(anchors, torch.ones(1, 1), noise=noise, steps=1, step_size=0.1, temperature=1.0)
    tensor([[0.1000, 2.0000]])
    """
    check_scores(anchors, "anchors", ndim=2)
    check_scores(scores, "scores", ndim=2)
    if scores.shape[0] != len(anchors) or scores.shape[1] < len(anchors):
        raise RivalsError(
            f"scores must have a row for each of the {len(anchors)} anchors and at least as many columns; "
            f"got shape {tuple(scores.shape)}"
        )
    if steps < 0 or (count is not None and count < 0):
        raise RivalsError(f"steps and count must be at least 0; got {steps!r} and {count!r}")
    check_positive(step_size, "step_size")
    check_positive(temperature, "temperature")
    dtype = compute_dtype(anchors)
    if noise is None:
        if generator is None:
            raise RivalsError("noise must be given, or a generator to draw it with")
        shape = (len(anchors) if count is None else count, anchors.shape[1])
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype).to(anchors.device)
    check_scores(noise, "noise", ndim=2)
    check_shape(noise, (len(noise) if count is None else count, anchors.shape[1]), "noise", anchors.device)
    unit = unit_rows(anchors.detach().to(dtype))
    given = scores.detach().to(dtype)
    relevance = torch.eye(len(anchors), given.shape[1] + len(noise), device=anchors.device, dtype=dtype)

    def disturbance(vectors: Tensor) -> Tensor:
        return info_nce_loss(torch.cat([given, unit @ unit_rows(vectors).T], 1), relevance, temperature=temperature)

    noise = noise.detach().to(dtype)
    for _ in range(steps):
        noise = _step(noise, disturbance, step_size, None, "token", least=0.0, slack=0.0)
    return noise


def imposter_contrastive_loss(
    queries: Tensor,
    documents: Tensor,
    relevance: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    imposters: Tensor | None = None,
    imposter_mask: Tensor | None = None,
    distant: Tensor | None = None,
    temperature: float = 0.1,
    distant_temperature: float | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
) -> Tensor:
    """In-batch InfoNCE with made candidates: each query's own imposters as negatives, its distant positive in a second term.

    Formula:
        L1 = `in_batch_info_nce_loss` over the documents and, in each row, the query's own imposters.
        L2 = the same with the query's positives replaced by its distant one, at `distant_temperature`.
        L = (L1 + L2) / 2, or L1 without distant positives.

    Shapes:
        queries float[Q, D], documents float[C, D], relevance [Q, C] >= 0 (document i is the positive of query i without
        it), mask bool[Q, C], imposters float[Q, K, D], imposter_mask bool[Q, K], distant float[Q, D]
        -> scalar, or float[Q] with reduction="none".

    When to use:
        Teaching an encoder (or the two sides of a generator) with negatives and positives that `adversarial_negative`
        and `distant_positive` made; make them without gradient, they are constants here if they carry none.

    Relations:
        Without imposters and distant positives: `in_batch_info_nce_loss`. Imposters are seen by their own query alone.

    Source:
        Lee et al. (2021), CLAPS, eqs. 3 and 8. Paper 99. The reference does not divide the second term by the
        temperature: distant_temperature=1 follows it; by default it is `temperature`.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a document
        that is there, temperature or distant_temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> imposter_contrastive_loss(torch.eye(2), torch.eye(2), imposters=torch.eye(2)[:, None], temperature=1.0)
        tensor(0.8620)
    """
    first = in_batch_info_nce_loss(
        queries,
        documents,
        relevance,
        mask,
        negatives=imposters,
        negative_mask=imposter_mask,
        temperature=temperature,
        normalize=normalize,
        reduction=reduction,
        fused=fused,
    )
    if distant_temperature is not None:
        check_positive(distant_temperature, "distant_temperature")
    if distant is None:
        return first
    check_scores(distant, "distant")
    check_shape(distant, tuple(queries.shape), "distant", queries.device)
    pairs = check_assignment(
        queries,
        documents,
        relevance=relevance,
        mask=mask,
        weight=None,
        positive_columns=None,
        query_groups=None,
        document_groups=None,
        same_group="positive",
    )
    positive, there = pairs.dense()
    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device) & positive.any(1, keepdim=True)
    second = in_batch_info_nce_loss(
        queries,
        torch.cat([documents, distant]),
        torch.cat([torch.zeros_like(positive), own], 1).to(torch.float32),
        torch.cat([there & ~positive, own], 1),
        negatives=imposters,
        negative_mask=imposter_mask,
        temperature=temperature if distant_temperature is None else distant_temperature,
        normalize=normalize,
        reduction=reduction,
        fused=fused,
    )
    return (first + second) / 2


def _step(
    states: Tensor,
    loss_fn: Callable[[Tensor], Tensor],
    epsilon: float,
    mask: Tensor | None,
    norm: Norm,
    least: float = NO_STEP,
    slack: float = SLACK,
) -> Tensor:
    """Return detached states moved by `epsilon` (down, if it is negative) along the unit gradient of a loss."""
    check_scores(states, "states")
    if states.ndim < 2:
        raise RivalsError(f"states must have a first dimension of examples; got shape {tuple(states.shape)}")
    check_choice(norm, get_args(Norm), "norm")
    if mask is not None:
        check_mask(mask, states[..., 0], "mask")
    leaf = states.detach().to(compute_dtype(states)).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss_fn(leaf), leaf)
    if mask is not None:
        gradient = gradient.masked_fill(~mask.unsqueeze(-1), 0.0)
    over = -1 if norm == "token" else tuple(range(1, states.ndim))
    length = torch.linalg.vector_norm(gradient, dim=over, keepdim=True)
    still = ~(length > least)
    return leaf.detach() + epsilon * (gradient / (length + slack).masked_fill(still, 1.0)).masked_fill(still, 0.0)
