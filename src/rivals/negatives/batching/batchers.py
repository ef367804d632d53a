"""Batchers: which examples go into which batch, epoch after epoch, the same under a seed and resumable anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError
from rivals.negatives.batching.batch import Batch
from rivals.negatives.batching.examples import Examples, Share

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Batcher(Protocol[T_co]):
    """What gives the batches of an epoch.

    Iterating begins at the epoch's first batch, or, after `load_state_dict`, at the one after the last given out.
    Batches depend on the seed and the epoch only, so a run that goes on from a state sees the same as one that never
    stopped.
    """

    def __iter__(self) -> Iterator[T_co]:
        """Give the batches of the present epoch."""
        ...

    def __len__(self) -> int:
        """The number of batches of the present epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, 0 or later."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return where the batcher stands, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a batcher with the same options stood."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of an epoch: examples `rows` int64[m], batch i `rows[offsets[i]:offsets[i + 1]]`; `left` int64 are in none."""

    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    left: NDArray[np.int64]

    @classmethod
    def of_order(cls, order: NDArray[np.int64], size: int, *, drop_last: bool) -> Plan:
        """Cut an order of examples into batches of `size`, the last shorter or left out.

        >>> Plan.of_order(np.arange(5), 2, drop_last=True).left.tolist()
        [4]
        """
        whole = len(order) // size * size if drop_last else len(order)
        cuts = np.minimum(np.arange(-(-whole // size) + 1) * size, whole)
        return cls(order[:whole], cuts.astype(np.int64), order[whole:])

    @classmethod
    def of_batches(cls, order: NDArray[np.int64], batch: NDArray[np.int64], size: int, *, drop_last: bool) -> Plan:
        """Gather examples by the batch each is in, batches ascending; leave out those of fewer than `size` if wanted."""
        by_batch = order[np.argsort(batch[order], kind="stable")]
        counts = np.bincount(batch)
        keep = counts == size if drop_last else counts > 0
        inside = keep[batch[by_batch]]
        return cls(by_batch[inside], lists.offsets_from_lengths(counts[keep]), by_batch[~inside])

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.offsets) - 1


class Planned(ABC):
    """A batcher that plans a whole epoch at once. A subclass gives `plan`; everything else is here.

    Args:
        examples: see `Examples`. batch_size: examples a batch. seed: of the order. drop_last: leave examples that fill no
            whole batch out of the epoch (`left` counts them); False gives shorter batches.

    Raises:
        RivalsError: batch_size < 1, seed < 0.
    """

    part: ClassVar[int] = 0  # the number of the kind of batcher among the seeds
    share: Share | None = None
    merge: ClassVar[bool] = False
    negatives: int | None = None

    def __init__(self, examples: Examples, batch_size: int, *, seed: int = 0, drop_last: bool = False) -> None:
        self.examples = examples
        self.batch_size = whole_number(batch_size, "batch_size", 1)
        self.seed, self.drop_last = whole_number(seed, "seed", 0), bool(drop_last)
        self.epoch = 0
        self._next = self._start = 0
        self._plan: tuple[int, Plan] | None = None

    @abstractmethod
    def plan(self, epoch: int) -> Plan:
        """Return the batches of an epoch, the same at every call."""

    def extra(self, rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """Return documents that compete for all anchors of a batch; none here."""
        return np.zeros(0, np.int64)

    @property
    def present(self) -> Plan:
        """The plan of the present epoch."""
        if self._plan is None or self._plan[0] != self.epoch:
            self._plan = (self.epoch, self.plan(self.epoch))
        return self._plan[1]

    @property
    def left(self) -> int:
        """How many examples the present epoch leaves out."""
        return len(self.present.left)

    def __len__(self) -> int:
        return len(self.present)

    def __iter__(self) -> Iterator[Batch]:
        plan, epoch = self.present, self.epoch
        self._next, self._start = self._start, 0
        for step in range(self._next, len(plan)):
            rows = plan.rows[plan.offsets[step] : plan.offsets[step + 1]]
            self._next = step + 1
            yield self.examples.batch(
                rows,
                epoch=epoch,
                step=step,
                merge=self.merge,
                share=self.share,
                negatives=self.negatives,
                extra=self.extra(rows, step),
            )

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, 0 or later."""
        self.epoch = whole_number(epoch, "epoch", 0)
        self._next = self._start = 0

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        return {
            "batcher": type(self).__name__,
            "examples": len(self.examples),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "drop_last": self.drop_last,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of batches given out, and the options."""
        return {"epoch": self.epoch, "step": self._next, "options": self.options()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last batch that was given out.

        Raises:
            RivalsError: a state of other options, or beyond the epoch's batches.
        """
        check_options(state, self.options())
        self.set_epoch(int(state["epoch"]))
        step = whole_number(state["step"], "step", 0)
        if step > len(self):
            raise RivalsError(f"the state stands at batch {step}, but the epoch has {len(self)}")
        self._next = self._start = step

    def generator(self, epoch: int) -> np.random.Generator:
        """Return the generator of an epoch's plan."""
        return np.random.default_rng([self.seed, self.part, epoch])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.examples!r}, batch_size={self.batch_size})"


