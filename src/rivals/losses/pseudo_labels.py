"""One known positive among unknown labels: entropy maximisation, and pseudo-labels for the surest negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, list_ranks
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_like,
    check_lists,
    check_mask,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._sets import check_unit_interval
from rivals.losses.partial_labels import check_unknown

__all__ = ["AsymmetricPseudoLabeller", "asymmetric_pseudo_labels", "entropy_maximisation_loss"]


def entropy_maximisation_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    unknown: Tensor | None = None,
    pseudo: Tensor | None = None,
    weight: Tensor | None = None,
    alpha: float = 0.1,
    beta: float = 0.2,
    eps: float = 1e-5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy on known labels; unknown ones are kept undecided, or drawn to a soft pseudo-label.

    Formula:
        p = sigmoid(s),  nl(x) = -log(x + eps),  and per entry

        - known positive (relevance > 0): nl(p).  Known negative: nl(1 - p).
        - unknown, without pseudo-label: -alpha [ p nl(p) + (1 - p) nl(1 - p) ].
        - unknown, with pseudo-label t: beta [ t nl(p) + (1 - t) nl(1 - p) ].

        L = mean of w_i l_i over all entries of the batch. The unknown term may make it negative.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (not read where unknown), mask bool[..., C] (False = not there),
        unknown bool[..., C] (by default every entry of relevance 0), pseudo float[..., C] in [0, 1] or NaN for none
        (read where unknown), weight float[..., C] >= 0 -> scalar, or float[...] with reduction="none".

    When to use:
        One known relevant item a query or label an image, the rest unknown, and many hidden positives among them. Not
        where hidden positives are rare. alpha (0.01 to 0.2) and beta (0.02 to 0.9) belong to the data; do not stop
        early by this loss.

    Relations:
        No entry unknown: `binary_cross_entropy_loss` (up to eps), with unknown counted as 0 the "assume negative"
        baseline. `AsymmetricPseudoLabeller` makes the pseudo-labels. `large_loss_modification_loss` assumes negatives.

    Source:
        Zhou et al. (2022), eqs. 2 to 5. Paper 91. eps stands inside the logarithm as in the authors' code (0: exact
        logarithms). Known negatives are our addition: the paper has none.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask or unknown, negative or NaN
        relevance or weight at an entry that is there, pseudo-labels outside [0, 1], alpha, beta or eps < 0, an unknown
        reduction.

    Example:
        >>> import torch
        >>> entropy_maximisation_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), alpha=0.2)
        tensor(0.2773)
    """
    for value, name in ((alpha, "alpha"), (beta, "beta"), (eps, "eps")):
        check_at_least_zero(value, name)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    unsure = check_unknown(unknown, lists)
    p, rest = lists.scores.sigmoid(), (-lists.scores).sigmoid()
    if eps:
        cost, cost_rest = -(p + eps).log(), -(rest + eps).log()
    else:
        cost, cost_rest = -F.logsigmoid(lists.scores), -F.logsigmoid(-lists.scores)
    loss = cost.where(lists.relevance > 0, cost_rest).where(~unsure, -alpha * (p * cost + rest * cost_rest))
    if pseudo is not None:
        check_like(pseudo, scores, "pseudo")
        labelled = unsure & ~pseudo.isnan()
        soft = pseudo.to(loss.dtype).masked_fill(~labelled, 0.0)
        check_unit_interval(soft, "pseudo")
        loss = torch.where(labelled, beta * (soft * cost + (1 - soft) * cost_rest), loss)
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def asymmetric_pseudo_labels(
    probabilities: Tensor,
    unknown: Tensor,
    pseudo: Tensor | None = None,
    *,
    rounds: int,
    negative_fraction: float = 0.9,
    positive_fraction: float = 0.0,
    initial: Tensor | None = None,
) -> Tensor:
    """Do one round of asymmetric pseudo-labelling: the least probable unknown items of every label become negatives.

    For label k with U_k unknown items at the start, the int(negative_fraction U_k / rounds) still unlabelled items with
    the lowest probability get it as their soft label, for good; likewise, with positive_fraction, the most probable
    ones. After all rounds about negative_fraction of the unknown items are labelled.

    Args:
        probabilities: float[N, C] in [0, 1], all items scored in evaluation mode.
        unknown: bool[N, C], the labels nobody knows, those with a pseudo-label included.
        pseudo: float[N, C], what earlier rounds returned; NaN = none.
        rounds: how many rounds there are, the epochs after the warm-up.
        initial: int[C], U_k; by default what `unknown` counts.

    Returns: float[N, C], NaN where there is no pseudo-label.

    Source: Zhou et al. (2022), section 3.3; the positive part, which their code leaves out, as their text has it.
    Paper 91. Ties go to the earlier item.

    Raises:
        RivalsError: shapes or dtypes that do not fit, probabilities outside [0, 1], rounds < 1, a fraction outside
        [0, 1], fractions that sum to more than 1.

    >>> probabilities, unknown = torch.tensor([[0.3], [0.1], [0.9]]), torch.tensor([[True], [True], [False]])
    >>> asymmetric_pseudo_labels(probabilities, unknown, rounds=1)
    tensor([[   nan],
            [0.1000],
            [   nan]])
    """
    _check_fractions(rounds, negative_fraction, positive_fraction)
    check_scores(probabilities, "probabilities", ndim=2)
    check_unit_interval(probabilities, "probabilities")
    check_mask(unknown, probabilities, "unknown")
    dtype = compute_dtype(probabilities)
    if pseudo is None:
        pseudo = torch.full_like(probabilities, float("nan"), dtype=dtype)
    check_like(pseudo, probabilities, "pseudo")
    if initial is None:
        initial = unknown.sum(0)
    check_shape(initial, (probabilities.shape[1],), "initial", probabilities.device)
    scores = probabilities.detach().to(dtype)
    free = unknown & pseudo.isnan()
    chosen = torch.zeros_like(free)
    for fraction, direction in ((negative_fraction, -1.0), (positive_fraction, 1.0)):
        number = (fraction * initial.double() / rounds).long()
        rank = list_ranks(direction * scores.T, free.T).T
        chosen = chosen | (free & (rank < number))
    return torch.where(chosen, scores.to(pseudo.dtype), pseudo)


