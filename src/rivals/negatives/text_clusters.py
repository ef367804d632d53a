"""Corrupted triples from text clusters: entities whose texts are near that of the entity that is kept (LEMON)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError
from rivals.negatives.centers import Clusters, k_means
from rivals.negatives.known_triples import KnownTriples, check_triples
from rivals.negatives.principal import fit_principal_axes

Side = Literal["head", "tail"]
Around = Literal["kept", "replaced"]

_ROUNDS = 8  # of rejection before the pool of a triple is written out


class Corrupted(NamedTuple):
    """Entities to put in the place of a triple's head or tail.

    `candidate` int64[N, k], -1 where `mask` bool[N, k] is False (every entity would make a known triple); `fallbacks`:
    how many triples had nothing left in their clusters and were drawn for from all entities.
    """

    candidate: NDArray[np.int64]
    mask: NDArray[np.bool_]
    fallbacks: int


class TextClusterNegatives:
    """Draws corrupted triples from the clusters of entity texts nearest to one of the triple's entities.

    Uniform corruption gives silly negatives; the texts say which entities could stand there. Entities are clustered once
    (k-means++ on their text vectors); for the tail of (h, r, ?), entities come from the `nearest` clusters to h, uniformly
    and with replacement, without those that make a known triple. More of them are unknown true triples than among
    uniform ones: filter, and count `Corrupted.fallbacks`.

    Args:
        embeddings: float[E, d], text vectors of the entities. clusters: how many. nearest: of them to draw from.
            components: reduce to this many principal components first; None clusters the full space (our default), 2
            is the reference's. min_cosine: also ask for this cosine (after reduction) with the entity. around: the
            clusters of the entity "kept", as in the reference, or of the one "replaced", which keeps its type.
            n_init, max_iter, seed: of k-means.

    Source: LEMON (2022) and its code, whose option for `nearest` is called k-hop. Paper 49.

    Raises:
        RivalsError: vectors that are not finite, more clusters than entities, nearest > clusters, numbers < 1, an
        unknown side to start from.

    >>> texts = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]])
    >>> source = TextClusterNegatives(texts, clusters=2, nearest=1)
    >>> members, offsets = source.pool([[0, 0, 2]], "tail")
    >>> members.tolist(), offsets.tolist()
    ([0, 1], [0, 2])
    """

    def __init__(
        self,
        embeddings: Any,
        *,
        clusters: int = 15,
        nearest: int = 3,
        components: int | None = None,
        min_cosine: float | None = None,
        around: Around = "kept",
        n_init: int = 10,
        max_iter: int = 300,
        seed: int = 0,
    ) -> None:
        vectors = _finite(embeddings, "embeddings")
        if not 1 <= clusters <= len(vectors):
            raise RivalsError(f"clusters must lie in 1..{len(vectors)}, the entities; not {clusters}")
        if components is not None:
            vectors = principal_components(vectors, components)
        centers, labels = k_means(
            vectors, clusters, n_init=n_init, max_iter=max_iter, generator=np.random.default_rng(seed)
        )
        self._set(vectors, Clusters(centers, labels), nearest, min_cosine, around)

    @classmethod
    def from_clusters(
        cls,
        vectors: Any,
        centers: Any,
        labels: Any,
        *,
        nearest: int = 3,
        min_cosine: float | None = None,
        around: Around = "kept",
    ) -> TextClusterNegatives:
        """Return the source of clusters made elsewhere.

        Args:
            vectors: float[E, d], (reduced) text vectors. centers: float[K, d]. labels: int[E], each entity's cluster.

        Raises:
            RivalsError: shapes or labels that do not fit, as above.

        >>> source = TextClusterNegatives.from_clusters([[0.0], [1.0], [9.0]], [[0.5], [9.0]], [0, 0, 1], nearest=1)
        >>> source.sizes.tolist()
        [2, 1]
        """
        self = cls.__new__(cls)
        made = Clusters.given(labels, centers=_finite(centers, "centers"))
        self._set(_finite(vectors, "vectors"), made, nearest, min_cosine, around)
        return self

    def _set(
        self,
        vectors: NDArray[np.float64],
        clusters: Clusters,
        nearest: int,
        min_cosine: float | None,
        around: Around,
    ) -> None:
        if clusters.centers.shape[1] != vectors.shape[1] or len(clusters.labels) != len(vectors):
            raise RivalsError(f"vectors {vectors.shape} need centers of their width and one label each")
        if not 1 <= nearest <= len(clusters):
            raise RivalsError(f"nearest must lie in 1..{len(clusters)}, the clusters; not {nearest}")
        if min_cosine is not None and not -1 <= min_cosine <= 1:
            raise RivalsError(f"min_cosine must lie in -1..1, not {min_cosine!r}")
        if around not in ("kept", "replaced"):
            raise RivalsError(f"around must be 'kept' or 'replaced', not {around!r}")
        self.vectors, self.clusters = vectors, clusters
        self.min_cosine, self.around = min_cosine, around
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._unit = vectors / np.where(length > 0, length, 1.0)
        self.nearest = clusters.nearest(vectors, nearest)

    @property
    def centers(self) -> NDArray[np.float64]:
        """The clusters' centres, float64[K, d]."""
        return self.clusters.centers

    @property
    def labels(self) -> NDArray[np.int64]:
        """Each entity's cluster, int64[E]."""
        return self.clusters.labels

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many entities each cluster has, int64[K]."""
        return self.clusters.sizes

    def __len__(self) -> int:
        """The number of entities."""
        return len(self.vectors)

    def pool(self, triples: Any, side: Side, *, known: Any = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the entities that may replace each triple's head or tail: (entities ascending, offsets[N + 1]).

        Args:
            triples: int[N, 3] (head, relation, tail). side: which to replace, "head" or "tail". known: int[M, 3],
                true triples; what would make one of them is left out. None leaves out nothing.

        Raises:
            RivalsError: triples of another shape or naming other entities, an unknown side.
        """
        rows, anchor = self._check(triples, side)
        chosen = self.nearest[anchor]
        entity, offsets = self.clusters.members_of(chosen)
        triple = lists.segment_ids(offsets)
        keep = self._allowed(anchor[triple], entity)
        keep &= ~_Known(known, len(self), side).holds(rows[triple], entity)
        order = np.lexsort((entity[keep], triple[keep]))
        return entity[keep][order], lists.keep_values(keep, offsets)

    def draw(self, triples: Any, side: Side, k: int, *, known: Any = None, generator: np.random.Generator) -> Corrupted:
        """Draw `k` entities for each triple, uniformly from its pool and with replacement.

        A triple whose pool is empty is drawn for from all entities but the known, and counted. O(k) per triple, but
        for pools of which little is left.

        Args: as in `pool`; k: 1 or more.

        Raises:
            RivalsError: as `pool`; k < 1.

        >>> source = TextClusterNegatives.from_clusters([[0.0], [1.0], [9.0]], [[0.5], [9.0]], [0, 0, 1], nearest=1)
        >>> triples = [[0, 0, 1]]
        >>> source.draw(triples, "tail", 3, known=triples, generator=np.random.default_rng(0)).candidate.tolist()
        [[0, 0, 0]]
        """
        if k < 1:
            raise RivalsError(f"k must be 1 or more, not {k}")
        rows, anchor = self._check(triples, side)
        table = _Known(known, len(self), side)
        chosen = self.nearest[anchor]
        ends = np.cumsum(self.sizes[chosen], axis=1)
        candidate = np.full((len(rows), k), -1, np.int64)
        left = np.flatnonzero(ends[:, -1] > 0)
        for _ in range(_ROUNDS):
            if not len(left):
                break
            place = (generator.random((len(left), k)) * ends[left, -1:]).astype(np.int64)
            which = (place[:, :, None] >= ends[left, None, :]).sum(-1)
            cluster = np.take_along_axis(chosen[left], which, 1)
            before = np.take_along_axis(ends[left] - self.sizes[chosen[left]], which, 1)
            entity = self.clusters.members[self.clusters.bounds[cluster] + place - before]
            owner = np.repeat(left, k)
            good = self._allowed(anchor[owner], entity.ravel()) & ~table.holds(rows[owner], entity.ravel())
            part = candidate[left]
            take = (part < 0) & good.reshape(entity.shape)
            candidate[left] = np.where(take, entity, part)
            left = left[(candidate[left] < 0).any(1)]
        short = np.flatnonzero((candidate < 0).any(1))
        if not len(short):
            return Corrupted(candidate, candidate >= 0, 0)
        members, offsets = self.pool(rows[short], side, known=known)
        empty = np.diff(offsets) == 0
        self._fill(candidate, short[~empty], members, lists.offsets_from_lengths(np.diff(offsets)[~empty]), generator)
        lost = short[empty]
        if len(lost):
            owner = np.repeat(lost, len(self))
            entity = np.tile(np.arange(len(self)), len(lost))
            free = ~table.holds(rows[owner], entity)
            starts = lists.keep_values(free, np.arange(len(lost) + 1) * len(self))
            some = np.diff(starts) > 0
            self._fill(
                candidate, lost[some], entity[free], lists.offsets_from_lengths(np.diff(starts)[some]), generator
            )
        return Corrupted(candidate, candidate >= 0, int(empty.sum()))

    @staticmethod
    def _fill(
        candidate: NDArray[np.int64],
        rows: NDArray[np.int64],
        members: NDArray[np.int64],
        offsets: NDArray[np.int64],
        generator: np.random.Generator,
    ) -> None:
        """Fill the open places of `rows` uniformly from their lists."""
        if not len(rows):
            return
        place = (generator.random((len(rows), candidate.shape[1])) * np.diff(offsets)[:, None]).astype(np.int64)
        drawn = members[offsets[:-1, None] + place]
        candidate[rows] = np.where(candidate[rows] < 0, drawn, candidate[rows])

    def _allowed(self, anchor: NDArray[np.int64], entity: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.min_cosine is None:
            return np.ones(len(entity), bool)
        cosine = np.einsum("nd,nd->n", self._unit[anchor], self._unit[entity])
        return (cosine >= self.min_cosine - 1e-12) | (anchor == entity)

    def _check(self, triples: Any, side: Side) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The triples, and the entity of each around which replacements are sought."""
        if side not in ("head", "tail"):
            raise RivalsError(f"side must be 'head' or 'tail', not {side!r}")
        rows = check_triples(triples, len(self))
        kept, replaced = (rows[:, 2], rows[:, 0]) if side == "head" else (rows[:, 0], rows[:, 2])
        return rows, kept if self.around == "kept" else replaced


class _Known:
    """The known triples, ready to say which replacements would make one."""

    def __init__(self, known: Any, entities: int, side: Side) -> None:
        self.side = side
        self.triples = KnownTriples([] if known is None else known, entities=entities)

    def holds(self, triples: NDArray[np.int64], entity: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the triple with `entity` in the place of its head or tail is known."""
        head, relation, tail = triples.T
        if self.side == "head":
            return self.triples.holds(entity, relation, tail)
        return self.triples.holds(head, relation, entity)


def degree_weight(triples: Any, *, start: int = 4) -> NDArray[np.float64]:
    """Return how much each triple counts in training: 1 / sqrt(count(h, r) + count(t, r^-1)).

    count(h, r) is start - 1 more than the triples with this head and relation, count(t, r^-1) likewise with this tail
    and relation; frequent ones count less.

    Args:
        triples: int[N, 3]. start: what a pair that occurs once counts, 1 or more.

    Source: RotatE's subsampling (after word2vec), kept in LEMON (2022). Paper 49.

    Raises:
        RivalsError: triples of another shape, start < 1.

    >>> degree_weight([[0, 0, 1]]).round(6).tolist()
    [0.353553]
    """
    if start < 1:
        raise RivalsError(f"start must be 1 or more, not {start}")
    rows = check_triples(triples, None)
    total = np.zeros(len(rows))
    for column in (0, 2):
        _, place, count = np.unique(rows[:, [column, 1]], axis=0, return_inverse=True, return_counts=True)
        total += count[place.reshape(-1)] + start - 1
    return 1 / np.sqrt(total)


def principal_components(vectors: Any, components: int) -> NDArray[np.float64]:
    """Return the coordinates of rows on their first principal components, float64[N, components]; signs are arbitrary.

    Raises:
        RivalsError: vectors that are not finite, components outside 1..min(N, d).

    >>> np.abs(principal_components([[0.0, 0.0], [3.0, 4.0]], 1)).tolist()
    [[2.5], [2.5]]
    """
    rows = _finite(vectors, "vectors")
    if not 1 <= components <= min(rows.shape):
        raise RivalsError(f"components must lie in 1..{min(rows.shape)}, not {components}")
    return fit_principal_axes(lambda: [rows], components=components).project(rows)


def _finite(values: Any, what: str) -> NDArray[np.float64]:
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise RivalsError(f"{what} must be rows of finite numbers, one or more; not shape {rows.shape}")
    return rows
