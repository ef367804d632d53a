"""Full ranking against brute force, and the measures that follow from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection
from rivals.data.dataset import Judgements
from rivals.data.formats.triples import load_triples
from rivals.errors import DataError, RivalsError
from rivals.evaluate.evaluation_negatives import EvaluationNegatives
from rivals.evaluate.full import SampledRankingWarning, full_ranking, vector_scores
from rivals.evaluate.link_prediction import link_ranking
from rivals.evaluate.ranked_answers import RankedAnswers
from rivals.measures import ndcg, recall


def some(pairs: np.ndarray[Any, Any], grades: np.ndarray[Any, Any] | None = None) -> Judgements:
    """Judge the pairs that a matrix [Q, N] marks, with a grade each."""
    query, document = np.nonzero(pairs)
    relevance = np.ones(len(query)) if grades is None else grades[query, document]
    return Judgements.build(query, document, relevance, queries=pairs.shape[0], documents=pairs.shape[1])


def world(seed: int, queries: int = 7, documents: int = 23) -> tuple[np.ndarray[Any, Any], Judgements, Judgements]:
    """Scores with many ties, answers, and known pairs that overlap with the answers; some queries have no answer."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(-3, 4, (queries, documents)).astype(np.float32)
    answers = draw.random((queries, documents)) < 0.15
    answers[0], answers[1, 3] = False, True
    return scores, some(answers), some(draw.random((queries, documents)) < 0.2)


def by_hand(scores: np.ndarray[Any, Any], answers: Judgements, known: Judgements | None) -> list[tuple[int, int]]:
    found = []
    for query in range(len(scores)):
        own = answers.document[answers.offsets[query] : answers.offsets[query + 1]]
        out = set(own.tolist())
        if known is not None:
            out |= set(known.document[known.offsets[query] : known.offsets[query + 1]].tolist())
        rivals = [scores[query, d] for d in range(scores.shape[1]) if d not in out]
        found += [(sum(v > scores[query, d] for v in rivals), sum(v == scores[query, d] for v in rivals)) for d in own]
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 9), threads=st.integers(1, 3), filtered=st.booleans())
def test_counts_are_those_of_brute_force_whatever_the_blocks(
    seed: int, block: int, threads: int, filtered: bool
) -> None:
    scores, answers, known = world(seed)
    used = known if filtered else None
    found = full_ranking(lambda rows: scores[rows], answers, known=used, block=block, threads=threads)
    assert list(zip(found.above.tolist(), found.tied.tolist(), strict=True)) == by_hand(scores, answers, used)
    assert (found.ranks("optimistic") <= found.ranks()).all()
    assert np.allclose(found.ranks(), (found.ranks("optimistic") + found.ranks("pessimistic")) / 2)
    assert found.left_out == int((np.diff(answers.offsets) == 0).sum())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.sampled_from(["optimistic", "pessimistic"]))
def test_list_measures_are_those_of_the_whole_sorted_list(seed: int, ties: Any) -> None:
    scores, answers, known = world(seed)
    draw = np.random.default_rng(seed)
    grades = np.zeros(scores.shape)
    grades[answers.query, answers.document] = draw.integers(1, 4, len(answers))
    graded = some(grades > 0, grades)
    out = np.zeros(scores.shape, bool)
    out[known.query, known.document] = True
    found = full_ranking(lambda rows: scores[rows], graded, known=known)
    # Answers stand before what they equal, or behind, and among themselves the best or the worst grade first.
    nudge = np.where(grades > 0, 0.1 + grades * 0.01, 0.0) * (1 if ties == "optimistic" else -1)
    mask = ~out | (grades > 0)
    whole = {
        "nDCG@5": ndcg(scores + nudge, grades, mask, k=5),
        "R@5": recall(scores + nudge, grades, mask, k=5),
    }
    for name, value in found.list_values(list(whole), ties).items():
        assert value == pytest.approx(whole[name][found.queries])


def test_a_constant_scorer_is_random_not_perfect() -> None:
    answers = some(np.eye(5, 101) > 0)
    found = full_ranking(lambda rows: np.zeros((len(rows), 101)), answers)
    values = found.rank_values()
    assert values["mean rank"] == 51
    assert values["adjusted mean rank"] == pytest.approx(1)
    assert values["adjusted mean rank index"] == pytest.approx(0)
    assert found.rank_values(["MRR"], "optimistic")["MRR"] == 1
    assert found.rank_values(["MRR"], "pessimistic")["MRR"] == pytest.approx(1 / 101)
    perfect = full_ranking(lambda rows: np.eye(5, 101)[rows], answers)
    assert perfect.rank_values(["adjusted mean rank index", "hits@1"]) == {"adjusted mean rank index": 1, "hits@1": 1}


