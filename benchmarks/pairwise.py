"""Pair losses on long lists, forward and backward, against allRank's formulas on tensors [lists, C, C]."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Case, Target, Variant, Workload

if TYPE_CHECKING:
    from torch import Tensor

_EPS = 1e-10  # allRank's: where it clamps sigmoids, products and ideal DCGs
_MU = 10.0


def workload(quick: bool, *, kind: str) -> Workload:
    """Take a pair loss and its gradient on 4 lists of 1,000 candidates with grades 0 to 4 (100 when quick)."""
    import torch

    lists, size = 4, 100 if quick else 1_000
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.3, 0.13, 0.05, 0.02])  # like the grades of web search data
    scores = torch.randn(lists, size, generator=generator)
    relevance = torch.multinomial(shares, lists * size, replacement=True, generator=generator).view(lists, size).float()

    def both(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor, float]:
        """The value, the gradient, and the most numbers a tensor kept for backward holds, per candidate."""
        leaf, kept = scores.detach().requires_grad_(), 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept = max(kept, tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(leaf, relevance)
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad, kept / scores.numel()

    ours, theirs = _losses(kind)

    def checks(results: dict[str, Any]) -> dict[str, float]:
        own, peer = results["rivals"], results["allRank's formula"]
        return {
            "value difference": float((own[0] - peer[0]).abs() / peer[0].abs()),
            "gradient difference": float((own[1] - peer[1]).abs().max() / peer[1].abs().max()),
            "kept for backward": own[2],
        }

    return Workload(
        what=f"{_TITLES[kind]}, forward and backward, {lists} lists of {size:,}, float32",
        unit="pairs of places/s",
        amount=lists * size * size,
        variants=[
            Variant("rivals", lambda threads: both(ours)),
            Variant("allRank's formula", lambda threads: both(theirs)),
        ],
        targets=[
            Target("at most an eighth of allRank's time", "time", 1 / 8, at_least=False),
            Target("equal values, relative", "value difference", 1e-5, at_least=False),
            Target("equal gradients, relative to the largest", "gradient difference", 1e-4, at_least=False),
            Target(
                "largest tensor kept for backward, in numbers per candidate", "kept for backward", 2, at_least=False
            ),
        ],
        checks=checks,
        notes=["allRank itself is not installed; its formula is written out in benchmarks/pairwise.py"],
    )


_TITLES = {
    "lambda": "LambdaLoss (NDCGLoss2++)",
    "lambdarank": "LambdaLoss (LambdaRank weights)",
    "logistic": "pairwise logistic loss",
    "hinge": "pairwise hinge loss",
}


def _losses(kind: str) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Ours and allRank's."""
    from rivals.losses import lambda_loss, pairwise_hinge_loss, pairwise_logistic_loss

    if kind == "lambda":
        return partial(lambda_loss, mu=_MU), partial(_by_matrices, weigh=_ndcg2pp)
    if kind == "lambdarank":
        return partial(lambda_loss, scheme="lambdarank"), partial(_by_matrices, weigh=_lambdarank)
    if kind == "logistic":
        return pairwise_logistic_loss, partial(_by_matrices, weigh=None, mean=True, log_base=math.e)
    return pairwise_hinge_loss, _hinge_by_matrices


def _by_matrices(
    scores: Tensor,
    relevance: Tensor,
    *,
    weigh: Callable[[Tensor, Tensor], Tensor] | None,
    mean: bool = False,
    log_base: float = 2.0,
) -> Tensor:
    """LambdaLoss as allRank computes it: sorted by score, every pair of places in tensors [lists, C, C]."""
    import torch

    scores, order = scores.sort(descending=True, dim=-1)
    grades = relevance.gather(1, order)
    wanted = grades[:, :, None] - grades[:, None, :]
    counted = torch.isfinite(wanted) & (wanted > 0)
    denominators = torch.log2(1.0 + torch.arange(1, scores.shape[1] + 1, device=scores.device).float())[None, :]
    ideal = ((2.0 ** relevance.sort(descending=True, dim=-1).values - 1.0) / denominators).sum(-1).clamp(min=_EPS)
    gains = (2.0**grades - 1.0) / ideal[:, None]
    weights: Tensor | float = 1.0 if weigh is None else weigh(gains, denominators)
    differences = (scores[:, :, None] - scores[:, None, :]).clamp(min=-1e8, max=1e8)
    differences = differences.masked_fill(torch.isnan(differences), 0.0)
    likelihood = (torch.sigmoid(differences).clamp(min=_EPS) ** weights).clamp(min=_EPS)
    losses = (torch.log2(likelihood) if log_base == 2.0 else torch.log(likelihood))[counted]
    return -(losses.mean() if mean else losses.sum())


def _lambdarank(gains: Tensor, denominators: Tensor) -> Tensor:
    discounts = denominators**-1.0
    return (discounts[:, :, None] - discounts[:, None, :]).abs() * (gains[:, :, None] - gains[:, None, :]).abs()


def _ndcg2pp(gains: Tensor, denominators: Tensor) -> Tensor:
    import torch

    places = torch.arange(1, gains.shape[1] + 1, device=gains.device)
    apart = (places[:, None] - places[None, :]).abs()
    steps = (denominators[0, apart - 1].abs() ** -1.0 - denominators[0, apart].abs() ** -1.0).abs()
    steps.diagonal().zero_()
    ndcg2 = steps[None, :, :] * (gains[:, :, None] - gains[:, None, :]).abs()
    return _MU * ndcg2 + _lambdarank(gains, denominators)


def _hinge_by_matrices(scores: Tensor, relevance: Tensor) -> Tensor:
    """The hinge of every ordered pair, in the same style (allRank has none)."""
    ordered = relevance[:, :, None] > relevance[:, None, :]
    costs = (1.0 - (scores[:, :, None] - scores[:, None, :])).clamp(min=0.0)
    return costs[ordered].mean()


CASES: dict[str, Case] = {kind: partial(workload, kind=kind) for kind in _TITLES}
