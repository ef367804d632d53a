"""k-means: Lloyd's iterations from k-means++ starts, and `Clusters`, what they leave: centres and who belongs to which."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import DataError, RivalsError
from rivals.files import atomic_file
from rivals.progress import progress

_CELLS = 1 << 22  # distances held at once
_FORMAT = "rivals-clusters-1"


def k_means(
    vectors: NDArray[Any],
    clusters: int,
    *,
    generator: np.random.Generator,
    n_init: int = 10,
    max_iter: int = 300,
    spherical: bool = False,
    show: bool = False,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the centres [K, D] and each row's nearest one, int64[N]: the best of `n_init` runs of Lloyd's algorithm.

    Every run starts from greedy k-means++ and ends when no row changes its cluster, or after `max_iter` steps. A centre that
    loses all its rows stays where it is. Computed in the dtype of `vectors`; time N K D a step.

    Args:
        vectors: float[N, D]. clusters: K, in 1..N. spherical: centres are scaled to length 1 after every step; with
            rows of length 1 this is k-means by cosine.

    Source: Lloyd 1982; Arthur and Vassilvitskii 2007, k-means++.

    Raises:
        RivalsError: vectors that are not finite rows, clusters outside 1..N, n_init or max_iter below 1.

    >>> rows = np.array([[0.0], [0.2], [9.0]])
    >>> centers, labels = k_means(rows, 2, generator=np.random.default_rng(0))
    >>> sorted(centers.ravel().tolist()), bool(labels[0] == labels[1] != labels[2])
    ([0.1, 9.0], True)
    """
    _check_rows(vectors, "vectors")
    if not 1 <= clusters <= len(vectors):
        raise RivalsError(f"clusters must lie in 1..{len(vectors)}, the rows to cluster; not {clusters}")
    if min(n_init, max_iter) < 1:
        raise RivalsError(f"n_init and max_iter must be 1 or more, not {n_init} and {max_iter}")
    best = math.inf
    with progress("Clustering", n_init * (max_iter + 1), show=show) as advance:
        for _ in range(n_init):
            centers = _plus_plus(vectors, clusters, generator)
            labels = np.full(len(vectors), -1, np.int64)
            advance(1)
            left = max_iter
            while left:
                found = nearest_centers(vectors, centers, 1)[0][:, 0]
                if (found == labels).all():
                    break
                labels, left = found, left - 1
                centers = _means(vectors, labels, centers, spherical)
                advance(1)
            advance(left)
            found, distance = nearest_centers(vectors, centers, 1)
            spread = float(distance.sum(dtype=np.float64))
            if spread < best:
                best, kept = spread, (centers, found[:, 0])
    return kept


