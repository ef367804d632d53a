"""The graph of training examples that are hard negatives for each other, and how much of it a set of batches keeps."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.batching.groups import rival_queries
from rivals.progress import progress
from rivals.retrieve import PreparedDocuments, exact_top_k

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK = 8192  # queries whose ranks are taken at once


def ranked_targets(
    teacher: Any, *, skip: int = 0, width: int = 100, group: Any = None, identity: Any = None, show: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ranks skip to skip + width of a teacher's list for every example: S_i = R_i[skip : skip + width].

    Example i is the pair of query i and target i; R_i are all targets by falling score, the example's own among them,
    equal scores by row. With `identity`, targets of the example's own identity are left out of R_i first, its own too.

    Args:
        teacher: float[N, N], the score of every query with every target; or (queries float[N, D], targets float[N, D]),
            scored by inner products, searched by blocks so that nothing holds N x N.
        skip, width: ranks to pass over and ranks to take.
        group: [N], a task or data set; examples are ranked for examples of their own group only.
        identity: [N], equal where targets are the same thing: a class, a text. The search goes deeper by the most
            examples that share one.
        show: show progress.

    Returns:
        (offsets int64[N + 1], rows of examples int64[m]), best first.

    Source: Thirukovalluru et al. (2025), step 1. Paper 28.

    Raises:
        RivalsError: shapes that do not fit, values that are not finite, skip < 0, width < 1.

    >>> offsets, rows = ranked_targets(np.array([[0.9, 0.1], [0.7, 0.6]]), skip=1, width=1)
    >>> lists.pad(rows, offsets, fill=-1).tolist()
    [[1], [1]]
    """
    for name, value, least in (("skip", skip, 0), ("width", width, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
    scores, queries, targets = _teacher(teacher)
    size = len(queries if scores is None else scores)
    groups = np.zeros(size, np.int64) if group is None else _labels(group, size, "group")
    same = None if identity is None else _labels(identity, size, "identity")
    owners, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with progress("Ranking targets", float(size), show=show) as advance:
        for members in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1]):
            if not len(members):
                continue
            again = 0 if same is None else int(np.bincount(same[members]).max(initial=0))  # left out of a list at most
            depth = min(skip + width + again, len(members))
            prepared = PreparedDocuments(targets[members]) if scores is None else None
            for start in range(0, len(members), _BLOCK):
                rows = members[start : start + _BLOCK]
                if scores is None:
                    assert prepared is not None
                    best = exact_top_k(queries[rows], prepared, depth)[1]
                else:
                    best = np.argsort(-scores[np.ix_(rows, members)], axis=1, kind="stable")[:, :depth]
                ranked = members[best]
                keep = np.ones(ranked.shape, bool) if same is None else same[ranked] != same[rows][:, None]
                place = np.cumsum(keep, axis=1)
                keep &= (place > skip) & (place <= skip + width)
                found.append(ranked[keep])
                owners.append(np.repeat(rows, keep.sum(1)))
                advance(len(rows))
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return lists.offsets_from_lengths(np.bincount(owner, minlength=size)), np.concatenate(found)[order]


def build_hard_graph(
    teacher: Any,
    *,
    skip: int = 30,
    width: int = 100,
    group: Any = None,
    identity: Any = None,
    mutual: bool = True,
    show: bool = False,
) -> csr_array:
    """Return the graph that links examples which are hard, but not false, negatives of each other: csr bool[N, N].

    With S_i = R_i[skip : skip + width] (`ranked_targets`), {i, j} is an edge iff j is in S_i and i is in S_j, or, with
    mutual=False, if either holds. No edge leads from an example to itself; edges have no weight.

    Use it, with `partition`, for `Clustered` batches. The first ranks hold the example's own target and what is as good
    as it: a `skip` that is too small puts false negatives side by side.

    Args:
        teacher, group, identity, show: see `ranked_targets`. Any embedding model is good enough as a teacher.
        skip: 30 suits retrieval, 70 visual questions; with identity=class labels, 0. width: 100. A window beyond the
            examples of a group is cut, with a warning.

    Source: Thirukovalluru et al. (2025), Breaking the Batch Barrier (B3), steps 1 and 2. Paper 28.

    Raises:
        RivalsError: as `ranked_targets`.

    >>> scores = -np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
    >>> build_hard_graph(scores, skip=1, width=1).todense().astype(int).tolist()
    [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    """
    offsets, rows = ranked_targets(teacher, skip=skip, width=width, group=group, identity=identity, show=show)
    size = len(offsets) - 1
    if size and identity is None:
        smallest = size if group is None else int(np.unique(np.asarray(group), return_counts=True)[1].min())
        if skip + width > smallest:
            warnings.warn(
                f"ranks {skip} to {skip + width} go beyond the {smallest} examples of the smallest group; the window is "
                "cut there",
                stacklevel=2,
            )
    return symmetric_graph(offsets, rows, mutual=mutual)