class AsymmetricPseudoLabeller(nn.Module):
    """Keeps the pseudo-labels of a training set and extends them after every epoch from the warm-up on.

    `pseudo` float[N, C] (NaN = none) goes to `entropy_maximisation_loss` row by row; it is saved with the module.

    Args:
        unknown: bool[N, C], the labels nobody knows.
        epochs: how many epochs training has.
        warmup: the first epoch, counted from 1, after which labels are made.
        negative_fraction, positive_fraction: as in `asymmetric_pseudo_labels`.

    Source: Zhou et al. (2022), algorithm 1. Paper 91. Their code does nothing when the data fit one batch; this has no
    such case.

    Raises:
        RivalsError: an `unknown` that is no boolean matrix, warmup below 1 or not below epochs, wrong fractions.

    >>> labeller = AsymmetricPseudoLabeller(torch.tensor([[True], [True], [False]]), epochs=3, warmup=1)
    >>> probabilities = torch.tensor([[0.3], [0.1], [0.9]])
    >>> labeller.update(probabilities, epoch=1).isnan().sum()  # int(0.9 * 2 / 2) = 0 labels a round
    tensor(3)
    """

    unknown: Tensor
    pseudo: Tensor

    def __init__(
        self,
        unknown: Tensor,
        *,
        epochs: int,
        warmup: int,
        negative_fraction: float = 0.9,
        positive_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(unknown, Tensor) or unknown.dtype != torch.bool or unknown.ndim != 2:
            raise RivalsError("unknown must be a boolean tensor [items, labels] (True = nobody knows)")
        if not 1 <= warmup < epochs:
            raise RivalsError(f"warmup must be at least 1 and below epochs; got warmup {warmup} of {epochs} epochs")
        _check_fractions(epochs - warmup, negative_fraction, positive_fraction)
        self.epochs, self.warmup = epochs, warmup
        self.negative_fraction, self.positive_fraction = negative_fraction, positive_fraction
        self.register_buffer("unknown", unknown.clone())
        self.register_buffer("pseudo", torch.full(unknown.shape, float("nan"), device=unknown.device))

    def update(self, probabilities: Tensor, *, epoch: int) -> Tensor:
        """Take the probabilities [N, C] of all items after an epoch (counted from 1) and return the pseudo-labels."""
        if epoch >= self.warmup:
            labels = asymmetric_pseudo_labels(
                probabilities,
                self.unknown,
                self.pseudo,
                rounds=self.epochs - self.warmup,
                negative_fraction=self.negative_fraction,
                positive_fraction=self.positive_fraction,
            )
            self.pseudo.copy_(labels)
        return self.pseudo


def _check_fractions(rounds: int, negative: float, positive: float) -> None:
    if rounds < 1:
        raise RivalsError(f"rounds must be at least 1; got {rounds!r}")
    for value, name in ((negative, "negative_fraction"), (positive, "positive_fraction")):
        if not 0 <= value <= 1:
            raise RivalsError(f"{name} must lie in 0..1; got {value!r}")
    if negative + positive > 1:
        raise RivalsError(
            f"negative_fraction and positive_fraction must sum to at most 1; got {negative} and {positive}"
        )
