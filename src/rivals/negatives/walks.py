"""Negatives from walks through the documents that a positive cites, and those that they cite (BiCA)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.pipeline import Retriever, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError

Choice = Literal["sample", "most_probable"]
Links = tuple[NDArray[np.int64], NDArray[np.int64]]


class Walk(NamedTuple):
    """What walks visited: `collected` rows in the order met, the `extra` rows drawn at random from the unvisited, and
    the probabilities of every step taken."""

    collected: list[int]
    extra: list[int]
    step_probabilities: list[list[float]]


def neighbourhood(links: tuple[Any, Any], source: int, *, hops: int = 2) -> list[NDArray[np.int64]]:
    """Return the documents one link away from `source`, two links away, and so on, each in one list only.

    A document stands in the nearest of its hops, once, in ascending order; the source in none.

    Args:
        links: (offsets int64[N + 1], documents): what every document links to, as in CSR. hops: 1 or more.

    Source: BiCA (2025), 2-hop citation neighbourhoods. Paper 32. The reference keeps a document as often as it is
    cited; walks then visit the same text twice.

    Raises:
        RivalsError: offsets that do not fit, a link or source outside the documents, hops < 1.

    >>> chain = ([0, 2, 3, 3, 3], [1, 3, 2])  # 0 -> 1, 0 -> 3, 1 -> 2
    >>> [hop.tolist() for hop in neighbourhood(chain, 0)]
    [[1, 3], [2]]
    """
    offsets, targets = check_links(links)
    if not 0 <= source < len(offsets) - 1:
        raise RivalsError(f"source must lie in 0..{len(offsets) - 2}, the documents linked; not {source}")
    if hops < 1:
        raise RivalsError(f"hops must be 1 or more, not {hops}")
    return _hops(offsets, targets, np.array([source]), hops)


def semantic_walk(
    query: Any,
    documents: Any,
    hop: Any,
    *,
    paths: int = 3,
    length: int = 3,
    top_k: int = 5,
    temperature: float = 1.0,
    choice: Choice = "sample",
    positive: Sequence[int] = (),
    random_extra: int = 0,
    generator: np.random.Generator | None = None,
) -> Walk:
    """Walk from the cited documents nearest to the query to ever more documents near the last one, and collect them.

    The `paths` walks start at the hop-1 documents of highest cosine with the query, best first; one whose start has been
    visited is passed over. From a document, the next is drawn from the `top_k` unvisited ones of highest cosine c with
    it, p = softmax(c / temperature), until `length` are visited or none is left. Walks share what they have visited. At
    temperature 1 cosines are nearly equal chances; top_k = 1 is the greedy walk.

    Args:
        query: float[d]. documents: float[n, d], the neighbourhood, each document once. hop: int[n], 1 for what the
            source cites, 2 and more further away. choice: "most_probable" always takes the first of the top_k.
            positive: rows that are walked through but not collected. random_extra: how many of the unvisited to draw
            besides (the reference: 1). generator: for steps with a choice, and the extra.

    Cost: one product documents @ vector per step; the matrix of all cosines is not formed.

    Source: BiCA (2025), `find_diverse_hard_negatives`. Paper 32. The reference marks the visited with a cosine of -1,
    and so never visits a document that points exactly away; here they are marked apart.

    Raises:
        RivalsError: shapes that do not fit, paths, length or top_k < 1, random_extra < 0, a temperature not above 0, an
        unknown choice, hops below 1 or none of 1, vectors that are not finite or of length 0, no generator where one is
        needed.

    >>> documents = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.5, 0.5]]
    >>> semantic_walk([1.0, 0.0], documents, [1, 2, 1, 2], paths=1, length=3, top_k=1).collected
    [0, 1, 3]
    """
    unit, wanted, hops = _check_walk(query, documents, hop, paths, length, top_k, temperature, choice, random_extra)
    starts = np.flatnonzero(hops == 1)
    starts = starts[np.argsort(-(unit[starts] @ wanted), kind="stable")][:paths]
    free = np.ones(len(unit), bool)
    skip = set(positive)
    collected: list[int] = []
    steps: list[list[float]] = []

    def visit(row: int) -> None:
        free[row] = False
        if row not in skip:
            collected.append(row)

    for start in starts.tolist():
        if not free[start]:
            continue
        current = start
        visit(current)
        for _ in range(length - 1):
            left = np.flatnonzero(free)
            if not len(left):
                break
            cosine = unit[left] @ unit[current]
            best = np.argsort(-cosine, kind="stable")[:top_k]
            mass = np.exp((cosine[best] - cosine[best[0]]) / temperature)
            probability = mass / mass.sum()
            steps.append(probability.tolist())
            place = 0
            if choice == "sample" and len(best) > 1:
                place = int(_needed(generator).choice(len(best), p=probability))
            current = int(left[best[place]])
            visit(current)
    unvisited = np.setdiff1d(np.flatnonzero(free), np.array(sorted(skip), dtype=np.int64))
    extra: list[int] = []
    if random_extra and len(unvisited):
        number = min(random_extra, len(unvisited))
        extra = _needed(generator).choice(unvisited, number, replace=False).tolist()
    return Walk(collected, extra, steps)


class LinkSource(Retriever):
    """Proposes, for every query of a dataset, documents met on walks through the citations around its positives.

    What a paper cites, and what that cites, shares its topic without being a copy of it: hard negatives without a search
    over the corpus. Cited documents can answer the query too; put a `PositiveAware` filter behind.

    The score is the cosine with the query. Called with a dataset it walks from every positive of a query; documents
    without links around them give a query nothing, which `unlinked` counts after each call. `k` cuts the list.

    Args:
        documents: the collection. vectors: float[N, d], its embeddings. links: (offsets int64[N + 1], documents), what
            every document links to. encode_queries: a collection of queries -> float[Q, d], in the same space.
            hops, paths, length, top_k, temperature, choice, random_extra: see `semantic_walk`; one random document is
            added for each positive as in the reference. seed: used with each query's id, so that blocks and their order
            do not matter.

    Source: BiCA (2025). Paper 32. The reference keeps a source only if both hops hold something; here hop 1 is enough.

    Raises:
        RivalsError: vectors or links that do not fit the documents; no document has a link; called with queries alone,
        which name no source.

    >>> from rivals.data import Judgements
    >>> documents = Collection(["a", "b", "c"])
    >>> source = LinkSource(documents, np.eye(3), ([0, 1, 2, 2], [1, 2]), lambda queries: np.ones((len(queries), 3)))
    >>> dataset = Dataset(Collection(["q"]), documents, Judgements.build([0], [0], [1], queries=1, documents=3))
    >>> sorted(documents.ids[source(dataset).document].tolist())
    ['b', 'c']
    """

    name = "walk"
    score_kind = "cosine"

    def __init__(
        self,
        documents: Collection,
        vectors: Any,
        links: tuple[Any, Any],
        encode_queries: Callable[[Collection], Any],
        *,
        hops: int = 2,
        paths: int = 3,
        length: int = 3,
        top_k: int = 5,
        temperature: float = 1.0,
        choice: Choice = "sample",
        random_extra: int = 1,
        seed: int = 0,
    ) -> None:
        self.documents, self.encode_queries = documents, encode_queries
        self.vectors = _unit(np.asarray(vectors), "document vectors")
        self.links = check_links(links)
        if len(self.vectors) != len(documents) or len(self.links[0]) != len(documents) + 1:
            raise RivalsError(
                f"{len(documents)} documents need as many vectors and link lists; not {len(self.vectors)} and "
                f"{len(self.links[0]) - 1}"
            )
        if not len(self.links[1]):
            raise RivalsError("no document has a link; a walk has nowhere to go")
        if hops < 1:
            raise RivalsError(f"hops must be 1 or more, not {hops}")
        _check_options(paths, length, top_k, temperature, choice, random_extra)
        self.hops, self.paths, self.length, self.top_k = hops, paths, length, top_k
        self.temperature, self.choice, self.random_extra, self.seed = temperature, choice, random_extra, seed
        self.unlinked = 0

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        """Return the documents met around the positives of every query, with the positives attached."""
        if k < 1:
            raise RivalsError(f"k must be at least 1, not {k}")
        if not isinstance(queries, Dataset):
            return self.retrieve(queries, k)
        check_same_documents(queries.documents, self.documents)
        known = queries.judgements.positives
        encoded = self._encoded(queries.queries)
        found = [
            self._around(
                encoded[row], known.document[known.offsets[row] : known.offsets[row + 1]], queries.queries.ids[row]
            )
            for row in range(len(encoded))
        ]
        self.unlinked = sum(not len(rows) for rows in found)
        document = np.concatenate([*found, np.zeros(0, np.int64)])
        offsets = lists.offsets_from_lengths([len(rows) for rows in found])
        run = Run.build(
            queries.queries,
            self.documents,
            offsets,
            document,
            self._cosine(encoded, lists.segment_ids(offsets), document),
            scorer=self.name,
            score_kind=self.score_kind,
            seed=self.seed,
        )
        return self.with_positives(run.top(k) if len(run) else run, queries)

    def retrieve(self, queries: Collection, k: int) -> Run:
        raise RivalsError("walks start at a query's positives; call LinkSource with a dataset, source(dataset, k)")

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self._cosine(self._encoded(queries), query_row, document_row)

    def _encoded(self, queries: Collection) -> NDArray[np.float64]:
        vectors = _unit(np.asarray(self.encode_queries(queries)), "query vectors")
        if vectors.shape != (len(queries), self.vectors.shape[1]):
            raise RivalsError(
                f"encode_queries gave {vectors.shape} for {len(queries)} queries and document vectors of width "
                f"{self.vectors.shape[1]}"
            )
        return vectors

    def _cosine(
        self, encoded: NDArray[np.float64], query: NDArray[np.int64], document: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return np.einsum("nd,nd->n", encoded[query], self.vectors[document]).astype(np.float32)

    def _around(self, query: NDArray[np.float64], positives: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, zlib.crc32(str(name).encode())])
        met: list[int] = []
        for source in positives:
            hops = _hops(*self.links, np.array([source]), self.hops)
            rows = np.concatenate(hops)
            if not len(hops[0]):
                continue
            walk = semantic_walk(
                query,
                self.vectors[rows],
                np.repeat(np.arange(1, len(hops) + 1), [len(one) for one in hops]),
                paths=self.paths,
                length=self.length,
                top_k=self.top_k,
                temperature=self.temperature,
                choice=self.choice,
                random_extra=self.random_extra,
                generator=generator,
            )
            met += rows[walk.collected + walk.extra].tolist()
        return np.array(list(dict.fromkeys(met)), dtype=np.int64)


def check_links(links: tuple[Any, Any]) -> Links:
    """Return links as (offsets, documents), int64, or raise a RivalsError.

    >>> check_links(([0, 1, 1], [1]))[1].tolist()
    [1]
    """
    targets = np.asarray(links[1], np.int64)
    offsets = lists.as_offsets(links[0], len(targets), "link offsets")
    if len(targets) and (targets.min() < 0 or targets.max() >= len(offsets) - 1):
        raise RivalsError(f"a link names document {int(targets.max())}, but there are {len(offsets) - 1}")
    return offsets, targets


def _hops(
    offsets: NDArray[np.int64], targets: NDArray[np.int64], source: NDArray[np.int64], hops: int
) -> list[NDArray[np.int64]]:
    seen, found = source, []
    edge = source
    for _ in range(hops):
        index, _ = lists.take_segments(offsets, edge)
        edge = np.setdiff1d(targets[index], seen)
        seen = np.union1d(seen, edge)
        found.append(edge)
    return found


def _check_walk(
    query: Any,
    documents: Any,
    hop: Any,
    paths: int,
    length: int,
    top_k: int,
    temperature: float,
    choice: str,
    random_extra: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    _check_options(paths, length, top_k, temperature, choice, random_extra)
    vectors, wanted, hops = np.asarray(documents), np.asarray(query), np.asarray(hop)
    if vectors.ndim != 2 or wanted.shape != vectors.shape[1:] or hops.shape != vectors.shape[:1]:
        raise RivalsError(
            f"a query [d], documents [n, d] and hops [n] are needed; not {wanted.shape}, {vectors.shape}, {hops.shape}"
        )
    if not (hops >= 1).all() or not (hops == 1).any():
        raise RivalsError("hops must be 1 or more, and one document at least must be at hop 1 to start from")
    return _unit(vectors, "document vectors"), _unit(wanted[None], "query")[0], hops


def _check_options(paths: int, length: int, top_k: int, temperature: float, choice: str, random_extra: int) -> None:
    if min(paths, length, top_k) < 1 or random_extra < 0:
        raise RivalsError(
            f"paths, length and top_k must be 1 or more and random_extra 0 or more; not {paths}, {length}, {top_k}, "
            f"{random_extra}"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise RivalsError(f"temperature must be a finite number above 0, not {temperature!r}")
    if choice not in ("sample", "most_probable"):
        raise RivalsError(f"choice must be 'sample' or 'most_probable', not {choice!r}")


def _unit(vectors: NDArray[Any], what: str) -> NDArray[np.float64]:
    rows = vectors.astype(np.float64)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    if rows.ndim != 2 or not (np.isfinite(length) & (length > 0)).all():
        raise RivalsError(f"{what} must be rows of finite numbers, none of length 0")
    return rows / length


def _needed(generator: np.random.Generator | None) -> np.random.Generator:
    if generator is None:
        raise RivalsError("a walk that draws needs a generator: numpy.random.default_rng(seed)")
    return generator
