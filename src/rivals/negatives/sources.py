"""Sources that propose candidates without scoring them: random documents and the positives of a batch.

A source excludes nothing; filters mark. Alone, a source orders its candidates, and their scores are minus their place
(0, -1, ...) where nobody gave better ones. Filters that compare with the positive need one scorer for both: unite the
source with a retriever, `(RandomSource(documents) | dense) >> PositiveAware(relative=0.05)`, or put `Rescore(dense)`
behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.pipeline import Retriever
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._random_draws import distinct_draws, query_keys


class Proposer(Retriever):
    """A source whose own `score` knows nothing: NaN for every pair."""

    scores_pairs = False

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return NaN for every pair, float32[m]; this source scores nothing."""
        return np.full(len(query_row), np.nan, dtype=np.float32)

    def _run(
        self,
        queries: Collection,
        offsets: NDArray[np.int64],
        document: NDArray[np.int64],
        score: NDArray[np.float32] | None = None,
        *,
        seed: int = 0,
    ) -> Run:
        """Build the run; without scores the order given is kept, as the score minus the place."""
        values = (0 - lists.positions(offsets)).astype(np.float32) if score is None else score
        return Run.build(
            queries, self.documents, offsets, document, values, scorer=self.name, score_kind=self.score_kind, seed=seed
        )


class RandomSource(Proposer):
    """Proposes `k` documents drawn at random for every query, without replacement: uniformly, or in proportion to weights.

    p(d) = w_d^power / sum of all w^power for the first; each further one from the same weights without those drawn.

    When to use: easy negatives beside mined ones, the baseline of every mining rule, and corpora no retriever knows. Nothing
    is left out, positives included: `KnownPositives` marks them. The draw of a query depends on seed, epoch, its id and the
    number of documents alone, not on the block or the order it comes in.

    Args:
        documents: what to draw from. weights: float[N], 0 or more, such as how often each document is relevant (see
            `by_frequency`); a document of weight 0 is never drawn. None draws uniformly. power: flattens (below 1) or
            sharpens the weights. seed, epoch: another draw for each pair of them.

    Source: uniform negatives, Zhan et al. 2021, STAR (paper 29); frequency to the power 0.75, Mikolov et al. 2013.

    Raises:
        RivalsError: no document, weights of another length, negative, not finite or all 0, a seed or epoch below 0.

    >>> source = RandomSource(Collection(list("abcdef")))
    >>> run = source(Collection(["q"], name="query"), k=3)
    >>> len(run), len(set(run.document.tolist())), run.score.tolist()
    (3, 3, [0.0, -1.0, -2.0])
    """

    def __init__(
        self,
        documents: Collection,
        *,
        weights: Any = None,
        power: float = 1.0,
        seed: int = 0,
        epoch: int = 0,
        name: str = "random",
    ) -> None:
        if not len(documents):
            raise RivalsError("there is no document to draw from")
        _check_counts(seed=(seed, 0), epoch=(epoch, 0))
        self.documents, self.seed, self.epoch, self.name = documents, int(seed), int(epoch), name
        self._mass = None if weights is None else _mass(weights, power, len(documents))

    @classmethod
    def by_frequency(
        cls, dataset: Dataset, *, power: float = 0.75, unseen: float = 0.0, seed: int = 0, epoch: int = 0
    ) -> RandomSource:
        """Return a source that draws a document by how many queries of `dataset` it is relevant to.

        Weight: (count + unseen)^power. Popular documents become the usual negatives, which takes away their head start.

        Args:
            dataset: whose positives are counted; its training part, so that nothing of the test leaks. unseen: added to
                every count; above 0 documents without a positive are drawn too.

        Raises:
            RivalsError: no document has a positive weight, or an option out of range.

        >>> from rivals.data import Judgements
        >>> documents, queries = Collection(["a", "b"]), Collection(["q"], name="query")
        >>> dataset = Dataset(queries, documents, Judgements.build([0], [1], [1], queries=1, documents=2))
        >>> RandomSource.by_frequency(dataset).probabilities.tolist()
        [0.0, 1.0]
        """
        if not 0 <= unseen < np.inf:
            raise RivalsError(f"unseen must be a number, 0 or more, not {unseen}")
        count = np.bincount(dataset.judgements.positives.document, minlength=len(dataset.documents))
        return cls(dataset.documents, weights=count + float(unseen), power=power, seed=seed, epoch=epoch)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability of every document to be the first one drawn, float64[N]; what a sampling correction subtracts the log of."""
        if self._mass is None:
            return np.full(len(self.documents), 1 / len(self.documents))
        return self._mass / self._mass.sum()

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return `k` random documents a query, in the order drawn; fewer where fewer have a weight."""
        keys = query_keys(queries.ids, (self.seed, self.epoch))
        rows = distinct_draws(keys, k, len(self.documents), self._mass)
        drawn = rows >= 0
        offsets = lists.offsets_from_lengths(drawn.sum(axis=1))
        return self._run(queries, offsets, rows[drawn], seed=self.seed)


