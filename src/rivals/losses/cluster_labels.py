"""Clusters as classes: the nearest centres of an item are its labels, and a few of the many classes are its rivals."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_lists,
    check_positive,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import unit_rows

__all__ = [
    "SampledClasses",
    "SampledPrototypes",
    "log_sum_exp_multilabel_loss",
    "nearest_centers",
    "sample_classes",
]


def log_sum_exp_multilabel_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    mode: Literal["separate", "relative"] = "separate",
    scale: float = 1.0,
    margin: float = 0.0,
    threshold: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-label loss that pulls all positives above a boundary and pushes all negatives below it.

    Formula:
        With s = scale (x - margin at positives) - threshold, over positives p and negatives n:

        - mode="separate": L = log(1 + sum_p w_p e^{-s_p}) + log(1 + sum_n w_n e^{s_n});
        - mode="relative": L = log(1 + sum_n w_n e^{s_n} sum_p w_p e^{-s_p}); 0 without a positive or a negative.

        Mean over the lists that have a candidate; a sum over nothing adds 0.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: a positive), mask bool[..., C] (False: unknown label),
        weight float[..., C] >= 0 -> scalar, or float[...] with reduction="none".

    When to use:
        Several labels an item among very many, above all cluster centres as labels; unlike a softmax, scores get an
        absolute meaning (the boundary). Cosines need a scale (32): at scale 1 the loss cannot come near 0.

    Relations:
        "separate" adds to the logarithm of "relative" the two sums that fix the boundary, so it is never smaller. One
        positive and one negative: `binary_cross_entropy_loss`, summed. "relative" is `unified_pair_loss` with scale 1
        and margin 0. weight = 1 / r at negatives sampled with rate r estimates the loss over all of them.

    Source:
        An et al. (2024), MLCD, eqs. 4 (relative) and 5 (separate). Paper 71. Scale and margin are not printed there;
        CosFace practice is scale 32 to 64, margin 0.3 to 0.5 on cosines.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scale <= 0, a margin or threshold that is not finite, an unknown mode or
        reduction.

    Example:
        >>> import torch
        >>> scores, relevance = torch.tensor([[0.4, 0.8, 0.1, 0.5]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
        >>> [round(log_sum_exp_multilabel_loss(scores, relevance, mode=m).item(), 4) for m in ("separate", "relative")]
        [2.074, 1.4069]
    """
    check_choice(mode, ("separate", "relative"), "mode")
    check_positive(scale, "scale")
    for value, name in ((margin, "margin"), (threshold, "threshold")):
        if not math.isfinite(value):
            raise RivalsError(f"{name} must be a finite number; got {value!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    logits = scale * (lists.scores - margin * positive) - threshold
    pull, some = _log_sum(-logits, positive, lists.weight)
    push, others = _log_sum(logits, negative, lists.weight)
    if mode == "relative":
        total = _log_one_plus(pull + push, some & others)
    else:
        total = _log_one_plus(pull, some) + _log_one_plus(push, others)
    return reduce_lists(total, lists.mask.any(-1), reduction)


def _log_sum(logits: Tensor, there: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log sum of w e^logit of each list, and whether anything is there."""
    if weight is not None:
        there = there & (weight > 0)
        logits = logits + weight.masked_fill(~there, 1.0).log()
    return masked_logsumexp(logits, there), there.any(-1)


def _log_one_plus(exponent: Tensor, there: Tensor) -> Tensor:
    return -F.logsigmoid(-exponent).masked_fill(~there, 0.0)


def nearest_centers(
    features: Tensor, centers: Tensor, *, top: int = 8, min_similarity: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return each row's `top` centres of highest cosine, best first, and which of them are similar enough.

    Shapes: features float[N, D], centers float[K, D] -> int64[N, top], bool[N, top] (all True without
    min_similarity). O(N K D), in blocks of rows.

    Source: An et al. (2024), MLCD, section 3 (8 centres). Paper 71.

    Raises:
        RivalsError: top below 1 or above the number of centres, shapes or dtypes that do not fit.

    >>> nearest_centers(torch.tensor([[1.0, 0.1]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]]), top=2, min_similarity=0.5)
    (tensor([[1, 0]]), tensor([[ True, False]]))
    """
    check_scores(features, "features", ndim=2)
    check_scores(centers, "centers", ndim=2)
    check_shape(centers, (len(centers), features.shape[1]), "centers", features.device)
    if not 1 <= top <= len(centers):
        raise RivalsError(f"top must lie in 1..{len(centers)}, the number of centers; got {top!r}")
    with torch.no_grad():
        unit = unit_rows(centers.to(compute_dtype(centers)))
        size = max(1, (1 << 24) // len(centers))
        best = [
            (unit_rows(block.to(unit.dtype)) @ unit.T).topk(top, dim=1) for block in features.split(size) if len(block)
        ]
        if not best:
            empty = torch.zeros(0, top, dtype=torch.int64, device=features.device)
            return empty, empty.bool()
        cosine, index = torch.cat([found.values for found in best]), torch.cat([found.indices for found in best])
    return index, torch.ones_like(index, dtype=torch.bool) if min_similarity is None else cosine >= min_similarity


def sample_classes(
    positives: Tensor, num_classes: int, *, ratio: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Return the classes to compare with in a step: all positives and an even draw of others, rising.

    Shapes: positives int64[...], the classes that must be there -> int64[max(int(ratio * num_classes), number of
    different positives)].

    Source: An et al. (2022), PartialFC; An et al. (2024), MLCD, section 3.3 (ratio 0.1). Paper 71.

    Raises:
        RivalsError: ratio outside (0, 1], positives outside 0..num_classes - 1, ratio < 1 without a generator.

    >>> sample_classes(torch.tensor([7, 2, 7]), 10, ratio=0.2, generator=torch.Generator())
    tensor([2, 7])
    """
    if not (math.isfinite(ratio) and 0 < ratio <= 1):
        raise RivalsError(f"ratio must lie in (0, 1]; got {ratio!r}")
    if positives.numel() and not 0 <= int(positives.min()) <= int(positives.max()) < num_classes:
        raise RivalsError(f"positives must lie in 0..{num_classes - 1}; found {int(positives.max())}")
    if ratio == 1:
        return torch.arange(num_classes, device=positives.device)
    if generator is None:
        raise RivalsError("classes are drawn at random; give generator=torch.Generator(), or ratio=1")
    kept = positives.unique()
    size = max(int(ratio * num_classes), len(kept))
    priority = torch.rand(num_classes, generator=generator, device=generator.device).to(positives.device)
    priority[kept] = 2.0
    return priority.topk(size).indices.sort().values


class SampledClasses(NamedTuple):
    """Cosines with the classes of one step, float[N, S], which of them are positives, bool[N, S], and their numbers."""

    scores: Tensor
    relevance: Tensor
    classes: Tensor


class SampledPrototypes(nn.Module):
    """A learnt vector for each of very many classes, of which every step compares with a sample.

    Args: num_classes, dim; sample_ratio, the share of the classes a step sees; generator, for the first vectors. The
    module is called with embeddings float[N, dim], their positive classes int64[N, P] and, where rows have fewer
    positives, a mask bool[N, P]; it returns `SampledClasses`, whose scores (cosines) and relevance go to
    `log_sum_exp_multilabel_loss(..., scale=32)` or any other ranking loss. Vectors that were not sampled get a gradient
    of 0. In evaluation mode all classes are compared. O(N S dim) and one pass over the classes' numbers.

    Source: An et al. (2022), PartialFC; An et al. (2024), MLCD, section 3.3. Paper 71.

    Raises:
        RivalsError: sample_ratio outside (0, 1], shapes or dtypes that do not fit, positives that are no classes,
        training without a generator.

    >>> draw = torch.Generator().manual_seed(0)
    >>> prototypes = SampledPrototypes(100, 4, generator=draw)
    >>> step = prototypes(torch.randn(2, 4, generator=draw), torch.tensor([[3, 7], [7, 9]]), generator=draw)
    >>> step.scores.shape, step.relevance.sum(1).tolist(), bool(torch.isin(torch.tensor([3, 7, 9]), step.classes).all())
    (torch.Size([2, 10]), [2, 2], True)
    """

    def __init__(
        self, num_classes: int, dim: int, *, sample_ratio: float = 0.1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if not (math.isfinite(sample_ratio) and 0 < sample_ratio <= 1):
            raise RivalsError(f"sample_ratio must lie in (0, 1]; got {sample_ratio!r}")
        self.sample_ratio = sample_ratio
        self.vectors = nn.Parameter(torch.randn(num_classes, dim, generator=generator) * 0.01)

    def forward(
        self,
        embeddings: Tensor,
        positives: Tensor,
        positive_mask: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> SampledClasses:
        """Return the cosines with this step's classes and which of them are positives."""
        check_scores(embeddings, "embeddings", ndim=2)
        check_shape(embeddings, (len(embeddings), self.vectors.shape[1]), "embeddings", self.vectors.device)
        check_shape(positives, (len(embeddings), positives.shape[-1]), "positives", embeddings.device)
        there = torch.ones_like(positives, dtype=torch.bool) if positive_mask is None else positive_mask
        check_shape(there, tuple(positives.shape), "positive_mask", embeddings.device)
        ratio = self.sample_ratio if self.training else 1.0
        classes = sample_classes(positives[there], len(self.vectors), ratio=ratio, generator=generator)
        row, _ = there.nonzero(as_tuple=True)
        relevance = torch.zeros(len(embeddings), len(classes), dtype=torch.bool, device=embeddings.device)
        relevance[row, torch.searchsorted(classes, positives[there])] = True
        dtype = compute_dtype(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            scores = unit_rows(embeddings.to(dtype)) @ unit_rows(self.vectors[classes].to(dtype)).T
        return SampledClasses(scores, relevance, classes)
