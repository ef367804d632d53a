"""Ranking losses where an order is worth money: bids times click probabilities."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Checked,
    Reduction,
    check_choice,
    check_like,
    check_lists,
    check_not_negative,
    check_positive,
    reduce_lists,
)
from rivals.losses._fused.pairs import Hinge, Kernel, Logistic, PairTerm, all_pairs, ordered_pairs, pair_sums

__all__ = ["welfare_rank_loss"]


def welfare_rank_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    value: Tensor,
    labels: Literal["clicks", "teacher"] = "clicks",
    weighting: Literal["value", "positive_difference", "signed"] | None = None,
    surrogate: Literal["logistic", "hinge"] = "logistic",
    sigma: float = 1.0,
    from_logits: bool = False,
    normalize_value: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Pairs of ads in an auction, each weighted by the welfare that ordering it wrongly loses.

    Formula:
        z_i = b_i f_i, v_i = b_i t_i with bid b = `value` (over the batch's mean bid with `normalize_value`), predicted
        click rate f = `scores` and click or teacher's rate t = `relevance`; phi(d) = log(1 + e^{-sigma d}), or max(0,
        1 - sigma d) for the hinge. Over ordered pairs i != j of an auction:

        - weighting="value": L = sum v_i phi(z_i - z_j), averaged over the pairs with v_i > 0. Linear in the clicks,
          hence unbiased; the default for labels="clicks".
        - weighting="positive_difference": L = sum (v_i - v_j)_+ phi(z_i - z_j), averaged over the pairs with v_i > v_j.
          For labels without noise; the default for labels="teacher".
        - weighting="signed": L = sum (v_i - v_j) phi(z_i - z_j) over all pairs. With the logistic surrogate that is
          linear in z and without bound: to test identities, not to train.

        "mean" averages inside every auction and then over the auctions that have such a pair.

    Shapes:
        scores float[..., C] in 0..1 (logits with from_logits), relevance [..., C] in 0..1, mask bool[..., C],
        value float[..., C] > 0 -> scalar, or float[...] with reduction="none".

    When to use:
        Advertising, or any ranking by price times probability. Add a cross entropy: this loss alone does not calibrate.

    Relations:
        All values 1: `pairwise_logistic_loss` of the rates with relevant-only weights. `lambda_loss` weighs by measures.

    Source:
        Lyu et al. (2023), Pairwise ranking losses of click-through rates prediction for welfare maximisation in ad
        auctions. Paper 53. Which surrogate the paper prints is not known; both carry its guarantees.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, relevance or scores outside 0..1,
        value <= 0 at an ad that is there, sigma <= 0, an unknown labels, weighting, surrogate or reduction.

    Example:
        >>> import torch
        >>> rates, clicks = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
        >>> welfare_rank_loss(rates, clicks, value=torch.tensor([[2.0, 2.0]]))
        tensor(0.6931)
    """
    check_choice(labels, ("clicks", "teacher"), "labels")
    check_choice(surrogate, ("logistic", "hinge"), "surrogate")
    check_choice(weighting, (None, "value", "positive_difference", "signed"), "weighting")
    check_positive(sigma, "sigma")
    weighting = weighting or ("value" if labels == "clicks" else "positive_difference")
    lists = check_lists(scores, relevance, mask, None, reduction)
    check_like(value, scores, "value")
    bid = value.to(lists.scores.dtype).masked_fill(~lists.mask, 0.0).detach()
    _check_rates(lists, bid, from_logits)
    if normalize_value:
        bid = bid * (lists.mask.sum() / bid.sum().clamp(min=1e-12))
    rate = lists.scores.sigmoid() if from_logits else lists.scores
    worth = bid * lists.relevance
    # The kernels know sigma = 1 only, so z carries it; a hinge of margin 1 on sigma z is max(0, 1 - sigma d).
    ranked = lists._replace(scores=sigma * bid * rate)
    kernel: Kernel = Logistic() if surrogate == "logistic" else Hinge(1.0)
    place = lists.mask.long().cumsum(-1)
    if weighting == "positive_difference":
        pairs = ordered_pairs(worth, lists.mask)
        sums = pair_sums(ranked, kernel, pairs=pairs, pair_weight=PairTerm(_gap, (worth,)))
        number = sums.number
    else:
        chosen = lists.mask & (worth > 0) if weighting == "value" else lists.mask
        term = PairTerm(_own if weighting == "value" else _gap, (worth, place))
        sums = pair_sums(ranked, kernel, pairs=all_pairs(chosen, lists.mask), pair_weight=term)
        number = chosen.sum(-1) * (lists.mask.sum(-1) - 1).clamp(min=0)
    total = sums.total.masked_fill(number == 0, 0.0)
    if reduction != "mean":
        return reduce_lists(total, number, reduction)
    return reduce_lists(total, number, "list_mean")


def _gap(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    return first[0] - second[0]


def _own(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    return first[0] * (first[1] != second[1])


def _check_rates(lists: Checked, bid: Tensor, from_logits: bool) -> None:
    check_not_negative(bid, "value")
    if lists.scores.device.type != "cpu" or lists.scores.numel() == 0:
        return
    if bool((lists.relevance > 1).any()):
        raise RivalsError("relevance must be click rates or clicks in 0..1; found one above 1")
    if bool(((bid <= 0) & lists.mask).any()):
        raise RivalsError("value must be above 0 wherever there is an ad; found 0")
    if not from_logits and bool((lists.scores.detach().abs() > 1 + 1e-4).any()):
        raise RivalsError("scores must be click rates in 0..1; give logits with from_logits=True")
