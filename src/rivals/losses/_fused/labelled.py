"""All pairs of N labelled rows without the N x N matrix: blocks of anchors, gradients computed in the forward pass.

Whatever an anchor pays for its similarities is a function of one row of the matrix, so a block of rows is compared with
all rows, its loss taken and differentiated at once, and the block forgotten. Two gradients come out of a block, that of
the anchors and that of everything they were compared with; both are added up, and the divisor of a mean (known only at
the end) is applied last. The rows of an anchor's own class are few and looked up by index (`Members`), so that the rest
of the block needs no mask. Any function of `_pair_terms` runs here as it stands; over the whole matrix at once it is
the readable version, which small batches and reduction="none" use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import CheckedRows, Reduction, check_choice, check_reduction, check_rows, spread_rows
from rivals.losses._distances import euclidean
from rivals.losses._in_batch import unit_rows
from rivals.losses._pair_terms import (
    PairReduction,
    Pairs,
    Parts,
    Terms,
    dense_pairs,
    reduce_parts,
    split_reduction,
    warn_of_nothing,
)

BLOCK_ELEMENTS = 1 << 19
MIN_ROWS = 16
"""A block holds about BLOCK_ELEMENTS scores, but never fewer rows than MIN_ROWS."""
FUSED_FROM = 1 << 18
"""From how many pairs fused="auto" takes the blocked version."""

Fused: TypeAlias = bool | Literal["auto"]
Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
RowTerms: TypeAlias = Callable[[Pairs], Parts]


@dataclass(frozen=True)
class Members:
    """The rows of each anchor's class: `index` int64[b, K], padded with the anchor, and which are its positives."""

    index: Tensor
    positive: Tensor
    size: Tensor  # of the class, [b]
    total: int

    def pairs(self, scores: Tensor) -> Pairs:
        """Return the pairs of a block's scores [b, N]."""
        positives, negatives = self.size - 1, self.total - self.size
        if self.total > self.index.shape[1]:  # so no class has all rows: every anchor has a negative
            own = self.index
            return Pairs(scores.gather(1, own), self.positive, scores, positives, negatives, own=own)
        nothing = torch.zeros_like(scores, dtype=torch.bool)
        return Pairs(scores.gather(1, self.index), self.positive, scores, positives, negatives, negative=nothing)


