"""InfoNCE from embeddings without the Q x C matrix: blocks of rows, gradients computed in the forward pass.

For a block of queries b the logits L = q_b D' / t are made once in a reused buffer and turned into E = e^{L - shift}
in place. With S_i the row sums of E over the negatives, u_ip = share_ip * sigmoid(log-sum-exp_i - l_ip) the push on a
positive and U_i = sum_p u_ip, the gradient of the loss with respect to L is E_ic U_i / S_i at a negative and -u_ip at
a positive. So two more products, (E D) U / S and E' (q_b U / S), give both gradients; positives are few and are added
by index. Documents looking at queries need the column sums first: one more pass over the blocks.

What a rule does with a list's log-sum-exp and its positives (`_lists.compete`) costs nothing next to the products, so
every rule goes through the same passes. Graded relevance is dense: there the push is a matrix, made block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction
from rivals.losses._fused.lists import Targets, compete, finite, shares
from rivals.losses._in_batch import Rule
from rivals.losses._pairs import Assignment

BLOCK_ELEMENTS = 1 << 20
MIN_ROWS = 32
MAX_ROWS = 512
"""A block holds about BLOCK_ELEMENTS logits, but never fewer or more rows than these."""


@dataclass(frozen=True)
class _Plan:
    """Everything that is not differentiated: the pairs, the masks, the options."""

    pairs: Assignment
    row: Tensor  # int64[P], never falling: the positive pairs
    column: Tensor  # int64[P]
    row_share: Tensor | None  # [P], the pair's part of the row loss, or None when the direction is off
    column_share: Tensor | None
    targets: Targets | None  # graded relevance; then there are no positive pairs
    ignored: tuple[Tensor, Tensor] | None
    negative_mask: Tensor | None
    temperature: float
    normalize: bool
    rule: Rule
    matmul_dtype: torch.dtype | None
    with_gradient: bool


def fused_in_batch_loss(
    queries: Tensor,
    documents: Tensor,
    pairs: Assignment,
    *,
    negatives: Tensor | None,
    negative_mask: Tensor | None,
    temperature: float,
    normalize: bool,
    rows: bool,
    columns: bool,
    rule: Rule,
    reduction: Reduction,
    matmul_dtype: torch.dtype | None,
) -> Tensor:
    """The fast twin of `_in_batch.in_batch_loss`, for every reduction but "none". Embeddings are not normalised yet."""
    graded = pairs.relevance if rule.positives == "graded" else None
    if graded is None:
        row, column = pairs.positive_pairs()
    else:
        row = column = torch.zeros(0, dtype=torch.int64, device=queries.device)
    weight = torch.ones(len(row), dtype=queries.dtype, device=queries.device)
    if pairs.weight is not None:
        weight = pairs.weight[row, column].to(queries.dtype).detach()
        row, column, weight = row[weight > 0], column[weight > 0], weight[weight > 0]
    scale = 1.0 / (rows + columns)
    plan = _Plan(
        pairs=pairs,
        row=row,
        column=column,
        row_share=shares(row, weight, pairs.shape[0], reduction, scale) if rows else None,
        column_share=shares(column, weight, pairs.shape[1], reduction, scale) if columns else None,
        targets=None if graded is None else Targets(pairs, graded, rows, columns, reduction, queries.dtype),
        ignored=pairs.ignored_pairs(),
        negative_mask=negative_mask,
        temperature=temperature,
        normalize=normalize,
        rule=rule,
        matmul_dtype=matmul_dtype,
        with_gradient=torch.is_grad_enabled(),
    )
    private = negatives if rows and negatives is not None and negatives.shape[1] > 0 else None
    return _InfoNCE.apply(queries, documents, private, plan)


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, documents: Tensor, negatives: Tensor | None, plan: _Plan) -> Tensor:
        needs = ctx.needs_input_grad if plan.with_gradient else (False, False, False)
        loss, gradients = _Pass(queries, documents, negatives, plan, needs[:3]).run()
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():
            raise RivalsError(
                "the fused in_batch_info_nce_loss has no second derivative (create_graph=True); use fused=False"
            )
        gradients = [None if saved is None else saved * upstream[0] for saved in ctx.saved_tensors]
        return gradients[0], gradients[1], gradients[2], None


class _Private:
    """A block's private negatives: unit vectors [b, N, D], lengths, and logits [b, N] (-inf where there is none)."""

    def __init__(self, plan: _Plan, negatives: Tensor, scaled: Tensor, start: int, stop: int) -> None:
        self.length: Tensor | None = None
        self.vectors = negatives[start:stop]
        if plan.normalize:
            self.vectors, self.length = _unit(self.vectors)
        self.logits = (self.vectors @ scaled.unsqueeze(-1)).squeeze(-1)
        if plan.negative_mask is not None:
            self.logits = self.logits.masked_fill(~plan.negative_mask[start:stop], -torch.inf)