class Shuffled(Planned):
    """All examples in random order, cut into batches.

    Use it as the plain choice, and as the control that other batchers have to beat.

    >>> from rivals.data import Collection, Dataset, Judgements
    >>> judged = Judgements.build(range(5), range(5), [1] * 5, queries=5, documents=5)
    >>> data = Dataset(Collection(list("abcde")), Collection(list("vwxyz")), judged)
    >>> [len(batch) for batch in Shuffled(Examples(data), 2)]
    [2, 2, 1]
    """

    part = 1

    def plan(self, epoch: int) -> Plan:
        """Return the batches of an epoch, the same at every call."""
        order = self.generator(epoch).permutation(len(self.examples))
        return Plan.of_order(order, self.batch_size, drop_last=self.drop_last)


class NoDuplicates(Planned):
    """Batches in which no query, no document and no text comes twice, so that no in-batch negative is a positive in disguise.

    Examples in random order each go into the first batch that has room and nothing in common with them. A text that more
    examples share than there are batches makes further, short batches; with `drop_last` they are left out and counted.

    Use it where texts repeat: answers that serve many questions, questions with many answers. The mask of a batch hides
    such columns anyway; here none is spent on them.

    Args:
        examples, batch_size, seed, drop_last: see `Planned`. negatives: whether drawn negatives must not repeat either.

    Source: the sampler of the same purpose in sentence-transformers; assigned in one pass here.

    >>> from rivals.data import Collection, Dataset, Judgements
    >>> judged = Judgements.build([0, 1, 2], [0, 0, 1], [1, 1, 1], queries=3, documents=2)
    >>> data = Dataset(Collection(list("abc")), Collection(list("yz")), judged)
    >>> sorted(len(batch.columns) for batch in NoDuplicates(Examples(data), 2))
    [1, 2]
    """

    part = 2

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        negatives: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(examples, batch_size, seed=seed, drop_last=drop_last)
        self.with_negatives = bool(negatives)

    def plan(self, epoch: int) -> Plan:
        """Return the batches of an epoch, the same at every call."""
        order = self.generator(epoch).permutation(len(self.examples))
        keys = self.examples.keys(epoch, negatives=self.with_negatives)
        return Plan.of_batches(order, apart(order, *keys, self.batch_size), self.batch_size, drop_last=self.drop_last)

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        return super().options() | {"negatives": self.with_negatives}


