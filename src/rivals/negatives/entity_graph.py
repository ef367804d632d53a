"""Steps between the entities of a knowledge graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.triples import Asked, Triples
from rivals.errors import RivalsError
from rivals.negatives._pool_draws import Pools
from rivals.retrieve._topk import compiled

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_CELLS = 1 << 24  # distances held at once, one byte each


class EntityGraph:
    """The entities of a knowledge graph and who is linked to whom; says how many steps lie between two of them.

    Edges go from head to tail, whatever the relation; parallel edges count once. For a question about heads, (?, r, t),
    steps are taken backwards from t.

    Args:
        triples: the graph. part: whose triples are the edges, "train" for negatives and their filters, so that nothing
            of the test leaks. directed: with False, edges go both ways.

    Source: Zhang et al. (2023), HaSa. Paper 35.

    Raises:
        RivalsError: there is no such part.

    >>> from rivals.data import Collection
    >>> rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 3]])
    >>> chain = EntityGraph(Triples(Collection(list("abcd")), Collection(["next"]), {"train": rows}))
    >>> chain.distances(np.array([0, 0, 0]), np.array([1, 2, 3]), max_hops=2).tolist()
    [1, 2, 3]
    """

    def __init__(self, triples: Triples, *, part: str = "train", directed: bool = True) -> None:
        self.triples, self.documents, self.directed = triples, triples.entities, directed
        rows = triples.part(part)
        head, relation, tail = rows.T
        self._answers = []
        for given, answer in ((head, tail), (tail, head)):
            key = relation * np.int64(max(len(self.documents), 1)) + given
            order = np.argsort(key, kind="stable")
            self._answers.append((key[order], answer[order]))
        if not directed:
            head, tail = np.concatenate([head, tail]), np.concatenate([tail, head])
        self._forward = _links(head, tail, len(self.documents))
        self._backward = self._forward if not directed else _links(tail, head, len(self.documents))

    def distances(self, source: Any, target: Any, *, max_hops: int = 2, backward: Any = False) -> NDArray[np.int8]:
        """Return the steps from each source to its target, int8[m]; max_hops + 1 for whatever is farther.

        Args:
            source, target: int64[m], entities. backward: bool or bool[m], against the edges.

        Raises:
            RivalsError: an entity that is not there, max_hops outside 1..100.
        """
        start, end = self._rows(source), self._rows(target)
        against = np.broadcast_to(np.asarray(backward, bool), start.shape)
        check_hops(max_hops)
        found = np.full(len(start), max_hops + 1, np.int8)
        for way, links in ((False, self._forward), (True, self._backward)):
            rows = np.flatnonzero(against == way)
            unique, place = np.unique(start[rows], return_inverse=True)
            order = np.argsort(place, kind="stable")
            step = self._step
            for first in range(0, len(unique), step):
                level = _levels(links, unique[first : first + step], max_hops)
                low, high = np.searchsorted(place[order], [first, first + step])
                part = order[low:high]
                found[rows[part]] = level[place[part] - first, end[rows[part]]]
        return found

    def reached(
        self, source: Any, *, hops: int = 2, backward: Any = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the entities 1 to `hops` steps from each source, ascending: (entities, offsets int64[m + 1]).

        Every source's list is written out; ask for few thousand sources at a time where hubs are near.

        Raises:
            RivalsError: as `distances`.
        """
        start = self._rows(source)
        against = np.broadcast_to(np.asarray(backward, bool), start.shape)
        check_hops(hops)
        unique, place = np.unique(start * 2 + against, return_inverse=True)
        near = self._near(unique, hops)
        index, offsets = lists.take_segments(lists.offsets_from_lengths(near.sum(1)), place)
        return np.nonzero(near)[1][index], offsets

    def pools(
        self, question: Asked, *, hops: int = 2, queries: int = 1 << 20
    ) -> Iterator[tuple[NDArray[np.int64], Pools]]:
        """Yield the neighbourhoods around what is asked: rows of queries, at most so many, and their pools.

        Queries come in the order of their entities, each neighbourhood is found once, and few are held at once.
        """
        self._rows(question.entity)
        check_hops(hops)
        key = question.entity * 2 + question.asks_head
        order = np.argsort(key, kind="stable")
        unique, first = np.unique(key[order], return_index=True)
        ends = np.append(first[1:], len(order))
        low = 0
        while low < len(unique):
            high = min(low + self._step, len(unique))
            near = self._near(unique[low:high], hops)
            bounds, members = lists.offsets_from_lengths(near.sum(1)), np.nonzero(near)[1]
            for start in range(first[low], ends[high - 1], queries):
                rows = order[start : min(start + queries, ends[high - 1])]
                place = np.searchsorted(unique[low:high], key[rows])
                yield rows, Pools(bounds[place], np.diff(bounds)[place], members)
            low = high

    def _near(self, keys: NDArray[np.int64], hops: int) -> NDArray[np.bool_]:
        """Who is 1 to `hops` steps from each entity, bool[m, N]; keys are 2 * entity + 1 for steps backwards."""
        near = np.zeros((len(keys), len(self.documents)), bool)
        for way, links in ((0, self._forward), (1, self._backward)):
            rows = np.flatnonzero(keys % 2 == way)
            for first in range(0, len(rows), self._step):
                part = rows[first : first + self._step]
                level = _levels(links, keys[part] // 2, hops)
                near[part] = (level > 0) & (level <= hops)
        return near

    def known_answers(self, question: Asked) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the answers to each question that the graph's own triples give: (entities, offsets int64[m + 1])."""
        wanted = question.relation * np.int64(max(len(self.documents), 1)) + question.entity
        start, stop = np.zeros((2, len(wanted)), np.int64)
        base = 0
        for way, (key, _) in enumerate(self._answers):
            rows = question.asks_head == way
            start[rows] = base + np.searchsorted(key, wanted[rows], side="left")
            stop[rows] = base + np.searchsorted(key, wanted[rows], side="right")
            base += len(key)
        offsets = lists.offsets_from_lengths(stop - start)
        index = np.repeat(start, stop - start) + lists.positions(offsets)
        return np.concatenate([answer for _, answer in self._answers])[index], offsets

    @property
    def _step(self) -> int:
        return max(1, _CELLS // max(len(self.documents), 1))

    def _rows(self, entities: Any) -> NDArray[np.int64]:
        rows = np.asarray(entities, np.int64)
        if rows.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= len(self.documents))):
            raise RivalsError(f"entities must be rows of the {len(self.documents)} of the graph")
        return rows