class InBatchSource(Proposer):
    """Proposes the positives of the other queries of the same batch: what in-batch training compares a query with.

    The queries of `dataset` stand in batches of `batch_size`, in `order` or in a random one. A query's list begins with the
    positives of the query after it and goes round the batch, so cutting at `k` is fair to all; a document that several
    share stands once. A query's own positive appears only if another query has it too, and `KnownPositives` marks it.

    When to use: to filter, weight or audit in-batch negatives with the tools for mined ones, for the batches that will be
    trained on (`order`: the batcher's), or as one part of a union. Queries are found by id, so blocks do not matter.

    Args:
        dataset: the training queries with their positives. batch_size: 2 or more; the last batch may be smaller. order:
            int64[Q], the rows of the dataset in the order they are trained on; None: random by `seed` and `epoch`.

    Source: Karpukhin et al. 2020, DPR, section 3.2 (in-batch negatives); Zhan et al. 2021, STAR (paper 29).

    Raises:
        RivalsError: a batch size below 2, an order that is not a permutation of the queries; called with a query that the
        dataset does not have.

    >>> from rivals.data import Judgements
    >>> queries, documents = Collection(["x", "y", "z"], name="query"), Collection(["a", "b", "c"])
    >>> dataset = Dataset(queries, documents, Judgements.build([0, 1, 2], [0, 1, 2], [1] * 3, queries=3, documents=3))
    >>> run = InBatchSource(dataset, 3, order=[0, 1, 2])(queries)
    >>> documents.ids[run.document].reshape(3, 2).tolist()
    [['b', 'c'], ['c', 'a'], ['a', 'b']]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        order: Any = None,
        seed: int = 0,
        epoch: int = 0,
        name: str = "in-batch",
    ) -> None:
        _check_counts(batch_size=(batch_size, 2), seed=(seed, 0), epoch=(epoch, 0))
        size = len(dataset.queries)
        if order is None:
            order = np.random.default_rng([seed, epoch]).permutation(size)
        order = np.asarray(order)
        if order.shape != (size,) or order.dtype.kind not in "iu" or (np.sort(order) != np.arange(size)).any():
            raise RivalsError(f"order must hold each of the {size} query rows of the dataset once")
        self.documents, self.dataset, self.name, self.seed = dataset.documents, dataset, name, int(seed)
        self.batch_size, self.order = int(batch_size), order.astype(np.int64)
        self._place = np.empty(size, np.int64)
        self._place[self.order] = np.arange(size)

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return the other positives of every query's batch, the next query's first, at most `k`."""
        rows = self.dataset.queries.find(queries.ids)
        if (rows < 0).any():
            unknown = queries.ids[int((rows < 0).argmax())]
            raise RivalsError(f"query '{unknown}' is not among the {len(self.dataset.queries)} that stand in batches")
        known = self.dataset.judgements.positives
        start = self._place[rows] // self.batch_size * self.batch_size
        size = np.minimum(self.batch_size, len(self.order) - start)
        others = lists.offsets_from_lengths(size - 1)
        ahead = 1 + lists.positions(others)  # 1 is the next query of the batch
        within = (np.repeat(self._place[rows] - start, size - 1) + ahead) % np.repeat(size, size - 1)
        other = self.order[np.repeat(start, size - 1) + within]
        index, each = lists.take_segments(known.offsets, other)
        query = np.repeat(lists.segment_ids(others), np.diff(each))
        document = known.document[index]
        first = np.zeros(len(document), dtype=bool)
        first[np.unique(query * np.int64(len(self.documents)) + document, return_index=True)[1]] = True
        query, document = query[first], document[first]
        offsets = lists.offsets_from_lengths(np.bincount(query, minlength=len(queries)))
        inside = lists.positions(offsets) < k
        return self._run(queries, lists.keep_values(inside, offsets), document[inside], seed=self.seed)


def _check_counts(**given: tuple[Any, int]) -> None:
    for name, (value, least) in given.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")


def _mass(weights: Any, power: float, size: int) -> NDArray[np.float64]:
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != (size,):
        raise RivalsError(f"weights have shape {mass.shape} for {size} documents")
    if not np.isfinite(power):
        raise RivalsError(f"power must be a finite number, not {power}")
    if not (np.isfinite(mass) & (mass >= 0)).all():
        row = int((~(np.isfinite(mass) & (mass >= 0))).argmax())
        raise RivalsError(f"the weight of document row {row} is {mass[row]}; weights are finite and 0 or more")
    positive = mass > 0
    if not positive.any():
        raise RivalsError("every weight is 0; there is nothing to draw")
    powered = np.zeros(size)
    logs = power * np.log(mass[positive])
    powered[positive] = np.exp(logs - logs.max())
    return powered
