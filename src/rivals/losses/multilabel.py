"""Asymmetric losses: labels that may all be true at once, few of them, and negatives that may be wrong."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses._classes import class_log_probabilities, one_hot, own_class, reduce_rows
from rivals.losses._common import Reduction, check_at_least_zero, check_lists, reduce_lists
from rivals.losses._focal import focusing_weight
from rivals.losses._sets import check_unit_interval, safe_ratio

__all__ = ["AdaptiveAsymmetricLoss", "asymmetric_loss", "asymmetric_softmax_loss"]


def asymmetric_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    detach_weight: bool = True,
    eps: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss with separate exponents for positives and negatives, and nothing at all for easy negatives.

    Formula:
        p = sigmoid(s),  n = min(1 - p + clip, 1),  y = relevance in [0, 1],  and per candidate

        l = - (1 - p_t)^(gamma_pos y + gamma_neg (1 - y)) [ y log p + (1 - y) log n ],  p_t = y p + (1 - y) n.

        For y = 1 this is -(1 - p)^gamma_pos log p; for y = 0, with p_m = max(p - clip, 0), it is
        -p_m^gamma_neg log(1 - p_m). L = mean of w_i l_i over the known candidates of the batch. The power is a constant
        in the gradient with `detach_weight`. `eps` > 0 keeps p and n at or above it inside the logarithms.

    Shapes:
        scores float[..., C], relevance float[..., C] in [0, 1], mask bool[..., C] (False = unknown label),
        weight float[..., C] >= 0 -> scalar, or float[...] with reduction="none".

    When to use:
        Tens of labels with a few positives each, or many presumed negatives some of which are wrong. Probabilities are
        no longer calibrated (p rises by about clip): tune the threshold, or judge by mAP.

    Relations:
        Gammas 0 and clip 0: `binary_cross_entropy_loss`. Both gammas equal, clip 0, detach_weight=False:
        `sigmoid_focal_loss` with alpha None. `AdaptiveAsymmetricLoss` chooses gamma_neg while training.

    Source:
        Ridnik et al. (2021), eqs. 4 to 7; soft labels as in the authors' code. Papers 24, 80, 91. Defaults are those of
        the paper's training (the code's class has gamma_pos 1). The code sums over all entries; use reduction="sum"
        with its learning rates. It clamps p at 1e-8 (eps), which takes the gradient from hopelessly wrong positives;
        by default the stable logarithm without a clamp is used.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, relevance outside [0, 1] or
        negative weight at a candidate that is there, a gamma < 0, clip or eps outside [0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> asymmetric_loss(torch.tensor([[0.0, -4.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.3466)
    """
    for value, name in ((gamma_pos, "gamma_pos"), (gamma_neg, "gamma_neg")):
        check_at_least_zero(value, name)
    for value, name in ((clip, "clip"), (eps, "eps")):
        if not 0 <= value < 1:
            raise RivalsError(f"{name} must lie in 0..1, 1 excluded; got {value!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    check_unit_interval(lists.relevance, "relevance")
    wanted, unwanted = lists.relevance, 1 - lists.relevance
    log_positive = F.logsigmoid(lists.scores)
    missing, shifted = (-lists.scores).sigmoid(), (lists.scores.sigmoid() - clip).relu()
    log_negative = (missing + clip).clamp(max=1.0).log() if clip else F.logsigmoid(-lists.scores)
    if eps:
        log_positive, log_negative = (value.clamp(min=math.log(eps)) for value in (log_positive, log_negative))
    loss = -(wanted * log_positive + unwanted * log_negative)
    if gamma_pos or gamma_neg:
        shortfall = wanted * missing + unwanted * shifted
        loss = loss * focusing_weight(shortfall, gamma_pos * wanted + gamma_neg * unwanted, detach=detach_weight)
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def asymmetric_softmax_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    label_smoothing: float = 0.1,
    detach_weight: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric focal loss of a softmax over classes, with label smoothing.

    Formula:
        p = softmax(logits),  v_k = (1 - p_k)^gamma_pos at the label, p_k^gamma_neg elsewhere,
        t_k = [k = label] (1 - a) + a / K with a = `label_smoothing`;  L = mean over the examples of
        - w_n sum_k t_k v_k log p_k. The smoothing comes after v; v is a constant in the gradient with `detach_weight`.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0
        -> scalar, or float[N] with reduction="none".

    When to use:
        One class an example, when `asymmetric_loss` serves the multi-label tasks of the same model.

    Relations:
        Without smoothing only the label's term is left: `focal_loss` with gamma = gamma_pos. Gammas 0:
        `cross_entropy_loss` with that smoothing.

    Source:
        Ridnik et al. (2021), code (single-label class); the paper has the multi-label form only. Paper 24.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, a gamma < 0, label_smoothing outside [0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> asymmetric_softmax_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6607)
    """
    for value, name in ((gamma_pos, "gamma_pos"), (gamma_neg, "gamma_neg")):
        check_at_least_zero(value, name)
    if not 0 <= label_smoothing < 1:
        raise RivalsError(f"label_smoothing must lie in 0..1, 1 excluded; got {label_smoothing!r}")
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, reduction)
    own = own_class(log_probability, rows.labels)
    right = focusing_weight(-own.expm1(), gamma_pos, detach=detach_weight) * own
    loss = -(1 - label_smoothing) * right
    if label_smoothing:
        power = (gamma_neg * log_probability).exp()  # p^gamma_neg, with a finite slope at p = 0
        others = (power.detach() if detach_weight else power) * log_probability
        others = others.masked_fill(one_hot(rows.labels, others) > 0, 0.0)
        loss = loss - label_smoothing / logits.shape[1] * (others.sum(1) + right)
    return reduce_rows(loss, rows, reduction)


class AdaptiveAsymmetricLoss(nn.Module):
    """`asymmetric_loss` whose gamma_neg follows how much surer the model is of positives than of negatives.

    Every training step measures gap = mean over positives of p - mean over negatives of (1 - p), and then sets
    gamma_neg = max(gamma_neg + rate (target - gap), 0): while positives lag behind the target, negatives count less. A
    batch without a positive or a negative changes nothing; in evaluation mode gamma_neg stands still. It is saved
    with the module.

    Args:
        target: the gap to reach; the paper tries 0.1 to 0.3.
        rate: the step of gamma_neg per unit of gap (the paper gives none).
        gamma_neg: where it starts.
        clip, detach_weight, reduction: as in `asymmetric_loss`; gamma_pos is 0.

    Source: Ridnik et al. (2021), section 2.4. Paper 24. The paper's sign could not be verified; this one lowers the
    weight of negatives when positives are behind, as its text says.

    Raises:
        RivalsError: target outside (-1, 1), rate or gamma_neg < 0; what `asymmetric_loss` raises.

    >>> loss = AdaptiveAsymmetricLoss(target=0.2, rate=1.0, gamma_neg=2.0)
    >>> value = loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # both at 0.5: a gap of 0
    >>> loss.gamma_neg
    tensor(2.2000)
    """

    gamma_neg: Tensor

    def __init__(
        self,
        *,
        target: float = 0.1,
        rate: float = 0.05,
        gamma_neg: float = 0.0,
        clip: float = 0.05,
        detach_weight: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not -1 < target < 1:
            raise RivalsError(f"target must lie between -1 and 1; got {target!r}")
        check_at_least_zero(rate, "rate")
        check_at_least_zero(gamma_neg, "gamma_neg")
        self.target, self.rate = target, rate
        self.clip, self.detach_weight, self.reduction = clip, detach_weight, reduction
        self.register_buffer("gamma_neg", torch.tensor(float(gamma_neg)))

    def forward(
        self, scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        """Move gamma_neg by this batch (in training mode) and return the loss."""
        if self.training:
            self._move(scores.detach(), relevance, mask)
        return asymmetric_loss(
            scores,
            relevance,
            mask,
            weight=weight,
            gamma_neg=self.gamma_neg.item(),
            clip=self.clip,
            detach_weight=self.detach_weight,
            reduction=self.reduction,
        )

    def _move(self, scores: Tensor, relevance: Tensor, mask: Tensor | None) -> None:
        lists = check_lists(scores, relevance, mask, None, "none")
        positive, negative = lists.relevance > 0, lists.mask & ~(lists.relevance > 0)
        sure = lists.scores.sigmoid()
        gap = safe_ratio((sure * positive).sum(), positive.sum())
        gap = gap - safe_ratio(((1 - sure) * negative).sum(), negative.sum())
        step = self.rate * (self.target - gap) * (positive.any() & negative.any())
        self.gamma_neg.copy_((self.gamma_neg + step).clamp(min=0.0))