def rival_graph(run: Run, known: Judgements, *, skip: int = 0, width: int = 100, mutual: bool = True) -> csr_array:
    """Return the graph of the queries of a run whose positives are among each other's usable candidates: csr bool[Q, Q].

    The teacher is whatever made the run, and its filters say what is a false negative, so `skip` is 0 by default:
    candidates that are marked, and known positives, take no rank. See `build_hard_graph` for the rest.

    Args:
        run: candidates of the training queries. known: their judgements. skip, width: usable candidates to pass over
            and to take.

    Raises:
        RivalsError: a run and judgements over different numbers of queries, skip < 0, width < 1.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["p", "q"]), Collection(["a", "b"]), [0, 2, 4], [0, 1, 0, 1], [.9, .8, .7, .6],
    ...                 columns={"label": [1, -1, -1, 1]})
    >>> known = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    >>> rival_graph(run, known).todense().astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    return symmetric_graph(*rival_queries(run, known, skip=skip, depth=width), mutual=mutual)


def symmetric_graph(offsets: NDArray[np.int64], rows: NDArray[np.int64], *, mutual: bool = True) -> csr_array:
    """Return the undirected graph of directed links i -> rows[offsets[i]:offsets[i + 1]], without loops.

    >>> symmetric_graph(np.array([0, 1, 1]), np.array([1]), mutual=False).todense().astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    from scipy.sparse import csr_array

    size = len(offsets) - 1
    owner = lists.segment_ids(offsets)
    apart = owner != rows
    starts = lists.keep_values(apart, offsets)
    directed = csr_array((np.ones(int(apart.sum()), np.int8), rows[apart], starts), shape=(size, size))
    directed.sum_duplicates()
    directed.data[:] = 1
    back = directed.T.tocsr()
    graph = (directed.multiply(back) if mutual else directed + back).tocsr().astype(bool)
    graph.sort_indices()
    return graph


def cut_edges(graph: csr_array, clusters: Any) -> int:
    """Return how many edges of an undirected graph join different clusters.

    Args:
        graph: symmetric csr[N, N]. clusters: int[N], the cluster of every node, -1 for none (such nodes lose all edges).

    Raises:
        RivalsError: one cluster a node is not given, a graph that is not symmetric.

    >>> graph = build_hard_graph(-np.array([[0, 1], [1, 0]]), skip=1, width=1)
    >>> cut_edges(graph, [0, 0]), cut_edges(graph, [0, 1])
    (0, 1)
    """
    indptr, indices = adjacency(graph)
    cluster = np.asarray(clusters)
    if cluster.shape != (len(indptr) - 1,):
        raise RivalsError(f"{cluster.shape} clusters were given for {len(indptr) - 1} nodes; every node needs one")
    left = np.repeat(cluster, np.diff(indptr))
    right = cluster[indices]
    return int(np.count_nonzero((left != right) | (left < 0))) // 2


