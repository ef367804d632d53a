"""InfoNCE over a large batch, forward and backward on embeddings, against MultipleNegativesRankingLoss.

Both gradients are held against the direct formula in float64. The peer's stand further from it than ours: autograd
pushes on a positive with p - 1, which loses digits once p is near 1, where ours takes 1 - p from the negatives' sum.
So the difference between the two says little about ours, and the target asks for the distance from float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

from benchmarks._harness import Case, Target, Variant, Workload

_SCALE = 20.0


def workload(quick: bool) -> Workload:
    """Take the loss and both gradients of 4,096 pairs of 384 dimensions (96 of 32 when quick)."""
    import torch
    from torch import Tensor

    from rivals.losses import in_batch_info_nce_loss

    size, width = (96, 32) if quick else (4_096, 384)
    generator = torch.Generator().manual_seed(0)
    documents = torch.randn(size, width, generator=generator)
    queries = documents + torch.randn(size, width, generator=generator)

    def gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        left, right = queries.detach().requires_grad_(), documents.detach().requires_grad_()
        loss(left, right).backward()
        assert left.grad is not None
        assert right.grad is not None
        return left.grad, right.grad

    def ours(left: Tensor, right: Tensor, matmul_dtype: torch.dtype | None = None) -> Tensor:
        return in_batch_info_nce_loss(left, right, temperature=1 / _SCALE, fused=True, matmul_dtype=matmul_dtype)

    variants = [
        Variant("rivals, fused", lambda threads: gradients(ours)),
        Variant(
            "rivals, fused, bfloat16 products",
            lambda threads: gradients(lambda left, right: ours(left, right, torch.bfloat16)),
        ),
    ]
    missing = []
    if find_spec("sentence_transformers") is None:
        missing.append("sentence-transformers")
    else:
        variants.append(
            Variant(
                "sentence-transformers MNRL",
                lambda threads: gradients(
                    lambda left, right: _peer().compute_loss_from_embeddings([left, right], None)
                ),
            )
        )

    def checks(results: dict[str, Any]) -> dict[str, float]:
        truth = _in_float64(queries, documents)
        names = {
            "rivals, fused": "gradient error",
            "rivals, fused, bfloat16 products": "in bfloat16",
            "sentence-transformers MNRL": "the peer's gradient error",
        }
        figures = {names[name]: _difference(found, truth) for name, found in results.items()}
        if "sentence-transformers MNRL" in results:
            own, theirs = results["rivals, fused"], results["sentence-transformers MNRL"]
            figures["gradient difference"] = _difference(own, theirs)
        return figures

    return Workload(
        what=f"InfoNCE forward and backward, B = {size:,}, D = {width}, float32",
        unit="pairs/s",
        amount=size,
        flops=3 * 2.0 * size * size * width,
        variants=variants,
        targets=[
            Target("at most 0.6x the time of MultipleNegativesRankingLoss", "time", 0.6, at_least=False),
            Target("at most 0.3x its extra memory", "memory", 0.3, at_least=False),
            Target("gradients as in float64, relative to the largest", "gradient error", 1e-5, at_least=False),
        ],
        checks=checks,
        missing=missing,
    )


@cache
def _peer() -> Any:
    """Return the peer's loss, imported when first needed: a fresh process that measures ours should not hold it."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    return MultipleNegativesRankingLoss(torch.nn.Identity(), scale=_SCALE)  # type: ignore[arg-type]


def _in_float64(queries: Any, documents: Any) -> Any:
    """Return both gradients by the formula itself, in float64."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    left, right = (rows.detach().double().requires_grad_() for rows in (queries, documents))
    logits = _SCALE * normalize(left, dim=-1) @ normalize(right, dim=-1).T
    return torch.autograd.grad(cross_entropy(logits, torch.arange(len(left))), (left, right))


def _difference(own: Any, theirs: Any) -> float:
    """Return the largest difference of gradients over the largest gradient."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(own, theirs, strict=True))


CASES: dict[str, Case] = {"": workload}