def _links(head: NDArray[np.int64], tail: NDArray[np.int64], size: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    links = csr_matrix((np.ones(len(head), bool), (head, tail)), shape=(size, size))
    links.sum_duplicates()
    return links


def _levels(links: csr_matrix, source: NDArray[np.int64], hops: int) -> NDArray[np.int8]:
    """The steps from each source to every entity, int8[m, N]; hops + 1 beyond, 0 for the source itself."""
    level = np.full((len(source), links.shape[0]), hops + 1, np.int8)
    if compiled():
        from rivals.negatives._entity_graph_kernel import fill_levels

        fill_levels(links.indptr, links.indices, source, hops, level)
        return level
    return _levels_by_products(links, source, hops, level)


def _levels_by_products(
    links: csr_matrix, source: NDArray[np.int64], hops: int, level: NDArray[np.int8]
) -> NDArray[np.int8]:
    """The same by sparse products, several times slower."""
    from scipy.sparse import csr_matrix

    level[np.arange(len(source)), source] = 0
    edge = links[source]
    for hop in range(1, hops + 1):
        row, column = np.repeat(np.arange(len(source)), np.diff(edge.indptr)), edge.indices
        new = level[row, column] > hop
        row, column = row[new], column[new]
        level[row, column] = hop
        if hop < hops:
            edge = csr_matrix((np.ones(len(row), bool), (row, column)), shape=level.shape) @ links
    return level


def check_hops(hops: int) -> None:
    if isinstance(hops, bool) or not isinstance(hops, int | np.integer) or not 1 <= hops <= 100:
        raise RivalsError(f"hops must be a whole number in 1..100, not {hops!r}")
