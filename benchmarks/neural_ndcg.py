"""NeuralNDCG of long lists, forward and backward, against the formula of allRank written plainly."""

from __future__ import annotations

from typing import Any

from benchmarks._harness import Case, Target, Variant, Workload

_ROUNDS, _TOLERANCE, _SMALLEST = 50, 1e-6, 1e-10


def workload(quick: bool) -> Workload:
    """Take the loss and its gradient of 4 lists of 1,000 candidates (2 of 12 when quick), temperature 1."""
    import torch
    from torch import Tensor

    from rivals.losses import neural_ndcg_loss

    lists, width = (2, 12) if quick else (4, 1_000)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(lists, width, generator=generator)
    relevance = torch.randint(0, 5, (lists, width), generator=generator).float()

    def gradient(loss: Any) -> tuple[Tensor, Tensor]:
        leaf = scores.detach().requires_grad_()
        value = loss(leaf, relevance)
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    def checks(results: dict[str, Any]) -> dict[str, float]:
        own, theirs = results["rivals"], results["allRank's formula"]
        return {
            "value difference": float((own[0] - theirs[0]).abs() / theirs[0].abs()),
            "gradient difference": float((own[1] - theirs[1]).abs().max() / theirs[1].abs().max()),
        }

    return Workload(
        what=f"NeuralNDCG forward and backward, {lists} lists of {width:,}, float32",
        unit="lists/s",
        amount=lists,
        variants=[
            Variant("rivals", lambda threads: gradient(neural_ndcg_loss)),
            Variant("allRank's formula", lambda threads: gradient(_all_rank)),
        ],
        targets=[
            Target("at most 1/4 of the time of allRank's formula", "time", 0.25, at_least=False),
            Target("equal values, relative", "value difference", 1e-5, at_least=False),
            Target("equal gradients, relative to the largest", "gradient difference", 1e-4, at_least=False),
        ],
        checks=checks,
        notes=["allRank's formula is written out for lists without padding, which spares it the masking."],
        rounds=5,
    )


def _all_rank(scores: Any, relevance: Any) -> Any:
    """Minus the mean nDCG of NeuralSort's matrix after Sinkhorn's rounds, every matrix made in turn."""
    import torch

    width = scores.shape[1]
    rank = torch.arange(1, width + 1, dtype=scores.dtype)
    distance = (scores.unsqueeze(2) - scores.unsqueeze(1)).abs().sum(1)
    logits = (width + 1 - 2 * rank)[:, None] * scores.unsqueeze(1) - distance.unsqueeze(1)
    matrix = logits.softmax(-1)
    for _ in range(_ROUNDS):
        matrix = matrix / matrix.sum(1, keepdim=True).clamp(min=_SMALLEST)
        matrix = matrix / matrix.sum(2, keepdim=True).clamp(min=_SMALLEST)
        if all(bool((matrix.sum(side) - 1).abs().max() < _TOLERANCE) for side in (2, 1)):
            break
    gains, discounts = 2.0**relevance - 1, 1 / torch.log2(rank + 1)
    ideal = (gains.sort(1, descending=True).values * discounts).sum(1)
    found = ((matrix @ gains.unsqueeze(-1)).squeeze(-1) * discounts).sum(1)
    return -(found / (ideal + _SMALLEST)).mean()


CASES: dict[str, Case] = {"": workload}