def edges_within(graph: csr_array, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every example of a plan how many of its rivals are in its batch, int64[len(rows)].

    The mean says what clustering is worth: a batch of B random examples holds about B times the mean degree over N.

    Args:
        graph: symmetric csr[N, N]. rows: int64[m], examples batch after batch. offsets: int64[batches + 1] over them.

    >>> graph = build_hard_graph(-np.array([[0, 1], [1, 0]]), skip=1, width=1)
    >>> edges_within(graph, np.array([0, 1]), np.array([0, 2])).tolist()
    [1, 1]
    """
    indptr, indices = adjacency(graph)
    batch = np.full(len(indptr) - 1, -1, np.int64)
    batch[rows] = lists.segment_ids(offsets)
    left = np.repeat(batch, np.diff(indptr))
    together = (left == batch[indices]) & (left >= 0)
    owner = np.repeat(np.arange(len(batch)), np.diff(indptr))
    return np.bincount(owner[together], minlength=len(batch))[rows]


def hardness_share(
    teacher: Any,
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    *,
    top: int = 8,
    temperature: float = 0.02,
) -> NDArray[np.float64]:
    """Return how hard each example's batch is, against the whole data set: H_i / H_i*, in 0..1, float64[len(rows)].

    H_i is the sum of exp(s_ij / temperature) over the `top` other targets of i's batch that score highest, H_i* the same
    over all other targets. The gap between the loss over the batch and that over the data set is bounded by the sum of
    log(H_i* / H_i) and a constant.

    Args:
        teacher: see `ranked_targets`. rows, offsets: a plan, as in `edges_within`. top: targets summed over; fewer where
            a batch has fewer.

    Source: Thirukovalluru et al. (2025), the bound that motivates B3. Paper 28.

    Raises:
        RivalsError: top < 1, temperature not above 0; as `ranked_targets`.

    >>> scores = np.array([[9., 1., 2.], [1., 9., 0.], [2., 0., 9.]])
    >>> hardness_share(scores, np.array([0, 2, 1]), np.array([0, 2, 3]), top=1, temperature=1.).tolist()
    [1.0, 1.0, 0.0]
    """
    if top < 1 or not (np.isfinite(temperature) and temperature > 0):
        raise RivalsError(f"top must be 1 or more and temperature above 0, not {top} and {temperature}")
    scores, queries, targets = _teacher(teacher)
    rows = np.asarray(rows, np.int64)
    if scores is None:
        best, found = exact_top_k(queries[rows], targets, top + 1)
        highest = np.where(found == rows[:, None], -np.inf, best.astype(np.float64))
    else:
        highest = scores[rows].astype(np.float64)
        highest[np.arange(len(rows)), rows] = -np.inf
    whole = _log_of_top(highest, top, temperature)
    share = np.zeros(len(rows))
    for start, stop in pairwise(offsets):
        batch = rows[start:stop]
        part = queries[batch] @ targets[batch].T if scores is None else scores[np.ix_(batch, batch)]
        part = part.astype(np.float64)
        np.fill_diagonal(part, -np.inf)
        share[start:stop] = np.exp(np.minimum(_log_of_top(part, top, temperature) - whole[start:stop], 0.0))
    return share


def _log_of_top(scores: NDArray[np.float64], top: int, temperature: float) -> NDArray[np.float64]:
    """The logarithm of the sum of exp(score / temperature) over the `top` highest of every row; -inf for none."""
    best = -np.sort(-scores, axis=1)[:, :top] / temperature
    highest = np.maximum(best[:, :1], np.finfo(np.float64).min)
    with np.errstate(divide="ignore"):
        return highest[:, 0] + np.log(np.exp(best - highest).sum(axis=1))


def adjacency(graph: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (indptr, indices) of an undirected graph without loops, neighbours ascending, int64.

    Raises:
        RivalsError: not square, not symmetric.
    """
    from scipy.sparse import csr_array, issparse

    held = csr_array(graph)
    if not issparse(graph) or held.shape[0] != held.shape[1]:
        raise RivalsError(f"a graph is a square sparse matrix, not {type(graph).__name__} of shape {np.shape(graph)}")
    held = held.astype(bool)
    held.setdiag(False)
    held.eliminate_zeros()
    held.sort_indices()
    if (held != held.T).nnz:
        raise RivalsError("the graph has edges in one direction only; make it with symmetric_graph")
    return held.indptr.astype(np.int64), held.indices.astype(np.int64)


def _teacher(teacher: Any) -> tuple[NDArray[Any] | None, NDArray[Any], NDArray[Any]]:
    """Return (scores, -, -) or (None, queries, targets), checked."""
    if isinstance(teacher, tuple) and len(teacher) == 2:
        queries, targets = np.asarray(teacher[0]), np.asarray(teacher[1])
        if queries.ndim != 2 or queries.shape != targets.shape:
            raise RivalsError(
                f"queries {queries.shape} and targets {targets.shape} must be vectors of one width, one pair an example"
            )
        return None, queries, targets
    scores = np.asarray(teacher)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise RivalsError(
            f"a teacher is a square matrix of scores, or (queries, targets), their vectors; not of shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        row = int(np.argmax(~np.isfinite(scores).all(1)))
        raise RivalsError(f"the teacher's scores of example {row} (counted from 0) are not all finite")
    return scores, scores, scores


def _labels(values: Any, size: int, name: str) -> NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.shape != (size,):
        raise RivalsError(f"{name} has shape {labels.shape} for {size} examples; give one value each")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