class Grouped(Shuffled):
    """Whole groups: `positives` anchors a batch, each with its positive and up to `negatives` of its own negatives.

    Columns compete within their group only, so a negative that is right for another anchor does no harm. An anchor with
    fewer negatives brings fewer; one with none stays and is counted (`Batch.lonely`).

    Use it for pointwise rerankers, with generated queries as candidates of a page (`swap_roles`). Half such groups and
    half ordinary ones are `TaskBalanced` over two of these.

    Args:
        examples, seed, drop_last: see `Planned`; the examples need negatives. positives, negatives: 8 and 3 give 32
            pairs.

    Source: DocReRank (2025), batches of 8 positives and their 24 negatives. Paper 9.

    Raises:
        RivalsError: examples without negatives, numbers < 1.

    >>> from rivals.data import Collection, Dataset, Judgements, Run
    >>> judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=3)
    >>> data = Dataset(Collection(["p", "q"]), Collection(["a", "b", "c"]), judged)
    >>> run = Run.build(data.queries, data.documents, [0, 1, 2], [2, 2], [.5, .5])
    >>> from rivals.negatives import Top
    >>> batch = next(iter(Grouped(Examples(data, run=run, negatives=Top(1)), positives=2, negatives=1)))
    >>> batch.mask.sum(1).tolist()
    [2, 2]
    """

    part = 3
    share: Share | None = "own"

    def __init__(
        self, examples: Examples, *, positives: int = 8, negatives: int = 3, seed: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__(examples, whole_number(positives, "positives", 1), seed=seed, drop_last=drop_last)
        self.negatives = whole_number(negatives, "negatives", 1)
        if examples.negatives is None:
            raise RivalsError("Grouped batches are made of each anchor's own negatives; give Examples(negatives=...)")

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        return super().options() | {"negatives": self.negatives}


class QuerySharing(Planned):
    """Batches in which a query stands once, with several of its positives at a time.

    A query's positives are shuffled and taken up to `positives` at a time; each such part is an anchor of some batch,
    no two parts of a query in the same one. `relevance` then has several entries a row: use it with losses for several
    positives (the log of their sum, their mean, supervised contrast).

    Args:
        examples: with per="pair" or "judgement". queries: anchors a batch. positives: of a query at a time. seed,
            drop_last: see `Planned`.

    Raises:
        RivalsError: examples made per query, numbers < 1.

    >>> from rivals.data import Collection, Dataset, Judgements
    >>> judged = Judgements.build([0, 0, 1], [0, 1, 2], [1, 1, 1], queries=2, documents=3)
    >>> data = Dataset(Collection(["p", "q"]), Collection(["a", "b", "c"]), judged)
    >>> batch = next(iter(QuerySharing(Examples(data, per="pair"), queries=2, positives=2)))
    >>> sorted(batch.relevance.sum(1).tolist())
    [1.0, 2.0]
    """

    part = 4
    merge = True

    def __init__(
        self, examples: Examples, *, queries: int = 8, positives: int = 4, seed: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__(examples, whole_number(queries, "queries", 1), seed=seed, drop_last=drop_last)
        self.positives = whole_number(positives, "positives", 1)
        if examples.per == "query":
            raise RivalsError("QuerySharing needs every positive as an example; make Examples(per='pair')")

    def plan(self, epoch: int) -> Plan:
        """Return the batches of an epoch, the same at every call."""
        generator = self.generator(epoch)
        order = generator.permutation(len(self.examples))
        order = order[np.argsort(self.examples.query[order], kind="stable")]
        query = self.examples.query[order]
        place = np.arange(len(order)) - np.searchsorted(query, query)
        number = np.cumsum(place % self.positives == 0) - 1  # of the part each example is in
        first = np.flatnonzero(place % self.positives == 0)
        owner = np.unique(query[first], return_inverse=True)[1].astype(np.int64)
        parts = generator.permutation(len(first))
        batch = apart(parts, np.arange(len(first) + 1), owner, self.batch_size)
        rank = np.empty(len(parts), np.int64)
        rank[parts] = np.arange(len(parts))
        within = np.lexsort((np.arange(len(order)), rank[number], batch[number]))
        counts = np.bincount(batch)
        keep = counts == self.batch_size if self.drop_last else counts > 0
        inside = keep[batch[number[within]]]
        sizes = np.bincount(batch[number], minlength=len(counts))[keep]
        return Plan(order[within[inside]], lists.offsets_from_lengths(sizes), order[within[~inside]])

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        return super().options() | {"positives": self.positives}


def apart(
    order: NDArray[np.int64], offsets: NDArray[np.int64], keys: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """Return a batch for every example such that no batch has a key twice or more than `size` examples, int64[E].

    Args:
        order: in which examples are placed. offsets, keys: example i has `keys[offsets[i]:offsets[i + 1]]`, numbers from
            0.

    >>> apart(np.arange(3), np.array([0, 1, 2, 3]), np.array([0, 0, 1]), 2).tolist()
    [0, 1, 0]
    """
    from rivals.negatives.batching._first_fit import first_fit

    return first_fit(offsets, keys, order, int(keys.max(initial=-1)) + 1, size)


def check_options(state: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise a RivalsError that names the first option in which a state differs from those here."""
    given = state.get("options", {})
    for name, value in options.items():
        if given.get(name) != value:
            raise RivalsError(
                f"the state is of a batcher with {name}={given.get(name)!r}, this one has {value!r}; go on with the "
                "same data and options"
            )


def whole_number(value: Any, name: str, least: int) -> int:
    """Return `value` as an int, or raise a RivalsError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return int(value)