def test_measures_of_ranks_by_hand() -> None:
    # Ranks 1 and 3 of a query with 4 rivals, rank 2 of one with 9.
    ends = np.array([0, 2, 3])
    found = RankedAnswers(
        np.array([0, 1]), ends, np.arange(3), np.ones(3), np.array([2.0, 1, 0]), np.array([0, 2, 1]), np.zeros(3, int),
        np.array([4, 9]), 0,
    )  # fmt: skip
    values = found.rank_values(
        ("MRR", "hits@1", "hits@2", "mean rank", "adjusted mean rank", "adjusted mean rank index")
    )
    expected = (1 + 1 / 3 + 1 / 2) / 3, 1 / 3, 2 / 3, 2, 6 / (3 + 3 + 5.5), 1 - 3 / (2 + 2 + 4.5)
    assert list(values.values()) == pytest.approx(expected)
    # In one list, the second answer of the first query stands at place 4: behind the first answer and two rivals.
    assert found.list_values(["nDCG@4"])["nDCG@4"] == pytest.approx(
        [(1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)), 1 / math.log2(3)]
    )
    with pytest.raises(RivalsError, match="cut-off"):
        found.list_values(["nDCG"])
    with pytest.raises(RivalsError, match="hits@k"):
        found.rank_values(["median rank"])


def test_intervals_hold_the_value_and_slices_are_rankings() -> None:
    draw = np.random.default_rng(3)
    users, items = draw.standard_normal((60, 8), dtype=np.float32), draw.standard_normal((300, 8), dtype=np.float32)
    answers = some(draw.random((60, 300)) < 0.02)
    found = full_ranking(vector_scores(users, items), answers)
    one = found.intervals(["nDCG@10", "MRR", "adjusted mean rank index"], resamples=500)
    for interval in one.values():
        assert interval.low <= interval.estimate <= interval.high
    assert one == found.intervals(["nDCG@10", "MRR", "adjusted mean rank index"], resamples=500)
    assert one["MRR"].estimate == pytest.approx(found.rank_values(["MRR"])["MRR"])
    half = found.take(np.arange(len(found.queries)) < 20)
    rest = found.take(np.arange(20, len(found.queries)))
    assert len(half) + len(rest) == len(found)
    assert np.concatenate([half.above, rest.above]).tolist() == found.above.tolist()
    assert "95% interval" in [column.header for column in found.table().columns]


def test_torch_scorers_and_vectors_agree() -> None:
    draw = torch.Generator().manual_seed(0)
    users, items = torch.randn(9, 4, generator=draw), torch.randn(40, 4, generator=draw)
    answers = some(np.eye(9, 40) > 0)
    one = full_ranking(vector_scores(users, items), answers, block=2)
    two = full_ranking(lambda rows: users[torch.from_numpy(rows)].double() @ items.double().T, answers, block=9)
    assert one.above.tolist() == two.above.tolist()


def test_sampled_ranks_warn_and_stand_beside_the_full_ones() -> None:
    scores, answers, known = world(5, queries=30, documents=80)
    negatives = EvaluationNegatives.draw(answers, 10, documents=80, known=known, seed=1)
    assert np.diff(negatives.offsets).tolist() == [10] * 30
    with pytest.warns(SampledRankingWarning, match="not those of the full ranking"):
        found = full_ranking(lambda rows: scores[rows], answers, known=known, negatives=negatives)
    assert found.sampled is not None
    plain = full_ranking(lambda rows: scores[rows], answers, known=known)
    assert found.above.tolist() == plain.above.tolist()
    assert (found.sampled.above <= found.above).all()
    assert (found.sampled.tied <= found.tied).all()
    for place, (query, document) in enumerate(zip(found.query, found.document, strict=True)):
        drawn = scores[query, negatives.document[negatives.offsets[query] : negatives.offsets[query + 1]]]
        assert found.sampled.above[place] == (drawn > scores[query, document]).sum()
    assert found.sampled.rank_values(["MRR"])["MRR"] > found.rank_values(["MRR"])["MRR"], "the bias"
    assert "biased" in str(found.table().columns[-1].header)
    everything = EvaluationNegatives.draw(answers, 80, documents=80, known=known)
    with pytest.warns(SampledRankingWarning):
        whole = full_ranking(lambda rows: scores[rows], answers, known=known, negatives=everything)
    assert whole.sampled is not None
    assert whole.sampled.above.tolist() == whole.above.tolist()