class _Pass:
    """One forward pass over the blocks, with the gradients of the inputs that need them."""

    def __init__(
        self, queries: Tensor, documents: Tensor, negatives: Tensor | None, plan: _Plan, needs: tuple[bool, ...]
    ) -> None:
        self.plan, self.needs, self.negatives = plan, needs, negatives
        self.queries, self.documents = queries, documents
        self.query_length: Tensor | None = None
        self.document_length: Tensor | None = None
        if plan.normalize:
            self.queries, self.query_length = _unit(queries)
            self.documents, self.document_length = _unit(documents)
        self.dtype = plan.matmul_dtype or queries.dtype
        self.documents_in = self.documents.to(self.dtype)
        self.column_push: Tensor | None = None  # of each positive pair
        self.column_lse: Tensor | None = None  # of each document, over the queries
        self.column_pull: Tensor | None = None  # of each document: what its positives push, its negatives give
        self.grad_queries = torch.zeros_like(queries) if needs[0] else None
        self.grad_documents = torch.zeros_like(documents) if needs[1] else None
        self.grad_negatives = torch.zeros_like(negatives) if needs[2] and negatives is not None else None
        count, width = plan.pairs.shape
        self.block = min(count, max(MIN_ROWS, min(MAX_ROWS, BLOCK_ELEMENTS // width)))
        self.buffer = queries.new_empty(self.block, width)
        self.starts = range(0, count, self.block)
        ends = torch.arange(self.block, count + self.block, self.block, device=queries.device)
        searched = [torch.searchsorted(rows, ends) for rows in (plan.row, *(plan.ignored or ())[:1])]
        # Where each block's positive and ignored pairs stand; the one place that waits for the device.
        self.parts = [_slices(part) for part in torch.stack(searched).tolist()]
        # Cosines over t lie in [-1/t, 1/t]: when that is small, exponentials need no shift by the maximum.
        limit = 300.0 if queries.dtype == torch.float64 else 40.0
        self.safe = plan.normalize and plan.pairs.weight is None and 1.0 / plan.temperature + plan.rule.margin <= limit

    def run(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the loss and the gradients of queries, documents and private negatives (None where not needed)."""
        plan = self.plan
        loss = self.queries.new_zeros(())
        if plan.column_share is not None:
            self.column_lse, positive, count = self._column_pass()
            if plan.targets is None:
                part, self.column_push, self.column_pull = compete(
                    self.column_lse, plan.column, positive, plan.column_share, count, plan.rule
                )
            else:
                self.column_push, self.column_pull = positive, plan.targets.column_pull
                part = (self.column_pull * finite(self.column_lse)).sum()
            loss = loss + part
        if plan.row_share is not None or plan.targets is not None or any(self.needs):
            for number in range(len(self.starts)):
                loss = loss + self._row_block(number)
        if self.query_length is not None and self.grad_queries is not None:
            _through_unit(self.grad_queries, self.queries, self.query_length)
        if self.document_length is not None and self.grad_documents is not None:
            _through_unit(self.grad_documents, self.documents, self.document_length)
        return loss, (self.grad_queries, self.grad_documents, self.grad_negatives)

    def _products(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a block's queries over t and its logits."""
        start = self.starts[number]
        scaled = self.queries[start : start + self.block] / self.plan.temperature
        logits = self.buffer[: len(scaled)]
        if self.dtype == logits.dtype:
            torch.mm(scaled, self.documents_in.T, out=logits)
        else:
            logits.copy_(scaled.to(self.dtype) @ self.documents_in.T)
        return scaled, logits

    def _restrict(self, number: int, logits: Tensor, target: Tensor | None) -> Tensor:
        """Write what competes over a block's logits, -inf where nothing does; return the logits of its positives."""
        plan, start, pairs = self.plan, self.starts[number], self.parts[0][number]
        stop = start + len(logits)
        row, column = plan.row[pairs] - start, plan.column[pairs]
        positive = logits[row, column]
        if plan.pairs.weight is not None:
            log_weight = plan.pairs.weight[start:stop].to(logits.dtype).log()
            logits += log_weight if target is None else log_weight.masked_fill_(target > 0, 0.0)
        if plan.pairs.mask is not None:
            logits.masked_fill_(~plan.pairs.mask[start:stop], -torch.inf)
        if plan.ignored is not None:
            ignored = self.parts[1][number]
            logits[plan.ignored[0][ignored] - start, plan.ignored[1][ignored]] = -torch.inf
        hidden = plan.rule.hides_positives
        logits[row, column] = torch.full_like(positive, -torch.inf) if hidden else positive - plan.rule.margin
        return positive

    def _count(self, number: int, logits: Tensor, dim: int) -> Tensor | None:
        """Return how many negatives, by weight, compete in a block along `dim`; only a prior asks for it."""
        if self.plan.rule.prior == 0:
            return None
        start, competing = self.starts[number], logits > -torch.inf
        if self.plan.pairs.weight is None:
            return competing.sum(dim).to(logits.dtype)
        weight = self.plan.pairs.weight[start : start + len(logits)].to(logits.dtype)
        return weight.masked_fill(~competing, 0.0).sum(dim)

    def _column_pass(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return every column's log-sum-exp over what competes there, the logits of all positives, and the counts."""
        width, targets = self.plan.pairs.shape[1], self.plan.targets
        highest = self.queries.new_full((width,), 0.0 if self.safe else -torch.inf)
        total, count = self.queries.new_zeros(width), None
        positives = []
        for number, start in enumerate(self.starts):
            _, logits = self._products(number)
            weighted = targets is not None and self.plan.pairs.weight is not None
            target = targets.block(start, start + len(logits)) if targets is not None and weighted else None
            positives.append(self._restrict(number, logits, target))
            part = self._count(number, logits, 0)
            count = part if count is None or part is None else count + part
            if not self.safe:
                raised = torch.maximum(highest, logits.amax(0))
                total *= (highest - finite(raised)).exp()
                logits -= finite(raised)
                highest = raised
            total += logits.exp_().sum(0)
        return finite(highest) + total.log(), torch.cat(positives), count

    def _row_block(self, number: int) -> Tensor:
        """Add a block's gradients and return its part of the row loss."""
        plan, start, pairs = self.plan, self.starts[number], self.parts[0][number]
        scaled, logits = self._products(number)
        stop, loss = start + len(scaled), logits.new_zeros(())
        target = pushed = None
        if plan.targets is not None:
            target = plan.targets.block(start, stop)
            pushed = plan.targets.push(target, start, stop)
            loss = loss - pushed.reshape(-1) @ logits.view(-1)
        positive = self._restrict(number, logits, target)
        push = torch.zeros_like(positive)
        factor = private = private_gradient = by_column = None
        if self.column_lse is not None and self.column_pull is not None and not self.safe:
            by_column = (logits - finite(self.column_lse)).exp_().mul_(self.column_pull)
        if plan.row_share is not None:
            count = self._count(number, logits, 1)
            if self.negatives is not None:
                private = _Private(plan, self.negatives, scaled, start, stop)
                count = None if count is None else count + (private.logits > -torch.inf).sum(1)
            shift = None if self.safe else _row_maximum(logits, private)
            exponentials = logits.exp_() if shift is None else logits.sub_(shift[:, None]).exp_()
            total = exponentials.sum(1)
            if private is not None:
                shifted = private.logits if shift is None else private.logits - shift[:, None]
                private_gradient = shifted.exp()
                total = total + private_gradient.sum(1)
            against = total.log() if shift is None else total.log() + shift
            if plan.targets is None:
                row = plan.row[pairs] - start
                part, push, pull = compete(against, row, positive, plan.row_share[pairs], count, plan.rule)
            else:
                pull = plan.targets.row_pull[start:stop]
                part = (pull * finite(against)).sum()
            loss = loss + part
            # The clamp serves lists without a rival: their numerator is 0.
            factor = pull / total.clamp(min=torch.finfo(total.dtype).tiny)
            if private_gradient is not None:
                private_gradient = private_gradient * factor[:, None]
        elif self.safe:
            logits.exp_()
        if not any(self.needs):
            return loss
        if self.column_push is not None:
            push = push + self.column_push[pairs]
            logits, factor = self._both_ways(logits, factor, by_column), None
        if pushed is not None:
            logits = (logits if factor is None else logits.mul_(factor[:, None])).sub_(pushed)
            factor = None
        self._add_gradients(number, scaled, logits, factor, push)
        if private is not None and private_gradient is not None:
            self._add_private(start, scaled, private, private_gradient)
        return loss

    def _both_ways(self, exponentials: Tensor, factor: Tensor | None, by_column: Tensor | None) -> Tensor:
        """Return the gradient at the negatives of a block, in place, when documents look at queries too."""
        assert self.column_lse is not None
        assert self.column_pull is not None
        if by_column is not None:
            return by_column if factor is None else exponentials.mul_(factor[:, None]).add_(by_column)
        pull = self.column_pull * (-finite(self.column_lse)).exp()
        return exponentials.mul_(pull if factor is None else factor[:, None] + pull)

    def _add_gradients(
        self, number: int, scaled: Tensor, gradient: Tensor, factor: Tensor | None, push: Tensor
    ) -> None:
        """Add factor_i gradient_ic - push (at positives), the gradient of the logits, to those of the embeddings."""
        plan, start, pairs = self.plan, self.starts[number], self.parts[0][number]
        row, column = plan.row[pairs] - start, plan.column[pairs]
        gradient = gradient.to(self.dtype)
        if self.grad_queries is not None:
            block = self.grad_queries[start : start + len(scaled)]
            if self.dtype == block.dtype:
                torch.mm(gradient, self.documents_in, out=block)
            else:
                block.copy_(gradient @ self.documents_in)
            if factor is not None:
                block.mul_(factor[:, None])
            block.index_add_(0, row, self.documents[column] * push[:, None], alpha=-1)
            block.div_(plan.temperature)
        if self.grad_documents is not None:
            left = scaled if factor is None else scaled * factor[:, None]
            if self.dtype == left.dtype:
                self.grad_documents.addmm_(gradient.T, left)
            else:
                self.grad_documents += gradient.T @ left.to(self.dtype)
            self.grad_documents.index_add_(0, column, scaled[row] * push[:, None], alpha=-1)

    def _add_private(self, start: int, scaled: Tensor, private: _Private, gradient: Tensor) -> None:
        """Add the gradients through a block's private negatives; `gradient` [b, N] is that of their logits."""
        stop = start + len(scaled)
        if self.grad_queries is not None:
            pulled = (gradient.unsqueeze(1) @ private.vectors).squeeze(1)
            self.grad_queries[start:stop] += pulled / self.plan.temperature
        if self.grad_negatives is not None:
            block = self.grad_negatives[start:stop]
            torch.mul(gradient.unsqueeze(-1), scaled.unsqueeze(1), out=block)
            if private.length is not None:
                _through_unit(block, private.vectors, private.length)


def _slices(ends: list[int]) -> list[slice]:
    return [slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def _row_maximum(logits: Tensor, private: _Private | None) -> Tensor:
    highest = logits.amax(1)
    if private is not None:
        highest = torch.maximum(highest, private.logits.amax(1))
    return finite(highest)


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors and lengths; a zero vector stays zero, with length infinity so that its gradient is zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    length = length.masked_fill_(length == 0, torch.inf)
    return vectors / length, length


def _through_unit(gradient: Tensor, unit: Tensor, length: Tensor) -> None:
    """Turn, in place, the gradient of unit vectors into that of the vectors they came from."""
    gradient.addcmul_((gradient * unit).sum(-1, keepdim=True), unit, value=-1).div_(length)
