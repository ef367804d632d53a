"""Training any module on rows and targets with any loss: metric learning, classes, labels, grades, numbers, lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.training.executor import Vectors


class RowBatch(NamedTuple):
    """Rows of one batch, and the seed of what is drawn to augment them."""

    rows: NDArray[np.int64]
    seed: int


class SupervisedObjective:
    """A module over rows of tensors, and a loss of what it gives and the rows' targets.

    Args:
        model: called with a batch's rows of every input; gives a tensor whose first dimension is the batch.
        inputs: tensors with a row per example (pictures, features, token ids and their mask, lists [Q, C, F], ...).
        targets: tensors with a row per example, handed to the loss after the model's output (labels, relevance and mask, grades, ...).
        loss: `loss(outputs, *targets) -> scalar`, any of `rivals.losses`, with its options bound by `functools.partial`.
        validate: returns the held-out score of the present weights, higher is better; needed if the loop evaluates.
        batch_size: rows per batch. drop_last: leave out a last batch that is smaller.
        classes: labels int[N]; batches then hold `each` rows of every class drawn, as metric losses need. A class with fewer rows gives
            all of them. each: rows per class; a batch so holds up to batch_size / each classes (multi-similarity, paper 41: 14 of 5 rows).
        augment: changes a batch's inputs before the model, drawing from the generator alone: two views, noise, crops.
        seed: of the order.

    Batches come in chunks of `chunk` rows through the model when the gradient cache runs it; the loss sees all of them.

    When to use: everything that is not text retrieval. The same loop, checkpoints, regimes and executors serve it.

    Raises:
        RivalsError: inputs or targets of different lengths, sizes below 1.

    >>> from rivals.losses import softmax_loss
    >>> from rivals.models.images import FeatureEncoder
    >>> from rivals.training import LoopConfig, fit
    >>> rows = torch.eye(4)
    >>> objective = SupervisedObjective(FeatureEncoder(4, 4), [rows], [rows], softmax_loss, batch_size=2)
    >>> result = fit(objective, LoopConfig(epochs=30, learning_rate=0.05, evaluations=0, warmup=0.0))
    >>> result.losses[-1][1] < 0.1 < result.losses[0][1]
    True
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        loss: Callable[..., Tensor],
        *,
        validate: Callable[[], float] | None = None,
        batch_size: int = 64,
        drop_last: bool = False,
        classes: Tensor | None = None,
        each: int = 4,
        augment: Callable[[Sequence[Tensor], torch.Generator], Sequence[Tensor]] | None = None,
        chunk: int = 32,
        seed: int = 0,
    ) -> None:
        lengths = {len(tensor) for tensor in (*inputs, *targets, *([] if classes is None else [classes]))}
        if not inputs or len(lengths) != 1:
            raise RivalsError(
                f"inputs, targets and classes must have a row per example each; their lengths are {sorted(lengths)}"
            )
        for name, value in (("batch_size", batch_size), ("each", each), ("chunk", chunk)):
            if value < 1:
                raise RivalsError(f"{name} must be 1 or more, not {value}")
        self.model, self.inputs, self.targets = model, list(inputs), list(targets)
        self._loss, self._validate, self._augment = loss, validate, augment
        self.batch_size, self.drop_last, self.each, self.chunk, self.seed = batch_size, drop_last, each, chunk, seed
        self._groups = None if classes is None else _groups(classes)
        self.options: dict[str, Any] = {
            "batch_size": batch_size,
            "drop_last": drop_last,
            "rows": lengths.pop(),
            "order_seed": seed,
        }
        if self._groups is not None:
            self.options["each"] = each
        self.batches = lru_cache(maxsize=2)(self._batches)

    def _batches(self, epoch: int) -> list[RowBatch]:
        rng = np.random.default_rng([self.seed, 37, epoch])
        order = (
            rng.permutation(len(self.inputs[0])) if self._groups is None else _by_class(self._groups, self.each, rng)
        )
        cuts = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        whole = [cut for cut in cuts if len(cut) == self.batch_size]
        kept = whole if self.drop_last and whole else cuts
        return [RowBatch(rows, int(rng.integers(2**62))) for rows in kept]

    def _rows(self, batch: RowBatch) -> list[Tensor]:
        device = next(self.model.parameters()).device
        rows = torch.from_numpy(batch.rows)
        inputs = [tensor[rows].to(device) for tensor in self.inputs]
        if self._augment is None:
            return inputs
        return list(self._augment(inputs, torch.Generator().manual_seed(batch.seed)))

    def loss(self, batch: RowBatch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch in one pass."""
        return self._of(self.model(*self._rows(batch)), batch)

    def parts(self, batch: RowBatch) -> list[Callable[[], Vectors]]:
        """Return what sends each chunk of rows through the model."""
        inputs = self._rows(batch)

        def send(start: int) -> Vectors:
            return (self.model(*(tensor[start : start + self.chunk] for tensor in inputs)),)

        return [partial(send, start) for start in range(0, len(inputs[0]), self.chunk)]

    def joined(self, batch: RowBatch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the loss of a batch from its chunks' outputs."""
        return self._of(torch.cat([found for (found,) in vectors]), batch)

    def _of(self, outputs: Tensor, batch: RowBatch) -> Tensor:
        rows = torch.from_numpy(batch.rows)
        return self._loss(outputs, *(target[rows].to(outputs.device) for target in self.targets))

    def evaluate(self) -> float:
        """Return the held-out score of the present weights."""
        if self._validate is None:
            raise RivalsError("choosing a checkpoint needs validate=; give it, or set evaluations to 0")
        with torch.no_grad():
            return float(self._validate())


def _groups(classes: Tensor) -> list[NDArray[np.int64]]:
    labels = classes.detach().cpu().numpy()
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _by_class(groups: Sequence[NDArray[np.int64]], each: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all rows, cut into packs of up to `each` of one class, the packs in random order."""
    packs = []
    for group in groups:
        shuffled = rng.permutation(group)
        packs += [shuffled[start : start + each] for start in range(0, len(group), each)]
    return np.concatenate([packs[i] for i in rng.permutation(len(packs))])
