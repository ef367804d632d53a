"""Batches made of whole clusters of examples that are hard negatives for each other (B3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.negatives.batching.batchers import Plan, Planned
from rivals.negatives.batching.examples import Examples
from rivals.negatives.batching.shared import BatchShared


class Clustered(Planned):
    """Batches of `batch_size` / K whole clusters, drawn anew in every epoch.

    Small batches of hard negatives train like much larger random ones. Make the clusters once, before training:
    `partition(build_hard_graph((queries, targets)), K)`, rows of the graph being the examples.

    If one cluster is smaller than K, each epoch fills it up from another one, whose rest is left over; so it is other
    examples that `drop_last` leaves out each time. Without `drop_last` they make a last, shorter batch.

    Use it where batches have to be small. Clusters hold what a teacher thinks alike: too small a `skip` in the graph fills
    them with false negatives. Training that becomes unstable wants a lower learning rate or more clusters a batch.

    Args:
        examples, batch_size, seed, drop_last: see `Planned`. clusters: int[E], the cluster of every example, all of the
            same size K but for one smaller. shared: draws further negatives for every batch (B3++), one list an example.

    Source: Thirukovalluru et al. (2025), Breaking the Batch Barrier (B3), step 4. Paper 28.

    Raises:
        RivalsError: clusters of other sizes, K < 2 or not dividing batch_size, lists of another number of examples.

    >>> from rivals.data import Collection, Dataset, Judgements
    >>> judged = Judgements.build(range(4), range(4), [1] * 4, queries=4, documents=4)
    >>> data = Dataset(Collection(list("abcd")), Collection(list("wxyz")), judged)
    >>> sorted(sorted(batch.anchor.tolist()) for batch in Clustered(Examples(data), [0, 1, 0, 1], 2))
    [[0, 2], [1, 3]]
    """

    part = 5

    def __init__(
        self,
        examples: Examples,
        clusters: Any,
        batch_size: int,
        *,
        shared: BatchShared | None = None,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(examples, batch_size, seed=seed, drop_last=drop_last)
        labels = np.asarray(clusters)
        if labels.shape != (len(examples),):
            raise RivalsError(f"clusters have shape {labels.shape} for {len(examples)} examples; give one each")
        cluster = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        sizes = np.bincount(cluster)
        self.size = int(sizes.max())
        if self.size < 2:
            raise RivalsError("all clusters have one example; make them of 2 or more")
        if (sizes < self.size).sum() > 1:
            raise RivalsError(
                f"clusters have from {sizes.min()} to {self.size} examples; all but one must have the same number "
                "(`partition` gives such clusters)"
            )
        if batch_size % self.size:
            raise RivalsError(
                f"clusters of {self.size} do not fill batches of {batch_size}; the size must divide batch_size"
            )
        if shared is not None and len(shared) != len(examples):
            raise RivalsError(
                f"{shared!r} for {len(examples)} examples; give one list an example (of_run(run, examples.query))"
            )
        order = np.argsort(cluster, kind="stable")
        full = sizes == self.size
        self._full = order[full[cluster[order]]].reshape(-1, self.size)
        self._small = order[~full[cluster[order]]]
        self.shared = shared

    def plan(self, epoch: int) -> Plan:
        """Return the batches of an epoch, the same at every call."""
        generator = self.generator(epoch)
        clusters = generator.permuted(self._full[generator.permutation(len(self._full))], axis=1)
        rest = np.zeros(0, np.int64)
        small = len(self._small)
        if small and len(clusters):
            donor, clusters = clusters[-1], clusters[:-1]
            filled = np.concatenate([self._small, donor[: self.size - small]])
            rest = donor[self.size - small :]
            place = int(generator.integers(len(clusters) + 1))
            clusters = np.insert(clusters, place, filled, axis=0)
        elif small:
            rest = self._small
        return Plan.of_order(np.concatenate([clusters.ravel(), rest]), self.batch_size, drop_last=self.drop_last)

    def extra(self, rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """Return the negatives drawn for the batch as a whole, without its positives; none without `shared`."""
        if self.shared is None:
            return super().extra(rows, step)
        generator = np.random.default_rng([self.seed, self.part, self.epoch, step])
        return self.shared.draw(rows, generator, exclude=self.examples.positive(self.epoch)[rows])

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        more = {"clusters": _digest(self._full, self._small), "shared": None if self.shared is None else self.shared.h}
        return super().options() | more


def _digest(*arrays: NDArray[np.int64]) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
