"""Corrupted triples: for (head, relation, ?) other tails, for (?, relation, tail) other heads, none of them known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.run import Run, ScoreKind
from rivals.data.triples import Asked, Triples, asked, sorted_unique
from rivals.errors import RivalsError
from rivals.negatives._pool_draws import Pools, pool_draws
from rivals.negatives._random_draws import query_keys, stream
from rivals.negatives.entity_graph import EntityGraph
from rivals.negatives.known_triples import KnownTriples
from rivals.negatives.sources import Proposer

TripleScores = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], Any]
Pool = Literal["all", "typed", "neighbourhood"]

_CELLS = 1 << 20  # candidates drawn at once
_COUNTING = 1 << 21  # where in a query's stream the numbers for its count begin


class CorruptedTriples(Proposer):
    """Proposes entities that would make a triple false: the negatives of knowledge-graph embedding, as a run.

    Queries come from `Triples.dataset`: (head, relation, ?) has its tail replaced, (?, relation, tail) its head, so the side
    is chosen there ("tail", "head" or "both"). `k` entities a query are drawn without replacement, uniformly from a pool:

    - "all": all entities.
    - "typed": those that stand in this place of this relation in some known triple; harder, and of the right kind.
    - "neighbourhood": those 1 to `hops` steps from the entity that is given; hard by structure, and more often true than
      others, so put `GraphDistance` or a judge behind it, or measure with `missing_answers`.

    What makes a triple of the `known` parts is never proposed. Where a pool holds fewer than k, `fill` takes the rest from
    all entities; `filled` counts these queries in the last call. Candidates stand in the order drawn and have no score of
    their own without a `scorer`.

    With `bernoulli`, a query gets Binomial(k, p) of the k: p = hpt / (hpt + tph) where the tail is replaced, tph / (hpt +
    tph) where the head is, with tph the relation's tails a head and hpt its heads a tail. It replaces the side with the
    many answers less often, where a corruption is more often true; made for side "both".

    When to use: training of knowledge-graph embeddings. The draw of a query depends on seed, epoch and its id, not on the
    block it comes in. `TextClusterNegatives` draws by the entities' texts.

    Args:
        known: parts whose triples are not proposed; all of them for evaluation, ("train",) where nothing else may be known.
            part: whose triples make types, neighbourhoods and the relations' numbers.
        scorer: (heads, relations, tails) int64[m] -> score of each triple, for a run ordered by a model's scores, positives
            included.

    Source: Bordes et al. 2013, TransE (uniform, either side); Wang et al. 2014, TransH ("bernoulli"); Krompass et al. 2015
    (typed); Ahrabian et al. 2020, SANS (neighbourhoods); Zhang et al. (2023), HaSa (paper 35) for leaving known tails out.

    Raises:
        RivalsError: an option out of range, a part that is not there, a scorer that gives another number of scores; called
        with queries that are not of a knowledge graph.

    >>> rows = np.array([[0, 0, 1], [1, 0, 2]])
    >>> triples = Triples(Collection(list("abcd")), Collection(["next"]), {"train": rows})
    >>> run = CorruptedTriples(triples)(triples.dataset(), k=3)
    >>> sorted(triples.entities.ids[run.document[:3]].tolist())  # (a, next, ?), where b is known
    ['a', 'c', 'd']
    """

    def __init__(
        self,
        triples: Triples,
        *,
        pool: Pool = "all",
        bernoulli: bool = False,
        known: tuple[str, ...] | None = None,
        part: str = "train",
        hops: int = 2,
        directed: bool = False,
        fill: bool = True,
        scorer: TripleScores | None = None,
        score_kind: ScoreKind = "other",
        seed: int = 0,
        epoch: int = 0,
        name: str = "corrupted",
    ) -> None:
        if pool not in ("all", "typed", "neighbourhood"):
            raise RivalsError(f"pool must be 'all', 'typed' or 'neighbourhood', not {pool!r}")
        if seed < 0 or epoch < 0:
            raise RivalsError(f"seed and epoch must be 0 or more, not {seed!r} and {epoch!r}")
        self.triples, self.documents, self.pool, self.bernoulli = triples, triples.entities, pool, bernoulli
        self.fill, self.scorer, self.hops, self.name = fill, scorer, hops, name
        self.seed, self.epoch, self.filled = int(seed), int(epoch), 0
        self.scores_pairs, self.score_kind = scorer is not None, score_kind
        self.known = KnownTriples(
            triples.part(*(tuple(triples.parts) if known is None else known)), entities=len(triples.entities)
        )
        self._rows = triples.part(part)
        self._graph = EntityGraph(triples, part=part, directed=directed) if pool == "neighbourhood" else None
        self._typed = _places(self._rows, len(triples.relations)) if pool == "typed" else None
        self._tail_share = tail_shares(self._rows, len(triples.relations))

    def at(self, epoch: int) -> CorruptedTriples:
        """Return the source of another epoch, with other draws; the graph and its tables are shared."""
        if epoch < 0:
            raise RivalsError(f"epoch must be 0 or more, not {epoch!r}")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, epoch=int(epoch), filled=0)
        return other

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return up to `k` corruptions of every query."""
        question, keys = asked(queries), query_keys(queries.ids, (self.seed, self.epoch))
        self.filled = 0
        drawn = np.full((len(queries), k), -1, np.int32 if len(self.documents) < 1 << 31 else np.int64)
        for rows, pools in self._blocks(question, max(1, _CELLS // k)):
            drawn[rows] = self._drawn(question.take(rows), keys[rows], k, pools)
        there = drawn >= 0
        found, offsets = drawn[there].astype(np.int64), lists.offsets_from_lengths(there.sum(1))
        score = None
        if self.scorer is not None:
            score = self.score(queries, lists.segment_ids(offsets), found)
        return self._run(queries, offsets, found, score, seed=self.seed)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the scorer's score of each triple, float32[m]; NaN without a scorer."""
        if self.scorer is None:
            return super().score(queries, query_row, document_row)
        question = asked(queries)
        given, other = question.entity[query_row], np.asarray(document_row, np.int64)
        asks_head = question.asks_head[query_row]
        triples = np.where(asks_head, other, given), question.relation[query_row], np.where(asks_head, given, other)
        scores = np.asarray(self.scorer(*triples), np.float32)
        if scores.shape != given.shape:
            raise RivalsError(f"the scorer gave scores of shape {scores.shape} for {len(given)} triples")
        return scores

    def _blocks(self, question: Asked, step: int) -> Iterator[tuple[NDArray[np.int64], Pools]]:
        """Stretches of queries and their pools."""
        if self._graph is not None:
            yield from self._graph.pools(question, hops=self.hops, queries=step)
            return
        for first in range(0, len(question.entity), step):
            rows = np.arange(first, min(first + step, len(question.entity)))
            if self._typed is not None:
                members, bounds = self._typed
                place = question.relation[rows] * 2 + question.asks_head[rows]
                yield rows, Pools(bounds[place], np.diff(bounds)[place], members)
            else:
                yield rows, Pools(np.zeros(len(rows), np.int64), np.full(len(rows), len(self.documents)))

    def _drawn(self, about: Asked, keys: NDArray[np.uint64], k: int, pools: Pools) -> NDArray[np.int64]:
        def forbidden(query: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
            given, asks_head = about.entity[query], about.asks_head[query]
            head, tail = np.where(asks_head, other, given), np.where(asks_head, given, other)
            return self.known.holds(head, about.relation[query], tail)

        drawn = pool_draws(keys, k, pools, forbidden)
        short = np.flatnonzero((drawn < 0).any(1))
        if self.pool != "all" and self.fill and len(short):
            everyone = Pools(np.zeros(len(short), np.int64), np.full(len(short), len(self.documents)))
            have = (drawn[short] >= 0).sum(1)
            more = pool_draws(
                keys[short] + np.uint64(1),
                k,
                everyone,
                lambda query, other: forbidden(short[query], other),
                taken=drawn[short],
            )
            both = np.concatenate([drawn[short], more], axis=1)
            order = np.argsort(both < 0, axis=1, kind="stable")[:, :k]
            drawn[short] = np.take_along_axis(both, order, axis=1)
            self.filled += int(((drawn[short] >= 0).sum(1) > have).sum())
        if self.bernoulli:
            share = self._tail_share[about.relation]
            share = np.where(about.asks_head, 1 - share, share)
            count = (stream(keys, _COUNTING + np.arange(k)) < share[:, None]).sum(1)
            drawn[np.arange(k) >= count[:, None]] = -1
        return drawn


def tail_shares(triples: NDArray[np.int64], relations: int) -> NDArray[np.float64]:
    """Return how often to replace the tail, not the head, of each relation's triples: hpt / (hpt + tph), float64[R].

    tph: tails a head has on average, hpt: heads a tail has; a relation without triples has 0.5.

    Source: Wang et al. 2014, TransH, section 3.2.

    >>> tail_shares(np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3]]), 1).tolist()  # one head, three tails: replace heads
    [0.25]
    """
    relation = triples[:, 1]
    count = np.bincount(relation, minlength=relations)
    each = []
    for column in (0, 2):
        span = max(int(triples[:, column].max(initial=0)) + 1, 1)
        pairs = sorted_unique(relation * span + triples[:, column]) // span
        each.append(count / np.maximum(np.bincount(pairs, minlength=relations), 1))
    tails_a_head, heads_a_tail = each
    total = tails_a_head + heads_a_tail
    return np.where(total > 0, heads_a_tail / np.where(total > 0, total, 1.0), 0.5)


def _places(triples: NDArray[np.int64], relations: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entities seen as tails of relation r in list 2 r, as heads in list 2 r + 1: (entities, offsets)."""
    span = np.int64(int(triples[:, [0, 2]].max(initial=-1)) + 1)
    keys = np.concatenate([(triples[:, 1] * 2) * span + triples[:, 2], (triples[:, 1] * 2 + 1) * span + triples[:, 0]])
    place, entity = np.divmod(sorted_unique(keys), span if span > 0 else np.int64(1))
    return entity, lists.offsets_from_lengths(np.bincount(place, minlength=2 * relations))