def test_stored_negatives_come_back(tmp_path: Path) -> None:
    _, answers, known = world(2)
    queries = Collection([f"u{i}" for i in range(7)], name="query")
    documents = Collection([f"i{i}" for i in range(23)])
    weights = np.arange(23.0)
    drawn = [
        EvaluationNegatives.draw(answers, 4, documents=23, known=known, how="popularity", popularity=weights, seed=s)
        for s in (3, 3, 4)
    ]
    assert drawn[0].document.tolist() == drawn[1].document.tolist() != drawn[2].document.tolist()
    assert 0 not in drawn[0].document, "weight 0 is never drawn"
    drawn[0].save(tmp_path / "negatives.parquet", queries, documents)
    order = np.random.default_rng(0).permutation(23)
    turned = Collection([f"i{i}" for i in order])
    back = EvaluationNegatives.load(tmp_path / "negatives.parquet", queries, turned)
    assert (back.how, back.seed, back.offsets.tolist()) == ("popularity", 3, drawn[0].offsets.tolist())
    pairs = [
        set(zip(n.query.tolist(), ids[n.document].tolist(), strict=True))
        for n, ids in ((drawn[0], documents.ids), (back, turned.ids))
    ]
    assert pairs[0] == pairs[1]
    (tmp_path / "other.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        EvaluationNegatives.load(tmp_path / "other.parquet", queries, documents)


def test_popular_documents_are_drawn_more_often() -> None:
    answers = some(np.eye(3000, 20) > 0)
    weights = np.repeat([1.0, 3.0], 10)
    drawn = EvaluationNegatives.draw(answers, 1, documents=20, how="popularity", popularity=weights)
    assert (drawn.document >= 10).mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda rows: np.zeros((len(rows), 3)), "document row 4 is named"),
        (lambda rows: np.zeros(len(rows)), "shape"),
        (lambda rows: np.full((len(rows), 9), np.nan), "NaN"),
    ],
)
def test_bad_scores_are_refused(scorer: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        full_ranking(scorer, Judgements.build([0, 1], [1, 4], [1, 1], queries=2, documents=9), block=2)


def test_bad_input_is_refused() -> None:
    scores, answers, known = world(1)
    nothing = Judgements.build([], [], [], queries=7, documents=23)
    with pytest.raises(RivalsError, match="none of the 7 queries"):
        full_ranking(lambda rows: scores[rows], nothing)
    with pytest.raises(RivalsError, match="known covers 2 queries"):
        full_ranking(lambda rows: scores[rows], answers, known=known.take([0, 1]))
    wrong = EvaluationNegatives(answers.offsets, answers.document, "uniform", 0)
    with pytest.raises(RivalsError, match="hold answers"):
        full_ranking(lambda rows: scores[rows], answers, negatives=wrong)
    with pytest.raises(RivalsError, match="block"):
        full_ranking(lambda rows: scores[rows], answers, block=0)
    with pytest.raises(RivalsError, match="one width"):
        vector_scores(np.zeros((2, 3)), np.zeros((2, 4)))


@pytest.mark.parametrize("side", ["tail", "head", "both"])
def test_filtered_ranks_of_a_real_graph(shared_data: Path, side: Any) -> None:
    graph = load_triples(shared_data / "nations")
    entities, relations = len(graph.entities), len(graph.relations)
    table = np.random.default_rng(0).integers(0, 6, (2, relations, entities, entities)).astype(np.float32)
    found = link_ranking(
        lambda asks: table[asks.asks_head.astype(int), asks.relation, asks.entity],
        graph,
        part="test",
        side=side,
        block=3,
    )
    true = {tuple(row) for row in graph.part().tolist()}
    expected = []
    for head, relation, tail in graph.part("test").tolist():
        for asks_head in {"tail": [0], "head": [1], "both": [0, 1]}[side]:
            given_, answer = (tail, head) if asks_head else (head, tail)
            row = table[asks_head, relation, given_]
            triple = (
                (lambda e, r=relation, g=given_: (e, r, g))
                if asks_head
                else (lambda e, r=relation, g=given_: (g, r, e))
            )
            rivals = [row[e] for e in range(entities) if e != answer and triple(e) not in true]
            expected.append(1 + sum(v > row[answer] for v in rivals) + sum(v == row[answer] for v in rivals) / 2)
    assert sorted(found.ranks().tolist()) == sorted(expected)
    assert found.rank_values(["MRR"])["MRR"] == pytest.approx(np.mean(1 / np.array(expected)))
