"""Metric learning over all pairs of a large batch, forward and backward, against pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Case, Target, Variant, Workload

if TYPE_CHECKING:
    from torch import Tensor

_PEER = "pytorch-metric-learning"


def workload(quick: bool, *, loss: str, value_only: bool = False) -> Workload:
    """Take one loss and its gradient over 4,096 rows of 128 dimensions, 16 a class (96 of 32 when quick)."""
    import torch

    size, width = (96, 32) if quick else (4_096, 128)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % (size // 16)
    classes = torch.randn(size // 16, width, generator=generator)
    embeddings = classes[labels] + 1.5 * torch.randn(size, width, generator=generator)

    def run(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, Tensor]:
        leaf = embeddings.detach().requires_grad_()
        value = function(leaf, labels)
        value.backward()
        assert leaf.grad is not None
        return value.item(), leaf.grad

    variants = [Variant("rivals", lambda threads: run(_ours(loss)))]
    missing = []
    if find_spec("pytorch_metric_learning") is None:
        missing.append(_PEER)
    else:
        variants.append(Variant(_PEER, lambda threads: run(_peer(loss))))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        if _PEER not in results:
            return {}
        (value, gradient), (reference, expected) = results["rivals"], results[_PEER]
        found = {"value difference": abs(value - reference) / abs(reference)}
        if not value_only:
            found["gradient difference"] = float((gradient - expected).abs().max() / expected.abs().max())
        return found

    targets = [
        Target(f"at most 0.7x the time of {_PEER}", "time", 0.7, at_least=False),
        Target("at most 0.3x its extra memory", "memory", 0.3, at_least=False),
        Target("equal values", "value difference", 1e-5, at_least=False),
    ]
    if not value_only:
        targets.append(Target("equal gradients, relative to the largest", "gradient difference", 1e-4, at_least=False))
    return Workload(
        what=f"{loss.replace('_', ' ')} forward and backward, N = {size:,}, D = {width}, 16 a class, float32",
        unit="rows/s",
        amount=size,
        flops=(1 if value_only else 3) * 2.0 * size * size * width,
        variants=variants,
        targets=targets,
        checks=checks,
        missing=missing,
        notes=["two negatives that are equally hard to the last bit may be told apart differently"]
        if value_only
        else [],
    )


def _ours(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    from rivals import losses

    options: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
        "multi_similarity": (losses.in_batch_multi_similarity_loss, {"empty_anchor": "partial"}),
        "circle": (losses.in_batch_circle_loss, {"margin": 0.4, "scale": 80.0, "reduction": "mean_positive"}),
        "triplet_hard": (
            losses.in_batch_triplet_loss,
            {"margin": 0.2, "normalize": True, "reduction": "mean_positive"},
        ),
        "supervised_contrastive": (losses.in_batch_supervised_contrastive_loss, {}),
    }
    function, given = options[loss]
    return partial(function, **given)


@cache
def _peer(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the peer's loss, imported when first needed: a fresh process that measures ours should not hold it."""
    from pytorch_metric_learning import losses, miners

    function, miner = {
        "multi_similarity": (losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner()),
        "circle": (losses.CircleLoss(), None),
        "triplet_hard": (losses.TripletMarginLoss(margin=0.2), miners.BatchHardMiner()),
        "supervised_contrastive": (losses.SupConLoss(), None),
    }[loss]

    def mined(embeddings: Tensor, labels: Tensor) -> Tensor:
        return function(embeddings, labels, miner(embeddings, labels) if miner is not None else None)

    return mined


CASES: dict[str, Case] = {
    "multi_similarity": partial(workload, loss="multi_similarity"),
    "circle": partial(workload, loss="circle"),
    "triplet_hard": partial(workload, loss="triplet_hard", value_only=True),
    "supervised_contrastive": partial(workload, loss="supervised_contrastive"),
}
