"""Label-distributionally robust losses: the worst weighting of the margin violations, held near the uniform one."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    check_shape,
    reduce_lists,
)
from rivals.losses._positives import Positives, positives_of

__all__ = ["AdaptiveLDRLoss", "adaptive_temperatures", "ldr_loss", "normalize_scores"]

Normalize = Literal["none", "l1", "softplus_l1"]


def ldr_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    margin: float = 0.1,
    normalize: Normalize = "none",
    top_k: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """LDR loss: the worst weighting of the margin violations of a list, held near the uniform one by a temperature.

    Formula:
        For a positive p among n negatives: d_p = 0 and d_k = s_k - s_p + margin. Over these K = n + 1 candidates

        - LDR-KL: max over weights v on the simplex of sum v_k d_k - t KL(v, 1/K)  =  t log( (1/K) sum_k e^{d_k / t} )
        - LDR-k (`top_k`): the constraint v_k <= 1/k in place of the KL term, the mean of the k largest d_k.

        L_q = mean over the positives of the list; mean over the lists with a positive. `normalize` divides the
        scores of a list first: `normalize_scores`.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it), temperature a number or float[...] (one a list)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Labels with noise: a high temperature trusts no single violation, a low one pushes on the worst. A temperature
        of 0.1 to 1 on clean labels, about 10 at heavy noise, chosen on validation data. It can be negative.

    Relations:
        temperature 1, margin 0: `info_nce_loss` at temperature 1 minus log K. temperature -> 0 or top_k=1: the largest
        violation (Crammer and Singer's hinge). temperature -> infinity or top_k >= K: the mean violation, which is
        symmetric in the labels. `AdaptiveLDRLoss` learns a temperature per example.

    Source:
        Zhu, Ying and Yang (2023); top-k after Lapin et al. (2015). Paper 89. The reference code
        (LDRLoss_V1) always uses normalize="softplus_l1", and its class a margin of 2; other positives of a list are
        left out of a positive's sum.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, temperature <= 0, margin < 0, top_k < 1, an unknown normalize or reduction.

    Example:
        >>> import torch
        >>> ldr_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), margin=0.0)
        tensor(-0.6910)
    """
    check_at_least_zero(margin, "margin")
    if top_k is not None and top_k < 1:
        raise RivalsError(f"top_k must be at least 1; got {top_k}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    values = _normalized(lists.scores, positives.multiplicity, normalize)
    if top_k is not None:
        total = _largest(values, positives, margin, top_k)
    else:
        total = _worst_weighting(values, positives, margin, _per_list(temperature, values))
    return reduce_lists(total, positives.counted, reduction)


def normalize_scores(scores: Tensor, mask: Tensor | None = None, *, kind: Normalize = "l1") -> Tensor:
    """Divide the scores of every list by their mean absolute value ("l1"), after a softplus if "softplus_l1".

    Shapes: scores float[..., C], mask bool[..., C] -> float[..., C], 0 at absent candidates. A list of zeros stays as
    it is. The gradient goes through the divisor.

    Source: Zhu, Ying and Yang (2023), reference code. Paper 89.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, an unknown kind.

    >>> normalize_scores(torch.tensor([[3.0, -1.0]]))
    tensor([[ 1.5000, -0.5000]])
    """
    lists = check_lists(scores, torch.zeros_like(scores), mask, None, "none")
    return _normalized(lists.scores, lists.mask.to(lists.scores.dtype), kind)


def adaptive_temperatures(
    scores: Tensor,
    temperatures: Tensor,
    mask: Tensor | None = None,
    *,
    initial: float = 1.0,
    alpha: float = 2.0,
    smoothing: float = 1e-5,
) -> Tensor:
    """Return every list's next temperature: low where the softmax at the present one is sure, `initial` where uniform.

    t' = t0 (1 - KL(p, 1/K) / (alpha log K)),  p = softmax(s / t) + smoothing, divided by its sum; one step towards the
    temperature that maximises LDR-KL minus (alpha log K / 2 t0) (t - t0)^2.

    Shapes: scores float[..., C] (normalised if the loss's are), temperatures float[...], mask bool[..., C]
    -> float[...] without gradient; t0 for a list of fewer than two candidates.

    Source: Zhu, Ying and Yang (2023), ALDR-KL. Paper 89.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, initial <= 0, alpha <= 1, smoothing < 0.

    >>> adaptive_temperatures(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.ones(2))
    tensor([1.0000, 0.5010])
    """
    check_positive(initial, "initial")
    check_at_least_zero(smoothing, "smoothing")
    if not alpha > 1:
        raise RivalsError(f"alpha must be above 1, or temperatures could reach 0; got {alpha!r}")
    lists = check_lists(scores, torch.zeros_like(scores), mask, None, "none")
    check_shape(temperatures, tuple(scores.shape[:-1]), "temperatures", scores.device)
    with torch.no_grad():
        present = temperatures.to(lists.scores.dtype).unsqueeze(-1)
        size = lists.mask.sum(-1, keepdim=True).to(lists.scores.dtype)
        share = (masked_log_softmax(lists.scores / present, lists.mask).exp() + smoothing).masked_fill(~lists.mask, 0.0)
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-12)
        divergence = torch.special.xlogy(share, size * share).sum(-1)
        log_size = size.squeeze(-1).log()
        return initial - initial * (divergence / (alpha * log_size)).masked_fill(size.squeeze(-1) < 2, 0.0)


class AdaptiveLDRLoss(nn.Module):
    """ALDR-KL: an LDR-KL loss with a temperature per training example, high for the examples it is unsure of.

    L_i = LDR-KL at t_i minus (alpha log K / 2 t0) (t_i - t0)^2, with t_i updated by `adaptive_temperatures` before the
    loss is taken (in training mode; in eval mode the stored temperatures are used as they are).

    Shapes: forward(scores [N, C], relevance [N, C], examples int64[N], mask [N, C]) -> scalar, or float[N] with
    reduction="none". An example without a positive neither counts nor changes its temperature; one that occurs twice
    in a batch keeps what its last occurrence gives. The temperatures are a buffer, saved with the module: they belong
    to the numbering of the training set.

    Source: Zhu, Ying and Yang (2023), ALDR-KL; the reference code's ALDRLoss_V1 is normalize="l1".
    Paper 89.

    Raises:
        RivalsError: num_examples < 1, temperature <= 0, alpha <= 1, margin < 0, an example outside
        0..num_examples - 1, and what `ldr_loss` raises.

    >>> adaptive = AdaptiveLDRLoss(10)
    >>> loss = adaptive(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([4]))
    >>> adaptive.noise_scores()[3:5]
    tensor([1.0000, 0.8788])
    """

    temperatures: Tensor

    def __init__(
        self,
        num_examples: int,
        *,
        temperature: float = 1.0,
        alpha: float = 2.0,
        margin: float = 0.1,
        normalize: Normalize = "l1",
    ) -> None:
        super().__init__()
        if num_examples < 1:
            raise RivalsError(f"num_examples must be at least 1; got {num_examples}")
        check_positive(temperature, "temperature")
        check_at_least_zero(margin, "margin")
        check_choice(normalize, get_args(Normalize), "normalize")
        if not alpha > 1:
            raise RivalsError(f"alpha must be above 1, or temperatures could reach 0; got {alpha!r}")
        self.temperature, self.alpha, self.margin, self.normalize = temperature, alpha, margin, normalize
        self.register_buffer("temperatures", torch.full((num_examples,), float(temperature)))

    def forward(
        self,
        scores: Tensor,
        relevance: Tensor,
        examples: Tensor,
        mask: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Update the temperatures of the examples (in training mode), then return the loss at them."""
        lists = check_lists(scores, relevance, mask, None, reduction)
        counted = positives_of(lists).counted
        examples = self._checked(examples, counted)
        values = _normalized(lists.scores, lists.mask.to(lists.scores.dtype), self.normalize)
        if self.training:
            self._update(values.detach(), lists.mask, examples, counted)
        present = self.temperatures[examples].to(values.dtype)
        losses = ldr_loss(
            values, lists.relevance, lists.mask, temperature=present, margin=self.margin, reduction="none"
        )
        log_size = lists.mask.sum(-1).clamp(min=1).to(values.dtype).log()
        penalty = self.alpha * log_size / (2 * self.temperature) * (present - self.temperature).square()
        return reduce_lists((losses - penalty).masked_fill(~counted, 0.0), counted, reduction)

    def noise_scores(self) -> Tensor:
        """Return a copy of the temperatures: the higher, the less sure the model is of an example's label."""
        return self.temperatures.clone()

    def _update(self, values: Tensor, mask: Tensor, examples: Tensor, counted: Tensor) -> None:
        examples, values, mask = examples[counted], values[counted], mask[counted]
        if not len(examples):
            return
        present = self.temperatures[examples].to(values.dtype)
        found = adaptive_temperatures(values, present, mask, initial=self.temperature, alpha=self.alpha)
        distinct, place = examples.unique(return_inverse=True)
        rows = torch.arange(len(examples), device=examples.device)
        last = torch.zeros_like(distinct).scatter_reduce(0, place, rows, "amax")
        self.temperatures[distinct] = found[last].to(self.temperatures.dtype)

    def _checked(self, examples: Tensor, counted: Tensor) -> Tensor:
        """Return the numbers of the examples, 0 at those that do not count."""
        check_shape(examples, tuple(counted.shape), "examples", counted.device)
        if examples.is_floating_point() or examples.dtype == torch.bool:
            raise RivalsError(f"examples must be whole numbers, the place of each in the data; got {examples.dtype}")
        examples = examples.masked_fill(~counted, 0)
        if examples.numel() and examples.device.type == "cpu":
            lowest, highest = torch.aminmax(examples)
            if lowest < 0 or highest >= len(self.temperatures):
                raise RivalsError(
                    f"examples must lie in 0..{len(self.temperatures) - 1}; found {int(lowest)} to {int(highest)}"
                )
        return examples


def _normalized(scores: Tensor, count: Tensor, kind: Normalize) -> Tensor:
    check_choice(kind, get_args(Normalize), "normalize")
    if kind == "none":
        return scores
    if kind == "softplus_l1":
        scores = F.softplus(scores)
    scores = scores.masked_fill(count == 0, 0.0)
    mean = (count * scores.abs()).sum(-1, keepdim=True) / count.sum(-1, keepdim=True).clamp(min=1e-12)
    return scores / mean.clamp(min=1e-12)


def _per_list(temperature: float | Tensor, scores: Tensor) -> Tensor:
    """Return the temperature as a tensor that broadcasts against [..., C]."""
    if not isinstance(temperature, Tensor):
        check_positive(temperature, "temperature")
        return torch.as_tensor(temperature, dtype=scores.dtype, device=scores.device)
    if temperature.ndim:
        check_shape(temperature, tuple(scores.shape[:-1]), "temperature", scores.device)
    if temperature.device.type == "cpu" and not (temperature > 0).all():
        raise RivalsError(f"temperature must be above 0; found {float(temperature.min())}")
    temperature = temperature.to(compute_dtype(scores))
    return temperature.unsqueeze(-1) if temperature.ndim else temperature


def _worst_weighting(scores: Tensor, positives: Positives, margin: float, temperature: Tensor) -> Tensor:
    """Return each list's mean over its positives of t log mean e^{d / t}."""
    negative = positives.negative
    count = positives.multiplicity.masked_fill(~negative, 1.0)
    rivals = masked_logsumexp((scores + margin) / temperature + count.log(), negative).unsqueeze(-1)
    size = 1 + positives.multiplicity.masked_fill(~negative, 0.0).sum(-1, keepdim=True)
    losses = temperature * (-F.logsigmoid(scores / temperature - rivals) - size.log())
    chosen = (positives.share > 0) & negative.any(-1, keepdim=True)
    return (positives.share * losses.masked_fill(~chosen, 0.0)).sum(-1)


def _largest(scores: Tensor, positives: Positives, margin: float, top_k: int) -> Tensor:
    """Return each list's mean over its positives of the mean of the k largest violations, counted with multiplicity."""
    if scores.shape[-1] == 0:
        return scores.sum(-1)
    width = max(1, int((positives.share > 0).sum(-1).max())) if positives.share.numel() else 1
    share, column = positives.share.topk(width, dim=-1)
    violation = scores.unsqueeze(-2) - scores.gather(-1, column).unsqueeze(-1) + margin  # [..., P, C]
    own = torch.zeros_like(violation[..., :1])
    violation = torch.cat([own, violation.masked_fill(~positives.negative.unsqueeze(-2), float("-inf"))], -1)
    count = positives.multiplicity.masked_fill(~positives.negative, 0.0).unsqueeze(-2).expand_as(violation[..., 1:])
    count = torch.cat([torch.ones_like(own), count], -1)
    violation, order = violation.sort(dim=-1, descending=True, stable=True)
    before = count.gather(-1, order).cumsum(-1) - count.gather(-1, order)
    taken = torch.minimum(count.gather(-1, order), (top_k - before).clamp(min=0))
    kept = violation.masked_fill(taken == 0, 0.0)
    mean = (taken * kept).sum(-1) / taken.sum(-1)
    return (share * mean).sum(-1)
