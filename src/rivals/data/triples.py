"""`Triples`: a knowledge graph, and its link prediction task as a `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.errors import DataError, RivalsError

Side = Literal["tail", "head", "both"]


class Asked(NamedTuple):
    """What the queries of link prediction ask: the `entity` that is given, the `relation`, both rows int64[Q], and
    `asks_head` bool[Q]: True for (?, relation, entity), False for (entity, relation, ?)."""

    entity: NDArray[np.int64]
    relation: NDArray[np.int64]
    asks_head: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64] | slice) -> Asked:
        """Return what some of the queries ask."""
        return Asked(self.entity[rows], self.relation[rows], self.asks_head[rows])


@dataclass(frozen=True, eq=False)
class Triples:
    """A knowledge graph: entities, relations, and true triples (head, relation, tail) in parts such as train, valid, test.

    `parts` holds int64[n, 3] rows by name; `false` triples that somebody found false, under the name of the part they
    belong to. A pair of entity and relation is a query, an entity a document, so retrievers, filters and measures take a
    knowledge graph like any other collection: see `dataset`.

    Raises:
        DataError: a part that is not [n, 3], a row out of range, false triples of a part that is not there.

    >>> graph = Triples(Collection(["ann", "bob"]), Collection(["likes"]), {"train": np.array([[0, 0, 1]])})
    >>> graph
    Triples(unnamed: 2 entities, 1 relations, train 1)
    """

    entities: Collection
    relations: Collection
    parts: Mapping[str, NDArray[np.int64]]
    false: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        checked: tuple[dict[str, NDArray[np.int64]], ...] = ({}, {})
        for found, parts in zip(checked, (self.parts, self.false), strict=True):
            for name, rows in parts.items():
                found[name] = self._check(name, rows)
        for name in self.false:
            if name not in self.parts:
                raise DataError(f"there are false triples of the part '{name}', which has no true ones")
        object.__setattr__(self, "parts", checked[0])
        object.__setattr__(self, "false", checked[1])

    def _check(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        triples = np.asarray(rows)
        if triples.ndim != 2 or triples.shape[1] != 3 or triples.dtype.kind not in "iu":
            raise DataError(
                f"triples of '{name}' must be whole numbers [n, 3], head, relation, tail; not {triples.shape}"
            )
        for column, size, what in ((0, len(self.entities), "entity"), (1, len(self.relations), "relation")):
            values = triples[:, [0, 2]] if column == 0 else triples[:, 1]
            if values.size and (values.min() < 0 or values.max() >= size):
                bad = int(values.max()) if values.max() >= size else int(values.min())
                raise DataError(f"a triple of '{name}' names {what} row {bad}, but there are {size}")
        return triples.astype(np.int64)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())
        return f"Triples({self.name or 'unnamed'}: {len(self.entities)} entities, {len(self.relations)} relations, {parts})"

    def part(self, *names: str) -> NDArray[np.int64]:
        """Return the true triples of some parts, of all without a name, each once; int64[n, 3] in ascending order.

        Raises:
            RivalsError: there is no such part.
        """
        for name in names:
            if name not in self.parts:
                raise RivalsError(f"the triples have no part '{name}'; they have {', '.join(self.parts) or 'none'}")
        chosen = [self.parts[name] for name in (names or self.parts)]
        return unique_rows(
            np.concatenate([*chosen, np.zeros((0, 3), np.int64)]), len(self.relations), len(self.entities)
        )

    def dataset(self, part: str = "train", *, side: Side = "tail") -> Dataset:
        """Return link prediction on a part: queries (head, relation, ?) and, or, (?, relation, tail), entities as documents.

        The part's triples are the relevant pairs, its false triples judged and not relevant. Queries carry the columns
        `entity`, `relation` (rows) and `asks_head`, which `asked` reads. Entities and relations with texts give queries a
        text, "entity relation".

        Raises:
            RivalsError: there is no such part, an unknown side.

        >>> graph = Triples(Collection(["ann", "bob"]), Collection(["likes"]), {"train": np.array([[0, 0, 1]])})
        >>> graph.dataset(side="both").queries.ids.tolist()
        ['(ann, likes, ?)', '(?, likes, bob)']
        """
        if side not in ("tail", "head", "both"):
            raise RivalsError(f"side must be 'tail', 'head' or 'both', not {side!r}")
        true, false = self.part(part), self.false.get(part, np.zeros((0, 3), np.int64))
        rows = np.concatenate([true, false])
        relevance = np.repeat([1.0, 0.0], [len(true), len(false)])
        asks = {"tail": [False], "head": [True], "both": [False, True]}[side]
        asks_head = np.repeat(asks, len(rows))
        rows, relevance = np.tile(rows, (len(asks), 1)), np.tile(relevance, len(asks))
        given, answer = np.where(asks_head, rows[:, 2], rows[:, 0]), np.where(asks_head, rows[:, 0], rows[:, 2])
        size = max(len(self.entities), 1)
        key = (asks_head * np.int64(max(len(self.relations), 1)) + rows[:, 1]) * size + given
        unique, query = np.unique(key, return_inverse=True)
        left, entity = np.divmod(unique, size)
        head, relation = np.divmod(left, max(len(self.relations), 1))
        queries = self._queries(Asked(entity, relation, head.astype(bool)))
        judgements = Judgements.build(query, answer, relevance, queries=len(queries), documents=len(self.entities))
        return Dataset(queries, self.entities, judgements, name=self.name)

    def _queries(self, asked: Asked) -> Collection:
        names, relations = self.entities.ids[asked.entity].tolist(), self.relations.ids[asked.relation].tolist()
        triples = zip(names, relations, asked.asks_head.tolist(), strict=True)
        ids = [f"(?, {relation}, {name})" if head else f"({name}, {relation}, ?)" for name, relation, head in triples]
        texts = None
        if self.entities.has_texts and self.relations.has_texts:
            said, meant = self.entities.full_texts, self.relations.full_texts
            pairs = zip(asked.entity.tolist(), asked.relation.tolist(), strict=True)
            texts = [f"{said[entity]} {meant[relation]}" for entity, relation in pairs]
        columns = {name: pa.array(getattr(asked, name)) for name in Asked._fields}
        return Collection(ids, texts, columns, name="query")


def asked(queries: Collection) -> Asked:
    """Return what queries of link prediction ask, from the columns that `Triples.dataset` gave them.

    Raises:
        RivalsError: the queries have no such columns.

    >>> graph = Triples(Collection(["ann", "bob"]), Collection(["likes"]), {"train": np.array([[0, 0, 1]])})
    >>> asked(graph.dataset(side="head").queries).entity.tolist()
    [1]
    """
    missing = [name for name in Asked._fields if name not in queries.table.column_names]
    if missing:
        raise RivalsError(
            f"these queries have no column {', '.join(missing)}, so they are not of a knowledge graph; make them with "
            "Triples.dataset"
        )
    entity, relation, asks_head = (queries.table[name].to_numpy() for name in Asked._fields)
    return Asked(entity.astype(np.int64), relation.astype(np.int64), asks_head.astype(bool))


def unique_rows(triples: NDArray[np.int64], relations: int, entities: int) -> NDArray[np.int64]:
    """Return triples each once, in ascending order.

    >>> unique_rows(np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]]), 1, 2).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    keys = sorted_unique((triples[:, 0] * relations + triples[:, 1]) * np.int64(entities) + triples[:, 2])
    left, tail = np.divmod(keys, max(entities, 1))
    return np.stack([*np.divmod(left, max(relations, 1)), tail], axis=1)


def sorted_unique(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the different values in ascending order; for hundreds of thousands a few times faster than `numpy.unique`.

    >>> sorted_unique(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(keys)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]
