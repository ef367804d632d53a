"""Batches of queries with their candidates, made when they are wanted, from whatever negatives a regime has put there by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.negatives.batching.batch import Batch
from rivals.negatives.batching.batchers import Plan, Planned, Shuffled
from rivals.negatives.batching.examples import Examples, Share
from rivals.training.negatives import Negatives


class QueryBatches:
    """The batches of a dataset's queries, each with a positive drawn anew in every epoch and the negatives in use.

    Which queries share a batch depends on seed and epoch alone. Their negatives are those that the regime has put into `negatives`
    by the time a batch is asked for; queries without a positive are left out (`examples.without_positive` counts them).

    Args:
        negatives: the marked run and its sampler; None leaves only what the batch holds. share: which columns compete for a query,
            see `Examples`: its "own" positive and negatives, "all" of the batch, or all "negatives".
        arrange: examples -> a batcher, such as `lambda examples: NoDuplicates(examples, 32)`; by default random batches of
            `batch_size`. It must give as many batches whatever the negatives are.
        seed: of order and positives.

    Raises:
        RivalsError: a run over other queries, nothing to train on, "own" without negatives, a batch size below 1.

    >>> from rivals.data import Collection, Judgements
    >>> judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    >>> batches = QueryBatches(Dataset(Collection(["p", "q"]), Collection(["a", "b"]), judged), 2, share="all")
    >>> len(batches(0)), batches(0)[0].mask.sum().item()
    (1, 4)
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 32,
        *,
        negatives: Negatives | None = None,
        share: Share = "own",
        arrange: Callable[[Examples], Planned] | None = None,
        seed: int = 0,
    ) -> None:
        if share == "own" and negatives is None:
            raise RivalsError("queries that keep to their own columns need negatives; give negatives= or share='all'")
        self.dataset, self.batch_size, self.negatives, self.share, self.seed = (
            dataset,
            batch_size,
            negatives,
            share,
            seed,
        )
        self._arrange = arrange or (lambda examples: Shuffled(examples, batch_size, seed=seed))
        self._made: tuple[int, Examples, Planned] | None = None
        self._plan: tuple[int, int, Plan] | None = None
        self.options = {**self._batcher().options(), "share": share}

    @property
    def examples(self) -> Examples:
        """The examples over the negatives in use now."""
        version = 0 if self.negatives is None else self.negatives.version
        if self._made is None or self._made[0] != version:
            given = self.negatives
            if given is None:
                examples = Examples(self.dataset, share=self.share, seed=self.seed)
            else:
                examples = Examples(self.dataset, run=given.run, negatives=given.draw, share=self.share, seed=self.seed)
            self._made = (version, examples, self._arrange(examples))
        return self._made[1]

    def __call__(self, epoch: int) -> Sequence[Batch]:
        """Return the batches of an epoch, each made when it is read."""
        examples, batcher = self.examples, self._batcher()
        version = 0 if self.negatives is None else self.negatives.version
        if self._plan is None or self._plan[:2] != (epoch, version):
            self._plan = (epoch, version, batcher.plan(epoch))
        return _Epoch(examples, batcher, self._plan[2], epoch)

    def _batcher(self) -> Planned:
        _ = self.examples
        assert self._made is not None
        return self._made[2]


class _Epoch(Sequence[Batch]):
    """The batches of a plan."""

    def __init__(self, examples: Examples, batcher: Planned, plan: Plan, epoch: int) -> None:
        self._examples, self._batcher, self._plan, self._epoch = examples, batcher, plan, epoch

    def __len__(self) -> int:
        return len(self._plan)

    @overload
    def __getitem__(self, place: int) -> Batch: ...
    @overload
    def __getitem__(self, place: slice) -> list[Batch]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        rows, batcher = self._plan.rows[self._plan.offsets[number] : self._plan.offsets[number + 1]], self._batcher
        return self._examples.batch(
            rows,
            epoch=self._epoch,
            step=number,
            merge=batcher.merge,
            share=batcher.share,
            negatives=batcher.negatives,
            extra=batcher.extra(rows, number),
        )


@dataclass(frozen=True, eq=False)
class CandidateLists:
    """A batch as lists: what a scorer is asked for and what its scores are compared with.

    `query` int64[Q]; `document` int64[Q, W], or [C] where all queries share the columns; `relevance`, `weight` float32[Q, W] and
    `mask` bool[Q, W]. A list's positives stand first, if the columns are its own. A list without a negative teaches nothing and is
    empty; `empty` counts those.

    >>> lists = CandidateLists.of(Batch.of_pairs([4, 9], [1, 7]))
    >>> lists.document.tolist(), lists.mask.all().item(), lists.empty
    ([1, 7], True, 0)
    """

    query: NDArray[np.int64]
    document: NDArray[np.int64]
    relevance: NDArray[np.float32]
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, batch: Batch) -> CandidateLists:
        """Return the lists of a batch, cut to the columns that compete where each query has its own."""
        mask = batch.mask & (batch.mask & (batch.relevance <= 0)).any(1, keepdims=True)
        width = int(mask.sum(1).max(initial=0))
        if width == len(batch.columns):
            return cls(batch.anchor, batch.columns, batch.relevance, mask, batch.weight)
        order = np.argsort(np.where(mask, batch.relevance <= 0, 2), axis=1, kind="stable")[:, :width]
        return cls(
            batch.anchor,
            batch.columns[order],
            np.take_along_axis(batch.relevance, order, 1),
            np.take_along_axis(mask, order, 1),
            np.take_along_axis(batch.weight, order, 1),
        )

    @property
    def empty(self) -> int:
        """How many lists have nothing in them."""
        return int((~self.mask.any(1)).sum())

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return relevance, mask and weight there."""
        relevance, mask, weight = (torch.from_numpy(part) for part in (self.relevance, self.mask, self.weight))
        return relevance.to(device), mask.to(device), weight.to(device)


__all__ = ["CandidateLists", "QueryBatches"]