def nearest_centers(vectors: NDArray[Any], centers: NDArray[Any], count: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return each row's `count` nearest centres, nearest first, int64[M, count], and their squared distances.

    Equal distances go to the centre that stands first. Rows are taken in blocks, so a memory map works.

    >>> nearest_centers(np.array([[1.0]]), np.array([[5.0], [0.0], [3.0]]), 2)
    (array([[1, 2]]), array([[1., 4.]]))
    """
    dtype = np.result_type(vectors.dtype, centers.dtype)
    found, distances = np.empty((len(vectors), count), np.int64), np.empty((len(vectors), count), dtype)
    step = max(1, _CELLS // max(len(centers), vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        distance = squared_distances(np.asarray(vectors[part]), centers)
        order = distance.argmin(1)[:, None] if count == 1 else np.argsort(distance, axis=1, kind="stable")[:, :count]
        found[part], distances[part] = order, np.take_along_axis(distance, order, 1)
    return found, distances


def squared_distances(vectors: NDArray[Any], centers: NDArray[Any]) -> NDArray[Any]:
    """Return the squared Euclidean distances [N, K], 0 or more.

    >>> squared_distances(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0], [0.0, 3.0]])).tolist()
    [[25.0, 0.0]]
    """
    distance = (vectors**2).sum(1)[:, None] - 2 * vectors @ centers.T + (centers**2).sum(1)
    return np.maximum(distance, 0.0)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Documents (or entities) in clusters: `centers` float[K, D] and `labels` int64[N], each row's cluster.

    Make them with `Clusters.fit`, or with `Clusters.given` of a clustering made elsewhere. With `spherical` a vector's
    nearest centres are those of highest cosine, else of least distance.

    >>> clusters = Clusters.given([0, 0, 1], centers=[[0.0], [9.0]])
    >>> clusters.sizes.tolist(), clusters.nearest([[7.0]], 2).tolist()
    ([2, 1], [[1, 0]])
    """

    centers: NDArray[Any]
    labels: NDArray[np.int64]
    spherical: bool = False

    @classmethod
    def fit(
        cls,
        vectors: Any,
        clusters: int = 128,
        *,
        spherical: bool = True,
        n_init: int = 1,
        max_iter: int = 50,
        sample: int = 256,
        seed: int = 0,
        show: bool = True,
    ) -> Clusters:
        """Cluster rows by k-means, in float32.

        Args:
            vectors: float[N, D], an array or a memory map. clusters: at most N; about N / 30 for the topics of a
                small corpus, 128 as in ClusterNS. spherical: by cosine. sample: centres are fitted on at most `sample`
                rows a cluster, drawn at random; every row is then given its nearest centre. n_init, max_iter: as in
                `k_means`.

        Raises:
            RivalsError: as `k_means`; sample below 1.

        >>> Clusters.fit(np.eye(3), 3).sizes.tolist()
        [1, 1, 1]
        """
        rows = np.asanyarray(vectors)
        if rows.ndim != 2 or not len(rows):
            raise RivalsError(f"vectors must be rows of finite numbers, one or more; not shape {rows.shape}")
        if sample < 1:
            raise RivalsError(f"sample must be 1 or more rows a cluster, not {sample}")
        generator = np.random.default_rng([seed, 85])
        chosen = rows
        if len(rows) > sample * clusters:
            chosen = rows[np.sort(generator.choice(len(rows), sample * clusters, replace=False))]
        _check_rows(chosen, "vectors")
        chosen = _prepared(chosen, spherical)
        centers, _ = k_means(
            chosen,
            clusters,
            generator=generator,
            n_init=n_init,
            max_iter=max_iter,
            spherical=spherical,
            show=show,
        )
        made = cls(centers, np.zeros(0, np.int64), spherical)
        return cls(centers, made.nearest(rows, 1)[:, 0], spherical)

    @classmethod
    def given(cls, labels: Any, *, centers: Any = None, vectors: Any = None, spherical: bool = False) -> Clusters:
        """Return clusters made elsewhere; without `centers` they are the means of the `vectors` of their members.

        Args:
            labels: int[N]. centers: float[K, D]. vectors: float[N, D], the members' vectors.

        Raises:
            RivalsError: labels outside the centres, neither centers nor vectors, shapes that do not fit.

        >>> Clusters.given([0, 0, 1], vectors=[[0.0], [2.0], [9.0]]).centers.tolist()
        [[1.0], [9.0]]
        """
        flat = np.asarray(labels)
        if flat.ndim != 1 or flat.dtype.kind not in "iu" or (len(flat) and flat.min() < 0):
            raise RivalsError(f"labels must be a list of whole numbers from 0, a cluster a row; not {flat.dtype}")
        flat = flat.astype(np.int64)
        if centers is None:
            if vectors is None:
                raise RivalsError("clusters need their centers, or the members' vectors to take means of")
            rows = np.asarray(vectors, np.float64)
            _check_rows(rows, "vectors")
            if len(rows) != len(flat):
                raise RivalsError(f"{len(flat)} labels need as many vectors, not {len(rows)}")
            number = int(flat.max(initial=-1)) + 1
            centers = _means(rows, flat, np.zeros((number, rows.shape[1])), spherical)
        points = np.asarray(centers)
        points = points if points.dtype.kind == "f" else points.astype(np.float64)
        _check_rows(points, "centers")
        if len(flat) and flat.max() >= len(points):
            raise RivalsError(f"labels must lie in 0..{len(points) - 1}, the centers")
        return cls(points, flat, spherical)

    def __len__(self) -> int:
        """The number of clusters."""
        return len(self.centers)

    def __repr__(self) -> str:
        return f"Clusters({len(self)} of {len(self.labels)} rows)"

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many rows each cluster has, int64[K]."""
        return np.bincount(self.labels, minlength=len(self))

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """All rows, cluster after cluster, int64[N]."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """Where each cluster's rows begin and end in `members`, int64[K + 1]."""
        return lists.offsets_from_lengths(self.sizes)

    def nearest(self, vectors: Any, count: int = 1) -> NDArray[np.int64]:
        """Return the `count` nearest clusters of each vector, nearest first, int64[M, count].

        Raises:
            RivalsError: vectors of another width or not finite, count outside 1..K.
        """
        rows = np.asanyarray(vectors)
        if not 1 <= count <= len(self):
            raise RivalsError(f"count must lie in 1..{len(self)}, the clusters; not {count}")
        if rows.ndim != 2 or rows.shape[1] != self.centers.shape[1]:
            raise RivalsError(f"vectors must have the centres' width {self.centers.shape[1]}, not shape {rows.shape}")
        found = np.empty((len(rows), count), np.int64)
        step = max(1, _CELLS // max(rows.shape[1], 1))
        centers = self.centers
        if self.spherical:
            centers = _unit(centers)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            block = np.asarray(rows[part])
            _check_rows(block, "vectors")
            block = _prepared(block, True) if self.spherical else block.astype(np.result_type(block, centers))
            found[part] = nearest_centers(block, centers, count)[0]
        return found

    def members_of(self, clusters: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of some clusters per list: (rows, offsets int64[M + 1]) of `clusters` int64[M, c].

        >>> Clusters.given([0, 1, 0], centers=[[0.0], [1.0]]).members_of(np.array([[1, 0], [0, 0]]))[1].tolist()
        [0, 3, 7]
        """
        index, _ = lists.take_segments(self.bounds, clusters.ravel())
        return self.members[index], lists.offsets_from_lengths(self.sizes[clusters].sum(1))

    def save(self, path: str | Path) -> None:
        """Write the clusters to a safetensors file, whole or not at all."""
        from safetensors.numpy import save

        tensors = {"centers": np.ascontiguousarray(self.centers), "labels": self.labels}
        with atomic_file(path, "wb") as out:
            out.write(save(tensors, {"format": _FORMAT, "spherical": str(int(self.spherical))}))

    @classmethod
    def load(cls, path: str | Path) -> Clusters:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged or no clusters.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise DataError(f"holds no clusters of the format {_FORMAT}; save them again", path=path)
                centers, labels = file.get_tensor("centers"), file.get_tensor("labels")
        except (OSError, SafetensorError) as error:
            raise DataError(f"cannot be read ({error}); save the clusters again", path=path) from None
        return cls.given(labels, centers=centers, spherical=about["spherical"] == "1")


def _plus_plus(vectors: NDArray[Any], clusters: int, generator: np.random.Generator) -> NDArray[Any]:
    """Starting centres, each drawn by squared distance from those before, the best of a few draws (greedy k-means++)."""
    trials = 2 + int(math.log(clusters))
    chosen = [int(generator.integers(len(vectors)))]
    nearest = squared_distances(vectors, vectors[chosen])[:, 0]
    for _ in range(clusters - 1):
        reached = np.cumsum(nearest, dtype=np.float64)
        drawn = generator.random(trials) * reached[-1]
        rows = np.minimum(np.searchsorted(reached, drawn, side="right"), len(vectors) - 1)
        closer = np.minimum(nearest[:, None], squared_distances(vectors, vectors[rows]))
        best = int(closer.sum(axis=0, dtype=np.float64).argmin())
        chosen.append(int(rows[best]))
        nearest = closer[:, best]
    return vectors[chosen]


def _means(vectors: NDArray[Any], labels: NDArray[np.int64], centers: NDArray[Any], spherical: bool) -> NDArray[Any]:
    """The means of the rows of each cluster; a cluster without rows keeps its centre."""
    from scipy.sparse import csr_matrix

    size = np.bincount(labels, minlength=len(centers))
    order = np.argsort(labels, kind="stable")
    ones = np.ones(len(labels), vectors.dtype)
    shape = (len(centers), len(labels))
    total = csr_matrix((ones, order, lists.offsets_from_lengths(size)), shape=shape) @ vectors
    means = (total / np.maximum(size, 1)[:, None]).astype(vectors.dtype)
    return np.where(size[:, None] > 0, _unit(means) if spherical else means, centers)


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1).astype(vectors.dtype)


def _prepared(vectors: Any, spherical: bool) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    return _unit(rows) if spherical else rows


def _check_rows(values: NDArray[Any], what: str) -> None:
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise RivalsError(f"{what} must be rows of finite numbers, one or more; not shape {values.shape}")
