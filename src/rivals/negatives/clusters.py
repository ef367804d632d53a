"""Clusters of documents in mining: candidates from the clusters near a query, suspects from the positive's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._random_draws import _GOLDEN, query_keys, stream
from rivals.negatives.centers import Clusters
from rivals.negatives.filters import known_positives
from rivals.negatives.vector_source import VectorSource, vectors_of

Choose = Literal["nearest", "random"]
Of = Literal["positive", "query"]

_PAIRS = 1 << 21  # pairs of a query and a member scored at once


class ClusterSource(Retriever):
    """Proposes members of the clusters nearest to a query: the hardest of them, or random ones.

    The clusters of all documents are ordered by the distance of their centres from the query's vector. The first `skip`
    are passed over, and with `exclude_positives` those in which a positive of the query lies; candidates come from the
    `nearest` that follow. Scores are the retriever's.

    When to use: `skip=1` for hard negatives that are of another topic than the query (ClusterNS takes the second nearest
    cluster); "random" with `skip=0` for negatives of the right kind where similarity says too little (LEMON, whose
    pool is the three nearest of 15 clusters). Also a search that looks at a share of the corpus only.

    Args:
        retriever: gives the vectors and scores pairs, such as `Dense`. clusters: of its documents. nearest: how many
            clusters to take candidates from. choose: the `k` of highest score, "nearest", or `k` at "random", without
            replacement; the draw of a query depends on seed, epoch and its id alone. exclude_positives: needs a dataset.

    Source: Deng et al. 2023, ClusterNS, hard negatives from the second nearest cluster (paper 85: its centroid; members
    are ours); LEMON 2022, pools from the nearest clusters (paper 49).

    Raises:
        RivalsError: a retriever without vectors, clusters of another number of documents, nearest or skip out of range,
        an unknown choice; called without a dataset while positives are to be excluded.

    >>> class Line(Retriever):
    ...     name, score_kind, documents = "line", "other", Collection(["a", "b", "c", "d"])
    ...     vectors = np.array([[0.0], [1.0], [4.0], [9.0]], np.float32)
    ...     def query_vectors(self, queries):
    ...         return np.array([[0.2]], np.float32)
    ...     def score(self, queries, query_row, document_row):
    ...         return -np.abs(0.2 - self.vectors[document_row, 0])
    ...     def retrieve(self, queries, k):
    ...         raise AssertionError
    >>> clusters = Clusters.given([0, 0, 1, 2], vectors=Line.vectors)
    >>> run = ClusterSource(Line(), clusters, nearest=1, skip=1)(Collection(["q"]), k=5)
    >>> run.documents.ids[run.document].tolist()
    ['c']
    """

    def __init__(
        self,
        retriever: Retriever,
        clusters: Clusters,
        *,
        nearest: int = 3,
        skip: int = 0,
        choose: Choose = "nearest",
        exclude_positives: bool = False,
        seed: int = 0,
        epoch: int = 0,
        name: str = "clusters",
    ) -> None:
        if not isinstance(retriever, Retriever) or not isinstance(retriever, VectorSource):
            raise RivalsError(f"{type(retriever).__name__} is no retriever with vectors; give Dense or the like")
        check_clusters(clusters, retriever.documents)
        if nearest < 1 or skip < 0 or nearest + skip > len(clusters):
            raise RivalsError(
                f"nearest must be 1 or more, skip 0 or more and both together at most {len(clusters)}, the clusters; not "
                f"{nearest} and {skip}"
            )
        if choose not in ("nearest", "random"):
            raise RivalsError(f"choose must be 'nearest' or 'random', not {choose!r}")
        if seed < 0 or epoch < 0:
            raise RivalsError(f"seed and epoch must be 0 or more, not {seed} and {epoch}")
        self.retriever, self.clusters, self.name = retriever, clusters, name
        self.documents, self.score_kind = retriever.documents, retriever.score_kind
        self.vectors: VectorSource = retriever
        self.nearest, self.skip, self.exclude_positives = nearest, skip, exclude_positives
        self.choose: Choose = choose
        self.seed, self.epoch = seed, epoch

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        if not (self.exclude_positives and isinstance(queries, Dataset)):
            return super().__call__(queries, k)
        if k < 1:
            raise RivalsError(f"k must be at least 1, not {k}")
        check_same_documents(queries.documents, self.documents)
        return self.with_positives(self._run(queries.queries, k, queries.judgements.positives), queries)

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return up to `k` members of the clusters near each query."""
        if self.exclude_positives:
            raise RivalsError("exclude_positives needs judgements; call the source with a dataset, source(dataset, k)")
        return self._run(queries, k, None)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the retriever's score of each pair, float32[m]."""
        return self.retriever.score(queries, query_row, document_row)

    def _run(self, queries: Collection, k: int, known: Judgements | None) -> Run:
        chosen, bounds = self._chosen(queries, known)
        sizes = lists.segment_reduce(np.add, self.clusters.sizes[chosen], bounds)
        keys = query_keys(queries.ids, (self.seed, self.epoch)) if self.choose == "random" else None
        documents, scores, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        ties = self.documents.tie_order
        for part in _blocks(sizes):
            member, _ = lists.take_segments(self.clusters.bounds, chosen[bounds[part.start] : bounds[part.stop]])
            member, offsets = self.clusters.members[member], lists.offsets_from_lengths(sizes[part])
            asked = lists.segment_ids(offsets) + part.start
            if keys is None:
                score = self.retriever.score(queries, asked, member)
                order = lists.rank_order(score, ties[member], offsets)
            else:
                with np.errstate(over="ignore"):  # number `member` of the query's stream, see `stream`
                    own = keys[asked] + member.astype(np.uint64) * _GOLDEN
                order = lists.rank_order(stream(own, np.zeros(1, np.int64))[:, 0], ties[member], offsets)
            order = order[lists.positions(offsets) < k]
            member, asked = member[order], asked[order]
            documents.append(member)
            scores.append(score[order] if keys is None else self.retriever.score(queries, asked, member))
            lengths.append(np.minimum(sizes[part], k))
        return Run.build(
            queries,
            self.documents,
            lists.offsets_from_lengths(np.concatenate(lengths)),
            np.concatenate(documents),
            np.concatenate(scores),
            scorer=self.name,
            score_kind=self.score_kind,
            seed=self.seed,
        )

    def _chosen(self, queries: Collection, known: Judgements | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The clusters that each query takes candidates from, and their offsets."""
        own = None if known is None else self.clusters.labels[known.document]
        more = 0 if known is None else int(np.diff(known.offsets).max(initial=0))
        number = min(self.skip + self.nearest + more, len(self.clusters))
        order = self.clusters.nearest(self.vectors.query_vectors(queries), number)[:, self.skip :]
        free = np.ones(order.shape, bool)
        if known is not None and own is not None:
            row = np.repeat(np.arange(len(order)), order.shape[1])
            free = (lists.find_pairs(known.offsets, own, row, order.ravel()) < 0).reshape(order.shape)
        free &= np.cumsum(free, axis=1) <= self.nearest
        return order[free], lists.offsets_from_lengths(free.sum(axis=1))

    def __repr__(self) -> str:
        return f"ClusterSource({self.retriever.name}, {self.clusters!r}, nearest={self.nearest}, skip={self.skip})"


@dataclass(frozen=True, eq=False, repr=False)
class SameCluster(Transform):
    """Mark candidates of the same cluster as a positive of their query, or as the query itself: likely unlabelled positives.

    Use it with clusters much smaller than a topic: with few clusters it marks most of what is hard. Marked rows are the
    `suspects` of `rivals.losses.bidirectional_margin_loss`, which holds them in a band instead of leaving them out.

    Args:
        clusters: of the documents. of: whose cluster counts, that of any "positive" or the one nearest to the "query".
        source: gives the query's vector; needed for "query" only.

    Source: Deng et al. 2023, ClusterNS, false negatives are batch members of one's own cluster (paper 85: "query").
    Clusters of positives are ours, and mark fewer true negatives.

    Raises:
        RivalsError: an unknown `of`, "query" without a source; called on a run over another number of documents.

    >>> documents = Collection(["a", "b", "c"])
    >>> run = Run.build(Collection(["q"]), documents, [0, 2], [1, 2], [.9, .8], positives=([0, 1], [0]))
    >>> SameCluster(Clusters.given([0, 0, 1], centers=[[0.0], [1.0]]))(run).keep.tolist()
    [False, True]
    """

    clusters: Clusters
    of: Of = "positive"
    source: VectorSource | None = None

    def __post_init__(self) -> None:
        _check_of(self.of)
        if self.of == "query" and self.source is None:
            raise RivalsError("of='query' needs a source of query vectors, such as Dense")

    def __repr__(self) -> str:
        return f"SameCluster({self.clusters!r}, of={self.of!r})"

    def __call__(self, run: Run) -> Run:
        check_clusters(self.clusters, run.documents)
        labels = self.clusters.labels
        if self.of == "positive":
            own = labels[run.positive]
            same = lists.find_pairs(run.positive_offsets, own, run.query, labels[run.document]) >= 0
        else:
            assert self.source is not None
            queries, _ = vectors_of(run, self.source)
            same = self.clusters.nearest(queries)[run.query, 0] == labels[run.document]
        return run.mark(same & ~known_positives(run), f"same cluster as the {self.of}")


@dataclass(frozen=True, eq=False, repr=False)
class ClusterWeight(Transform):
    """Weigh candidates by their cluster: the own one of a positive or the query, the next nearest, any other.

    A candidate of the own cluster gets the weight `same` (suspected of being a positive), of the second nearest `hard`,
    of others `rest`. With several positives the least distant relation counts. Known positives keep their weight. The
    weights are set, not multiplied: of two weighting transforms the later one counts.

    Args:
        clusters: of the documents. source: gives the vectors. same, hard, rest: 0 or more. `hard` is e^w for ClusterNS'
            `hard_negative_weight` w, added to the logit of the second nearest centroid. of: as in `SameCluster`.

    Source: Deng et al. 2023, ClusterNS, section 3 (paper 85): its false negatives, hard negatives (rank 2) and others.

    Raises:
        RivalsError: weights below 0 or not finite, an unknown `of`, fewer than 2 clusters; called on a run over other
        documents.

    >>> class Line:
    ...     documents, vectors = Collection(list("abcd")), np.array([[0.0], [1.0], [4.0], [9.0]], np.float32)
    ...     def query_vectors(self, queries):
    ...         return np.array([[0.2]], np.float32)
    >>> run = Run.build(Collection(["q"]), Line.documents, [0, 4], range(4), [.9, .8, .7, .6])
    >>> clusters = Clusters.given([0, 0, 1, 2], vectors=Line.vectors)
    >>> ClusterWeight(clusters, Line(), hard=2.0, of="query")(run).weight.tolist()
    [0.0, 0.0, 2.0, 1.0]
    """

    clusters: Clusters
    source: VectorSource
    same: float = 0.0
    hard: float = 1.0
    rest: float = 1.0
    of: Of = "positive"

    def __post_init__(self) -> None:
        _check_of(self.of)
        for name, value in (("same", self.same), ("hard", self.hard), ("rest", self.rest)):
            if not (np.isfinite(value) and value >= 0):
                raise RivalsError(f"{name} must be a finite weight, 0 or more, not {value!r}")
        if len(self.clusters) < 2:
            raise RivalsError("weights by the second nearest cluster need 2 clusters or more")

    def __repr__(self) -> str:
        return f"ClusterWeight({self.clusters!r}, same={self.same:g}, hard={self.hard:g}, rest={self.rest:g}, of={self.of!r})"

    def place(self, run: Run) -> NDArray[np.int8]:
        """Return 0 for candidates of the own cluster, 1 for those of the next nearest, 2 for others, int8[n]."""
        check_clusters(self.clusters, run.documents)
        queries, documents = vectors_of(run, self.source)
        if self.of == "query":
            offsets, own, nearest = np.arange(len(queries) + 1), None, self.clusters.nearest(queries, 2)
        else:
            offsets, own = run.positive_offsets, self.clusters.labels[run.positive]
            nearest = self.clusters.nearest(documents[run.positive], 2)
        first = nearest[:, 0] if own is None else own
        second = np.where(nearest[:, 0] == first, nearest[:, 1], nearest[:, 0])
        found = self.clusters.labels[run.document]
        is_first, is_second = (lists.find_pairs(offsets, each, run.query, found) >= 0 for each in (first, second))
        return np.where(is_first, 0, np.where(is_second, 1, 2)).astype(np.int8)

    def __call__(self, run: Run) -> Run:
        weight = np.array([self.same, self.hard, self.rest], np.float32)[self.place(run)]
        return run.replace(weight=np.where(known_positives(run), run.weight, weight))


def check_clusters(clusters: Clusters, documents: Collection) -> None:
    """Raise a RivalsError unless there is a cluster for every document."""
    if len(clusters.labels) != len(documents):
        raise RivalsError(
            f"the clusters are of {len(clusters.labels)} rows, but there are {len(documents)} documents; cluster the "
            "vectors of these documents"
        )


def _check_of(of: str) -> None:
    if of not in ("positive", "query"):
        raise RivalsError(f"of must be 'positive' or 'query', not {of!r}")


def _blocks(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of lists which together hold about `_PAIRS` values."""
    running = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(running[start - 1]) if start else 0
        stop = max(int(np.searchsorted(running, before + _PAIRS, side="right")), start + 1)
        yield slice(start, stop)
        start = stop
