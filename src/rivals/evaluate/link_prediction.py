"""Link prediction on a knowledge graph: filtered ranks of true triples among all entities, by blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.data.triples import Asked, Side, Triples, asked
from rivals.errors import RivalsError
from rivals.evaluate.full import full_ranking
from rivals.evaluate.ranked_answers import RankedAnswers

TripleScorer: TypeAlias = Callable[[Asked], Any]
"""What B queries ask -> the scores of all entities as answers, [B, entities]."""


def link_ranking(
    scorer: TripleScorer,
    graph: Triples,
    *,
    part: str = "test",
    side: Side = "both",
    known: tuple[str, ...] | None = None,
    block: int | None = None,
    threads: int | None = None,
) -> RankedAnswers:
    """Rank the true triples of a part, each against all entities that make no known triple.

    A query is (head, relation, ?) or (?, relation, tail); its rows are those of `graph.dataset(part, side=side)`. MRR,
    hits@k and the adjusted mean rank are then `ranking.rank_values()`.

    Args:
        scorer: called with what some queries ask. known: the parts whose triples are filtered; None takes all, () none
            but the part itself. block, threads: as for `full_ranking`.

    Source: the filtered setting of Bordes et al. 2013; ties and adjusted ranks: Berrendorf et al. 2020.

    Raises:
        RivalsError: there is no such part; as `full_ranking`.

    >>> from rivals.data import Collection
    >>> graph = Triples(Collection(["a", "b", "c"]), Collection(["r"]), {"train": np.array([[0, 0, 1]]), "test": np.array([[0, 0, 2]])})
    >>> link_ranking(lambda asks: np.tile([0.1, 0.9, 0.5], (len(asks.entity), 1)), graph, side="tail").ranks().tolist()
    [1.0]
    """
    data = graph.dataset(part, side=side)
    asks = asked(data.queries)
    filtered = graph.part(*known) if known else graph.part() if known is None else np.zeros((0, 3), np.int64)
    answers = known_answers(asks, filtered, entities=len(graph.entities))
    return full_ranking(
        lambda rows: scorer(asks.take(rows)), data.judgements.positives, known=answers, block=block, threads=threads
    )


def known_answers(asks: Asked, triples: NDArray[np.int64], *, entities: int) -> Judgements:
    """Return which entities answer each query in known triples int64[M, 3], as judgements of relevance 1.

    Raises:
        RivalsError: a triple or a query names an entity that is not there.

    >>> asks = Asked(np.array([0, 1]), np.array([0, 0]), np.array([False, True]))
    >>> known_answers(asks, np.array([[0, 0, 1], [0, 0, 2]]), entities=3).document.tolist()
    [1, 2, 0]
    """
    relations = int(max(triples[:, 1].max(initial=0), asks.relation.max(initial=0))) + 1
    if max(triples[:, [0, 2]].max(initial=-1), asks.entity.max(initial=-1)) >= entities:
        raise RivalsError(f"a triple or query names an entity beyond the {entities} there are")
    head, relation, tail = triples.T
    key = np.concatenate([relation * entities + head, (relations + relation) * entities + tail])
    answer = np.concatenate([tail, head])
    order = np.lexsort((answer, key))
    key, answer = key[order], answer[order]
    wanted = (np.where(asks.asks_head, relations, 0) + asks.relation) * entities + asks.entity
    low, high = np.searchsorted(key, wanted, "left"), np.searchsorted(key, wanted, "right")
    offsets = lists.offsets_from_lengths(high - low)
    place = np.repeat(low, high - low) + lists.positions(offsets)
    query = lists.segment_ids(offsets)
    return Judgements.build(query, answer[place], np.ones(len(place)), queries=len(wanted), documents=entities)
