"""Structure of a knowledge graph as a hint: entities few steps away may be true answers that nobody wrote down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform, check_same_documents
from rivals.data.run import Run
from rivals.data.triples import asked
from rivals.errors import RivalsError
from rivals.negatives._pool_draws import pool_draws
from rivals.negatives._random_draws import query_keys
from rivals.negatives.entity_graph import EntityGraph, check_hops
from rivals.negatives.filters import known_positives

_CELLS = 1 << 21  # questions and entities compared at once


class Lift(NamedTuple):
    """Where true answers that training does not know lie: `near`, the share of true ones among the entities within some
    steps, `anywhere` among all, and `recall`, the share of the missing answers that lie within. `lift` = near / anywhere.
    """

    near: float
    anywhere: float
    recall: float

    @property
    def lift(self) -> float:
        """How many times more frequent missing answers are nearby than anywhere; NaN where there are none."""
        return self.near / self.anywhere if self.anywhere > 0 else float("nan")


def missing_answers(
    graph: EntityGraph, *, part: str = "valid", hops: int = 2, side: Literal["tail", "head", "both"] = "tail"
) -> Lift:
    """Measure whether entities within `hops` steps hold more of the missing true answers than others do.

    Every query of `part` is asked; entities already known as answers in the graph's own triples are left out on both
    sides. `near` is the probability to give `GraphDistance` for `probability`.

    Source: Zhang et al. (2023), HaSa, the assumption behind its sampler. Paper 35.

    Raises:
        RivalsError: there is no such part, hops outside 1..100.

    >>> from rivals.data import Collection
    >>> from rivals.data.triples import Triples
    >>> parts = {"train": np.array([[0, 0, 1], [1, 0, 2]]), "valid": np.array([[0, 0, 2]])}
    >>> graph = EntityGraph(Triples(Collection(list("abcd")), Collection(["part of"]), parts))
    >>> found = missing_answers(graph)
    >>> found.near, round(found.anywhere, 3), found.recall
    (1.0, 0.333, 1.0)
    """
    dataset = graph.triples.dataset(part, side=side)
    question, answers = asked(dataset.queries), dataset.judgements.positives
    size = len(graph.documents)
    linked, new, near, within = 0, 0, 0, 0
    step = max(1, _CELLS // max(size, 1))
    for first in range(0, len(dataset.queries), step):
        rows = np.arange(first, min(first + step, len(dataset.queries)))
        known = np.zeros((len(rows), size), bool)
        true, hop = known.copy(), known.copy()
        own, ends = graph.known_answers(question.take(rows))
        known[lists.segment_ids(ends), own] = True
        index, offsets = lists.take_segments(answers.offsets, rows)
        true[lists.segment_ids(offsets), answers.document[index]] = True
        members, bounds = graph.reached(question.entity[rows], hops=hops, backward=question.asks_head[rows])
        hop[lists.segment_ids(bounds), members] = True
        linked += int((~known).sum())
        new += int((true & ~known).sum())
        near += int((hop & ~known).sum())
        within += int((hop & true & ~known).sum())
    return Lift(within / max(near, 1), new / max(linked, 1), within / max(new, 1))


@dataclass(frozen=True, eq=False, repr=False)
class GraphDistance(Transform):
    """Mark candidates that lie 1 to `max_hops` steps from the entity that the query gives: likely missing answers.

    - action "drop": they are no negatives, `keep` is cleared.
    - "weight": they stay, with the weight 1 - `probability`.
    - "flag": they only get their reason, and `fn_probability`.

    With a `probability`, `fn_probability` is set to it (or stays, if higher). `missing_answers` measures it. The graph's
    own answers are among the suspects; `KnownPositives` says which.

    When to use: behind any source over a knowledge graph, where hard candidates are often true and unwritten.
    `graph_suspects` gives the same entities to `structure_aware_info_nce_loss`, which subtracts what they add instead.

    Args:
        graph: an `EntityGraph` of the training part; its `directed` decides which edges count.

    Source: Zhang et al. (2023), HaSa: false negatives among the entities within two directed steps of the head. Paper 35.

    Raises:
        RivalsError: an option out of range, "weight" without probability; called with a run over other entities, or with
        queries that are not of a knowledge graph.

    >>> from rivals.data import Collection
    >>> from rivals.data.triples import Triples
    >>> rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 3]])
    >>> triples = Triples(Collection(list("abcd")), Collection(["next"]), {"train": rows})
    >>> queries = triples.dataset().queries.take([0])  # (a, next, ?)
    >>> run = Run.build(queries, triples.entities, [0, 2], [2, 3], [.9, .8])
    >>> GraphDistance(EntityGraph(triples))(run).keep.tolist()
    [False, True]
    """

    graph: EntityGraph
    max_hops: int = 2
    action: Literal["drop", "weight", "flag"] = "drop"
    probability: float | None = None

    def __post_init__(self) -> None:
        check_hops(self.max_hops)
        if self.action not in ("drop", "weight", "flag"):
            raise RivalsError(f"action must be one of drop, weight, flag, not {self.action!r}")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise RivalsError(f"probability must lie in 0..1, not {self.probability!r}")
        if self.action == "weight" and self.probability is None:
            raise RivalsError("action 'weight' needs the probability of a false negative; missing_answers measures it")

    def __repr__(self) -> str:
        return f"GraphDistance(max_hops={self.max_hops}, action={self.action!r})"

    @property
    def reason(self) -> str:
        """The reason of its marks."""
        return f"within {self.max_hops} steps in the graph"

    def __call__(self, run: Run) -> Run:
        suspect = self.suspects(run)
        marked = run.mark(suspect, self.reason, keep=self.action != "drop")
        if self.probability is None:
            return marked
        likely = np.where(suspect, np.fmax(run.fn_probability, np.float32(self.probability)), run.fn_probability)
        marked = marked.replace(fn_probability=likely)
        if self.action != "weight":
            return marked
        return marked.replace(weight=np.where(suspect, np.float32(1 - self.probability), run.weight))

    def suspects(self, run: Run) -> NDArray[np.bool_]:
        """Return which candidates lie within the steps, bool[n]."""
        check_same_documents(run.documents, self.graph.documents)
        question, query = asked(run.queries), run.query
        steps = self.graph.distances(
            question.entity[query], run.document, max_hops=self.max_hops, backward=question.asks_head[query]
        )
        return (steps > 0) & (steps <= self.max_hops)


class GraphSuspects(NamedTuple):
    """Suspected true answers of every query: `document` int64[Q, count], -1 where `mask` bool[Q, count] is False, and
    `origin` int8[Q, count]: 0 a candidate of the run, 1 drawn from the steps around, 2 a known answer."""

    document: NDArray[np.int64]
    mask: NDArray[np.bool_]
    origin: NDArray[np.int8]


def graph_suspects(
    run: Run, graph: EntityGraph, *, count: int = 3, max_hops: int = 2, seed: int = 0, epoch: int = 0
) -> GraphSuspects:
    """Return entities that are probably true answers, as false negatives to subtract from the loss of each query.

    First the run's best candidates within `max_hops` steps, then entities drawn at random from those steps away, then
    known answers; all different, known answers only in the last place. Score them with the model and give the scores to
    `structure_aware_info_nce_loss` as `false_scores`, with `hardness_weights(scores, zeros)` as `false_weight`.

    Args:
        run: candidates of a knowledge graph's queries with their positives. count: 3 in the paper's code.

    Source: Zhang et al. (2023), HaSa, sampler of false negatives; its slice of the hard tails is off by rows, here every
    query has its own. Paper 35.

    Raises:
        RivalsError: as `GraphDistance`; count below 1.

    >>> from rivals.data import Collection
    >>> from rivals.data.triples import Triples
    >>> rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 3]])
    >>> triples = Triples(Collection(list("abcd")), Collection(["next"]), {"train": rows})
    >>> data = triples.dataset().take([0])
    >>> run = Run.build(data.queries, triples.entities, [0, 1], [3], [.9], positives=([0, 1], [1]))
    >>> found = graph_suspects(run, EntityGraph(triples), count=3)
    >>> found.document.tolist(), found.origin.tolist()
    ([[2, 1, -1]], [[1, 2, -1]])
    """
    if count < 1:
        raise RivalsError(f"count must be 1 or more, not {count!r}")
    near = GraphDistance(graph, max_hops).suspects(run) & ~known_positives(run)
    document = np.full((len(run.queries), count), -1, np.int64)
    origin = np.full(document.shape, -1, np.int8)
    rows, offsets = np.flatnonzero(near), lists.keep_values(near, run.offsets)
    _fill(document, origin, run.document[rows], offsets, 0)
    question, keys = asked(run.queries), query_keys(run.queries.ids, (seed, epoch, 35))
    known = np.sort(lists.segment_ids(run.positive_offsets) * np.int64(len(run.documents)) + run.positive)
    drawn = np.full(document.shape, -1, np.int64)
    for queries, pools in graph.pools(question, hops=max_hops):

        def forbidden(
            query: NDArray[np.int64], entity: NDArray[np.int64], queries: NDArray[np.int64] = queries
        ) -> NDArray[np.bool_]:
            wanted = queries[query] * np.int64(len(run.documents)) + entity
            place = np.searchsorted(known, wanted)
            return known[np.minimum(place, len(known) - 1)] == wanted if len(known) else np.zeros(len(wanted), bool)

        drawn[queries] = pool_draws(keys[queries], count, pools, forbidden, document[queries])
    _fill(document, origin, drawn[drawn >= 0], lists.offsets_from_lengths((drawn >= 0).sum(1)), 1)
    _fill(document, origin, run.positive, run.positive_offsets, 2)
    return GraphSuspects(document, document >= 0, origin)


def _fill(
    document: NDArray[np.int64],
    origin: NDArray[np.int8],
    values: NDArray[np.int64],
    offsets: NDArray[np.int64],
    mark: int,
) -> None:
    """Put every list's values into the open places of its row, as far as they go."""
    query = lists.segment_ids(offsets)
    place = (document >= 0).sum(1)[query] + lists.positions(offsets)
    fits = place < document.shape[1]
    document[query[fits], place[fits]] = values[fits]
    origin[query[fits], place[fits]] = mark
