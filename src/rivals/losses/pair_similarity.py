"""Losses over an anchor's similarities to its positives and negatives: each list's scores against each other.

The scores are similarities of one anchor (query) with its candidates, mostly cosines. `losses/metric.py` has the same
losses straight from labelled embeddings.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Checked,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
)
from rivals.losses._pair_terms import (
    Mining,
    PairReduction,
    Pairs,
    circle_terms,
    dense_pairs,
    multi_similarity_terms,
    reduce_parts,
    split_reduction,
    triplet_terms,
    unified_terms,
    warn_if_none,
)
from rivals.losses.mining import check_epsilon

__all__ = ["circle_loss", "multi_similarity_loss", "triplet_loss", "unified_pair_loss"]

EmptyAnchor = Literal["skip", "partial"]
Pairing = Literal["row", "batch"]


def multi_similarity_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 0.5,
    epsilon: float | None = 0.1,
    empty_anchor: EmptyAnchor = "skip",
    reduction: PairReduction = "mean",
) -> Tensor:
    """Multi-similarity loss: pairs that compete are kept, and weighted by themselves and by the pairs beside them.

    Formula:
        L_q = log(1 + sum_p w_p e^{-alpha (s_p - t)}) / alpha + log(1 + sum_n w_n e^{beta (s_n - t)}) / beta,
        t = `threshold`, over the pairs that `relative_similarity_miner(epsilon)` keeps (all of them with
        epsilon=None). empty_anchor="skip": a list left without positives or without negatives is worth 0; "partial":
        the other half counts. Mean over all lists that have a candidate, those worth 0 included; "mean_positive" is
        the mean over the others.

    Shapes:
        scores float[..., C] (cosines), relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (how
        many times a candidate counts) -> scalar, or float[...] with reduction="none".

    When to use:
        Similarities of anchors with labelled candidates, a few knobs that hardly need turning. From embeddings with
        labels: `in_batch_multi_similarity_loss`.

    Relations:
        One positive, one negative, no mining: binomial deviance. alpha, beta to infinity: max_p (t - s_p)+ and
        max_n (s_n - t)+. `pair_weights` shows the weights; the gradient is w+_p = 1 / (e^{-alpha (t - s_p)} +
        sum e^{-alpha (s_m - s_p)}), and so for negatives.

    Source:
        Wang et al. (2019), eqs. 11 to 15. Paper 41. Defaults alpha, beta and epsilon are the paper's; its threshold is
        1, that of its code and of pytorch-metric-learning 0.5, followed here. "skip" is what the authors' code does,
        "partial" what pytorch-metric-learning does; the authors' code also leaves out exact duplicates of the anchor,
        not so here.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, alpha or beta <= 0, epsilon < 0, an unknown empty_anchor or reduction.

    Example:
        >>> import torch
        >>> multi_similarity_loss(torch.tensor([[0.6, 0.7, 0.2]]), torch.tensor([[1.0, 0.0, 0.0]]), beta=40.0)
        tensor(0.4991)
    """
    check_multi_similarity(alpha, beta, epsilon, empty_anchor)
    plain, above = split_reduction(reduction)
    lists = check_lists(scores, relevance, mask, weight, plain)
    parts = multi_similarity_terms(
        _pairs(lists),
        alpha=alpha,
        beta=beta,
        threshold=threshold,
        epsilon=epsilon,
        partial=empty_anchor == "partial",
        positive_only=above,
    )
    return reduce_parts(parts, plain)


def check_multi_similarity(alpha: float, beta: float, epsilon: float | None, empty_anchor: EmptyAnchor) -> None:
    """Check the options of the multi-similarity loss."""
    check_positive(alpha, "alpha")
    check_positive(beta, "beta")
    check_epsilon(epsilon)
    check_choice(empty_anchor, get_args(EmptyAnchor), "empty_anchor")


def circle_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 0.25,
    scale: float = 64.0,
    pairing: Pairing = "row",
    detach_weights: bool = True,
    check: bool = False,
    reduction: PairReduction = "mean",
) -> Tensor:
    """Circle loss: every similarity is moved in proportion to how far it is from its optimum.

    Formula:
        L_q = log(1 + sum_n w_n e^{g a_n (s_n - m)} sum_p w_p e^{-g a_p (s_p - 1 + m)}),  a_p = (1 + m - s_p)+,
        a_n = (s_n + m)+ without gradient (detach_weights=False: with), g = `scale`, m = `margin`. Mean over the
        lists with a positive and a negative; "mean_positive": over those with a loss above 0. pairing="batch": one
        list of all pairs of all lists.

    Shapes:
        scores float[..., C] (cosines; check=True refuses others), relevance [..., C] >= 0, mask bool[..., C], weight
        float[..., C] >= 0 (how many times a candidate counts) -> scalar, or float[...] with reduction="none" and
        pairing="row".

    When to use:
        Cosines with binary labels, where s_p should go to 1 and s_n to 0, not only apart. From embeddings with
        labels: `in_batch_circle_loss`; against class weights: `circle_class_loss`.

    Relations:
        Weights 1 and the optima (0, -m): `unified_pair_loss`. For one pair the level s_n^2 + (1 - s_p)^2 = 2 m^2 is
        worth ln 2 at any scale. A positive class against the others: `circle_class_loss`.

    Source:
        Sun et al. (2020), eqs. 5 to 8. Papers 117, 116. The gradient with respect to s_p has the sign of the formula,
        not of the paper's printed eq. 10. "mean_positive" is the average of pytorch-metric-learning, "batch" the
        form of the best-known public code. Their defaults: margin 0.4 and scale 80; faces 0.25 and 256.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, margin < 0, scale <= 0, scores beyond +-1.0001 with check=True, an unknown
        pairing or reduction.

    Example:
        >>> import torch
        >>> circle_loss(torch.tensor([[0.8, 0.3]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.8659)
    """
    check_circle(margin, scale)
    check_choice(pairing, get_args(Pairing), "pairing")
    plain, above = split_reduction(reduction)
    lists = check_lists(scores, relevance, mask, weight, plain)
    if check and bool((lists.scores.abs() > 1 + 1e-4).any()):
        raise RivalsError("scores must be cosines, between -1 and 1; divide dot products by the lengths of the vectors")
    if pairing == "batch":
        lists = Checked(*(None if part is None else part.flatten() for part in lists))  # type: ignore[arg-type]
    parts = circle_terms(_pairs(lists), margin=margin, scale=scale, detach_weights=detach_weights, positive_only=above)
    return reduce_parts(parts, plain)


def check_circle(margin: float, scale: float) -> None:
    """Check the options of the circle losses."""
    check_at_least_zero(margin, "margin")
    check_positive(scale, "scale")


def unified_pair_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    scale: float = 1.0,
    margin: float = 0.0,
    reduction: PairReduction = "mean",
) -> Tensor:
    """The unified pair loss: every negative of a list against every positive, under one logarithm.

    Formula:
        L_q = log(1 + sum_n w_n e^{g (s_n + m)} sum_p w_p e^{-g s_p}), g = `scale`, m = `margin`. Mean over the lists
        with a positive and a negative; "mean_positive": over those with a loss above 0.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (how many times a
        candidate counts) -> scalar, or float[...] with reduction="none".

    When to use:
        Several positives a list of which even the worst should be above the best negative; cosines with a scale of
        about 64, logits with 1.

    Relations:
        One positive: cross entropy with an additive margin (`cosface_loss` over class weights). Scale to infinity:
        L / g becomes the hinge on the hardest triplet, `triplet_loss`. `circle_loss` with constant weights. Scale 1,
        margin 0: the relative multi-label loss of paper 71.

    Source:
        Sun et al. (2020), eq. 1. Papers 117, 71, 14.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scale <= 0, margin < 0, an unknown reduction.

    Example:
        >>> import torch
        >>> unified_pair_loss(torch.tensor([[0.4, 0.8, 0.1, 0.5]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
        tensor(1.4069)
    """
    check_circle(margin, scale)
    plain, above = split_reduction(reduction)
    lists = check_lists(scores, relevance, mask, weight, plain)
    parts = unified_terms(_pairs(lists), scale=scale, margin=margin, positive_only=above)
    return reduce_parts(parts, plain)


def triplet_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 0.2,
    mining: Mining = "hard",
    soft: bool = False,
    generator: torch.Generator | None = None,
    reduction: PairReduction = "mean",
) -> Tensor:
    """Triplet loss over given scores: a positive must beat a negative of its list by a margin.

    Formula:
        max(0, s_n - s_p + m), or log(1 + e^{s_n - s_p + m}) with `soft` (usual with margin 0), over the triplets of
        each list that `mining` takes:

        - "hard": the lowest positive and the highest negative. "random": one of each, drawn evenly.
        - "semihard": for every positive the highest negative below it, or the lowest if none is.
        - "all": every pair.

        Mean over triplets; "mean_positive", and "mean" with mining="all": over those with a loss above 0.

    Shapes:
        scores float[..., C] (higher is nearer; minus a distance), relevance [..., C] >= 0, mask bool[..., C]
        -> scalar, or float[...] with reduction="none" (each list's sum).

    When to use:
        Distances or similarities where only the order matters. "hard" can collapse in large batches: begin with
        "semihard" or "all". From embeddings with labels: `in_batch_triplet_loss`.

    Relations:
        One positive and one negative: all kinds of mining agree. "hard" is the limit of `unified_pair_loss` at a
        large scale; with `soft` and margin 0, of two candidates, `pairwise_logistic_loss`.

    Source:
        Hermans et al. (2017), eq. 5; Schroff et al. (2015), FaceNet, eq. 3 and section 3.2 (semi-hard; where no
        negative is farther than the positive the farthest is taken, as TensorFlow Addons does). Papers 12, 37, 68.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, margin < 0, mining="random" without a generator, an unknown mining or reduction.

    Example:
        >>> import torch
        >>> triplet_loss(torch.tensor([[-1.0, -4.0, -2.0, -6.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]]), margin=0.5)
        tensor(2.5000)

        O(C log C); mining="all" with `soft` O(positives x C).
    """
    check_triplets(margin, mining)
    plain, above = split_reduction(reduction)
    lists = check_lists(scores, relevance, mask, None, plain)
    parts = triplet_terms(
        _pairs(lists), margin=margin, mining=mining, soft=soft, positive_only=above, generator=generator
    )
    return reduce_parts(parts, plain)


def check_triplets(margin: float, mining: Mining) -> None:
    """Check the options of the triplet losses."""
    check_at_least_zero(margin, "margin")
    check_choice(mining, get_args(Mining), "mining")


def _pairs(lists: Checked) -> Pairs:
    """Return the positives and negatives of checked lists, and warn if no list has both."""
    positive = (lists.relevance > 0) & lists.mask
    pairs = dense_pairs(lists.scores, positive, lists.mask & ~positive, lists.weight)
    warn_if_none(pairs)
    return pairs