def blocks(labels: Tensor, *, load: int = 1) -> Iterator[tuple[slice, Members]]:
    """Yield the anchors in blocks; `load` says how many numbers a score turns into, for smaller blocks."""
    count = len(labels)
    if count == 0:
        return
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, labels)
    size = torch.searchsorted(ordered, labels, right=True) - first
    beside = torch.arange(int(size.max()), device=labels.device)
    rows = max(1, max(MIN_ROWS, BLOCK_ELEMENTS // count) // load)
    for start in range(0, count, rows):
        here = slice(start, min(start + rows, count))
        anchor = torch.arange(start, here.stop, device=labels.device)[:, None]
        inside = beside < size[here, None]
        index = torch.where(inside, order[(first[here, None] + beside).clamp(max=count - 1)], anchor)
        yield here, Members(index, index != anchor, size[here], count)


def dot_products(anchors: Tensor, rows: Tensor) -> Tensor:
    """Return the products [b, N]; cosines for unit rows."""
    return anchors @ rows.T


def negative_distances(anchors: Tensor, rows: Tensor) -> Tensor:
    """Return minus the Euclidean distances [b, N], exact and slow for many rows."""
    return -euclidean(anchors, rows)


def negative_distances_by_products(anchors: Tensor, rows: Tensor) -> Tensor:
    """Return minus the Euclidean distances [b, N] from products; `rows` must be centred, for cancellation's sake."""
    squared = torch.addmm(rows.square().sum(1), anchors, rows.T, alpha=-2) + anchors.square().sum(1, keepdim=True)
    tiny = torch.finfo(rows.dtype).tiny
    return -F.threshold(squared, tiny, tiny).sqrt()


def labelled_loss(
    rows: CheckedRows,
    vectors: Tensor,
    terms: RowTerms,
    reduction: Reduction,
    *,
    fused: Fused = "auto",
    distance: bool = False,
    squared: bool = False,
    load: int = 1,
) -> Tensor:
    """Return the loss of `terms` over all anchors, from dot products of `vectors` or, with `distance`, minus distances.

    `vectors` are the rows that are there, normalised if that is wanted. `squared` squares the distances. `load`: as for
    `blocks`.
    """
    similarity: Similarity = negative_distances if distance else dot_products
    if use_blocks(len(vectors), reduction, fused):
        if distance:
            vectors = vectors - vectors.detach().mean(0)
            similarity = negative_distances_by_products
        similarity = _squared(similarity) if squared else similarity
        return by_blocks(vectors, rows.labels, terms, reduction, similarity=similarity, load=load)
    with torch.autocast(vectors.device.type, enabled=False):
        scores = (_squared(similarity) if squared else similarity)(vectors, vectors)
    same = rows.labels[:, None] == rows.labels
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    parts = terms(dense_pairs(scores, same & ~itself, ~same))
    spread = tuple(Terms(spread_rows(t, rows.mask), spread_rows(c, rows.mask)) for t, c in parts)
    return reduce_parts(spread, reduction)


def check_labelled(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    reduction: PairReduction,
    on_empty: Literal["zero", "raise", "ignore"] = "zero",
) -> tuple[CheckedRows, Reduction, bool]:
    """Check labelled rows and their reduction, and say (or refuse) it if no anchor has a positive and a negative."""
    plain, above = split_reduction(reduction)
    check_reduction(plain)
    rows = check_rows(embeddings, labels, mask)
    looks = rows.labels.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_empty == "raise" or (on_empty == "zero" and looks and len(rows.labels)):
        sizes = rows.labels.unique(return_counts=True)[1]
        if not (len(sizes) > 1 and bool((sizes > 1).any())):
            if on_empty == "raise":
                raise RivalsError(
                    "labels give no anchor a positive and a negative; draw at least two examples of each of at least "
                    'two classes, or take on_empty="zero"'
                )
            warn_of_nothing()
    return rows, plain, above


def vectors_of(rows: CheckedRows, normalize: bool) -> Tensor:
    """Return the rows that are there, of unit length if that is wanted."""
    return unit_rows(rows.rows) if normalize else rows.rows


def use_blocks(count: int, reduction: Reduction, fused: Fused) -> bool:
    """Return whether to go by blocks; they give no per-anchor values."""
    check_choice(fused, (True, False, "auto"), "fused")
    if fused is True and reduction == "none":
        raise RivalsError('fused=True gives no value per anchor (reduction="none"); use fused="auto"')
    return count > 0 and reduction != "none" and (fused is True or (fused == "auto" and count * count >= FUSED_FROM))


def _squared(similarity: Similarity) -> Similarity:
    return lambda anchors, rows: -similarity(anchors, rows).square()


def pair_log_sum(vectors: Tensor, labels: Tensor, logits: Callable[[Pairs], Tensor], *, same: bool) -> Tensor:
    """Return log sum e^logit over the pairs of one label (same=True) or of two, each pair once; -inf without any pair.

    `logits(pairs)` gives those of pairs.pulled or of pairs.pushed, the same in both orders of a pair; -inf is no pair.
    """

    def wanted(pairs: Pairs) -> Tensor:
        found = logits(pairs)
        return pairs.only_pulled(found, -torch.inf) if same else pairs.only_pushed(found, -torch.inf)

    highest = torch.full((), -torch.inf, dtype=vectors.dtype, device=vectors.device)
    with torch.no_grad():
        for here, members in blocks(labels):
            highest = torch.maximum(highest, wanted(members.pairs(dot_products(vectors[here], vectors))).amax())
    if not bool(highest > -torch.inf):
        return vectors.sum() * 0 - torch.inf

    def terms(pairs: Pairs) -> Parts:
        masses = (wanted(pairs) - highest).exp().sum(-1)
        return (Terms(masses, pairs.positives),)

    return (by_blocks(vectors, labels, terms, "sum") / 2).log() + highest


def by_blocks(
    vectors: Tensor,
    labels: Tensor,
    terms: RowTerms,
    reduction: Reduction,
    *,
    similarity: Similarity = dot_products,
    load: int = 1,
) -> Tensor:
    """Return the reduced terms of all anchors, block by block."""
    with torch.autocast(vectors.device.type, enabled=False):
        return _Blocked.apply(vectors, _Plan(labels, similarity, terms, reduction, load), torch.is_grad_enabled())


@dataclass(frozen=True)
class _Plan:
    labels: Tensor
    similarity: Similarity
    terms: RowTerms
    reduction: Reduction
    load: int


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, plan: _Plan, with_gradient: bool) -> Tensor:
        value, gradient = _run(vectors.detach(), plan, with_gradient and ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None]:
        if torch.is_grad_enabled():
            raise RivalsError(
                "the blocked metric losses have no second derivative (create_graph=True); use fused=False"
            )
        (gradient,) = ctx.saved_tensors
        return None if gradient is None else gradient * upstream[0], None, None


def _run(vectors: Tensor, plan: _Plan, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Return the loss and its gradient, part by part and block by block."""
    values: list[Tensor] = []
    counts: list[Tensor] = []
    gradients: list[Tensor] = []
    listed = plan.reduction == "list_mean"
    everything = vectors.requires_grad_(with_gradient)
    for here, members in blocks(plan.labels, load=plan.load):
        with torch.set_grad_enabled(with_gradient):
            anchors = everything.detach()[here].requires_grad_(with_gradient)
            parts = plan.terms(members.pairs(plan.similarity(anchors, everything)))
            sums = [(total / count.clamp(min=1) if listed else total).sum() for total, count in parts]
        for number, (_, count) in enumerate(parts):
            if len(values) == number:
                values.append(vectors.new_zeros(()))
                counts.append(torch.zeros((), dtype=torch.int64, device=vectors.device))
                gradients.append(torch.zeros_like(vectors))
            values[number] += sums[number].detach()
            counts[number] += (count > 0).sum() if listed else count.sum()
            if with_gradient:
                more = number < len(parts) - 1
                of_anchors, of_rows = torch.autograd.grad(sums[number], (anchors, everything), retain_graph=more)
                gradients[number] += of_rows
                gradients[number][here] += of_anchors
    divisors = [torch.ones_like(count) if plan.reduction == "sum" else count.clamp(min=1) for count in counts]
    value = torch.stack([value / divisor for value, divisor in zip(values, divisors, strict=True)]).sum()
    if not with_gradient:
        return value, None
    gradient = gradients[0].div_(divisors[0])
    for other, divisor in zip(gradients[1:], divisors[1:], strict=True):
        gradient += other / divisor
    return value, gradient
