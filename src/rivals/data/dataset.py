"""`Dataset`: queries, documents, judgements and splits; and `Judgements`, who is relevant to whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError


@dataclass(frozen=True, eq=False)
class Judgements:
    """Judged documents of every query row, as in CSR: `offsets` int64[Q + 1], `document` int64[n], `relevance` float32[n].

    Relevance above 0 is relevant; 0 and below is judged and not relevant; a pair that is not here is unjudged.
    """

    offsets: NDArray[np.int64]
    document: NDArray[np.int64]
    relevance: NDArray[np.float32]

    @classmethod
    def build(cls, query: Any, document: Any, relevance: Any, *, queries: int, documents: int) -> Judgements:
        """Make judgements from triples (query row, document row, relevance) in any order.

        Raises:
            DataError: a row out of range, a relevance that is not a number, a pair judged twice with different relevance.

        >>> Judgements.build([1, 0], [0, 2], [1, 2], queries=2, documents=3).document.tolist()
        [2, 0]
        """
        query, document = np.asarray(query, np.int64), np.asarray(document, np.int64)
        relevance = np.asarray(relevance, np.float32)
        if len({len(query), len(document), len(relevance)}) != 1:
            raise DataError(
                f"{len(query)} queries, {len(document)} documents and {len(relevance)} relevances do not pair up"
            )
        for rows, size, what in ((query, queries, "query"), (document, documents, "document")):
            if len(rows) and (rows.min() < 0 or rows.max() >= size):
                raise DataError(f"a judgement names {what} row {rows.max()} of {size}")
        if np.isnan(relevance).any():
            raise DataError("a judgement's relevance is NaN; give a number, 0 for not relevant")
        order = np.lexsort((document, query))
        query, document, relevance = query[order], document[order], relevance[order]
        same = (query[1:] == query[:-1]) & (document[1:] == document[:-1])
        if (same & (relevance[1:] != relevance[:-1])).any():
            at = int((same & (relevance[1:] != relevance[:-1])).argmax())
            raise DataError(f"query row {query[at]} and document row {document[at]} are judged twice, differently")
        first = np.concatenate(([True], ~same)) if len(query) else np.zeros(0, bool)
        query, document, relevance = query[first], document[first], relevance[first]
        return cls(lists.offsets_from_lengths(np.bincount(query, minlength=queries)), document, relevance)

    def __len__(self) -> int:
        return len(self.document)

    def __repr__(self) -> str:
        judged = int((np.diff(self.offsets) > 0).sum())
        relevant = int((self.relevance > 0).sum())
        return f"Judgements({len(self)} of {judged} of {len(self.offsets) - 1} queries, {relevant} relevant)"

    @property
    def query(self) -> NDArray[np.int64]:
        """The query row of every judgement, int64[n]."""
        return lists.segment_ids(self.offsets)

    @cached_property
    def positives(self) -> Judgements:
        """Only the judgements with relevance above 0."""
        keep = self.relevance > 0
        return Judgements(lists.keep_values(keep, self.offsets), self.document[keep], self.relevance[keep])

    def take(self, query_rows: Any) -> Judgements:
        """Return the judgements of some query rows, renumbered in the order given."""
        index, offsets = lists.take_segments(self.offsets, query_rows)
        return Judgements(offsets, self.document[index], self.relevance[index])

    def find(self, run: Run) -> NDArray[np.int64]:
        """Return for every candidate of a run the place of its judgement, or -1 if unjudged."""
        if len(run.queries) != len(self.offsets) - 1:
            raise RivalsError(
                f"the run has {len(run.queries)} queries, the judgements {len(self.offsets) - 1}; align them first"
            )
        return lists.find_pairs(self.offsets, self.document, run.query, run.document)

    def relevance_of(self, run: Run) -> NDArray[np.float32]:
        """Return the relevance of every candidate of a run over the same query rows, float32[n]; 0 where unjudged."""
        place = self.find(run)
        if not len(self):
            return np.zeros(len(run), np.float32)
        return np.where(place >= 0, self.relevance[place], np.float32(0))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Queries, documents and who is relevant to whom; the input of everything.

    `splits` maps a name ("train", "dev", "test") to query rows. `report` holds what loading noticed (counts of dropped or odd
    rows by reason), so that nothing is left out silently; `origin` says which file and field each part was read from.

    >>> queries, documents = Collection(["q1", "q2"], ["x?", "y?"], name="query"), Collection(["a", "b"], ["x", "y"])
    >>> judgements = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    >>> dataset = Dataset(queries, documents, judgements, {"train": np.array([0]), "test": np.array([1])})
    >>> dataset.split("test").queries.ids.tolist()
    ['q2']
    """

    queries: Collection
    documents: Collection
    judgements: Judgements
    splits: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    name: str = ""
    report: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.judgements.offsets) != len(self.queries) + 1:
            raise DataError(
                f"judgements cover {len(self.judgements.offsets) - 1} queries, the dataset has {len(self.queries)}"
            )
        seen: dict[int, str] = {}
        for split, rows in self.splits.items():
            for row in np.asarray(rows).tolist():
                if not 0 <= row < len(self.queries):
                    raise DataError(f"split '{split}' names query row {row} of {len(self.queries)}")
                if row in seen:
                    where = (
                        f"twice in split '{split}'" if seen[row] == split else f"in splits '{seen[row]}' and '{split}'"
                    )
                    raise DataError(f"query '{self.queries.ids[row]}' stands {where}; splits must not overlap")
                seen[row] = split

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(rows)}" for name, rows in self.splits.items())
        return (
            f"Dataset({self.name or 'unnamed'}: {len(self.queries)} queries ({parts or 'no splits'}), "
            f"{len(self.documents)} documents, {len(self.judgements)} judgements)"
        )

    def describe(self) -> str:
        """Return what was read, from which fields, and every count that loading noticed, one a line.

        >>> Dataset(Collection([], name="query"), Collection(["a"]), Judgements.build([], [], [], queries=0, documents=1)).describe()
        'Dataset(unnamed: 0 queries (no splits), 1 documents, 0 judgements)'
        """
        origin = [f"  {part}: {source}" for part, source in self.origin.items()]
        return "\n".join([repr(self), *origin, *(f"  {reason}: {count:,}" for reason, count in self.report.items())])

    @classmethod
    def from_pairs(
        cls,
        queries: Collection,
        documents: Collection,
        pairs: Iterable[tuple[str, str, float]],
        *,
        splits: Mapping[str, Iterable[str]] | None = None,
        name: str = "",
    ) -> Dataset:
        """Make a dataset from (query id, document id, relevance) triples and splits by query id.

        Raises:
            DataError: an unknown id (use the loaders in `rivals.data` for files, which say the line).
        """
        triples = list(pairs)
        judgements = Judgements.build(
            queries.rows(q for q, _, _ in triples),
            documents.rows(d for _, d, _ in triples),
            [r for _, _, r in triples],
            queries=len(queries),
            documents=len(documents),
        )
        rows = {split: queries.rows(ids) for split, ids in (splits or {}).items()}
        return cls(queries, documents, judgements, rows, name)

    def split(self, name: str) -> Dataset:
        """Return the dataset with only the queries of one split, over the same documents.

        Raises:
            RivalsError: there is no such split.
        """
        if name not in self.splits:
            raise RivalsError(f"the dataset has no split '{name}'; it has {', '.join(self.splits) or 'none'}")
        return self.take(self.splits[name])

    def take(self, query_rows: Any) -> Dataset:
        """Return the dataset with only some queries, renumbered in the order given, over the same documents."""
        rows = np.asarray(query_rows, dtype=np.int64)
        return replace(self, queries=self.queries.take(rows), judgements=self.judgements.take(rows), splits={})

    def with_splits(self, *, dev: float = 0.1, test: float = 0.2, seed: int = 0, by: str | None = None) -> Dataset:
        """Return the dataset with random train / dev / test splits of its queries.

        Args:
            dev, test: shares of the queries, each in [0, 1), together below 1.
            by: a query column; queries with equal values there (a topic, a user) go to the same split, so that the test
                measures what is new. Queries that share a relevant document are always kept together.

        >>> q, d = Collection([f"q{i}" for i in range(10)], name="query"), Collection([f"d{i}" for i in range(10)])
        >>> data = Dataset(q, d, Judgements.build(range(10), range(10), [1] * 10, queries=10, documents=10))
        >>> {name: len(rows) for name, rows in data.with_splits().splits.items()}
        {'train': 7, 'dev': 1, 'test': 2}
        """
        if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
            raise RivalsError(f"dev={dev} and test={test} must be shares that leave something to train on")
        group = self._query_groups(by)
        sizes = np.bincount(group)
        order = np.random.default_rng(seed).permutation(len(sizes))
        reached = np.cumsum(sizes[order]) / max(len(group), 1)
        split_of_group = np.empty(len(sizes), dtype=np.int64)
        split_of_group[order] = np.where(reached <= test + 1e-9, 2, np.where(reached <= test + dev + 1e-9, 1, 0))
        split_of_query = split_of_group[group]
        names = ("train", "dev", "test")
        return replace(self, splits={name: np.flatnonzero(split_of_query == i) for i, name in enumerate(names)})

    def _query_groups(self, by: str | None) -> NDArray[np.int64]:
        """Group queries that must not be parted: same value of column `by`, or a relevant document in common."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        positives = self.judgements.positives
        nodes = len(self.queries) + len(self.documents)
        left, right = [positives.query], [positives.document + len(self.queries)]
        if by is not None:
            if by not in self.queries.table.column_names:
                raise RivalsError(
                    f"queries have no column '{by}'; they have {', '.join(self.queries.table.column_names)}"
                )
            values = np.unique(np.asarray(self.queries.table[by].to_pylist(), dtype=str), return_inverse=True)[1]
            left.append(np.arange(len(self.queries)))
            right.append(values + nodes)
            nodes += int(values.max(initial=-1)) + 1
        rows, columns = np.concatenate(left), np.concatenate(right)
        graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(nodes, nodes))
        component = connected_components(graph, directed=False)[1][: len(self.queries)]
        return np.unique(component, return_inverse=True)[1]
