"""Fusion by hand, the choice of weights, runs that do not fit together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.measures import ndcg
from rivals.retrieve import BM25, Dense
from rivals.retrieve.fusion import (
    ReciprocalRankFusion,
    WeightedFusion,
    fit_weights,
    fuse_reciprocal_rank,
    fuse_weighted,
)

QUERIES, DOCUMENTS = Collection(["q0", "q1"], ["ab", "c"]), Collection(["a", "b", "c"], ["aab", "b ab", "c"])


def run(offsets: list[int], document: list[int], score: list[float], scorer: str) -> Run:
    return Run.build(QUERIES, DOCUMENTS, offsets, document, score, scorer=scorer)


@pytest.fixture
def one() -> Run:
    return run([0, 3, 3], [0, 1, 2], [10, 6, 2], "one")


@pytest.fixture
def two() -> Run:
    return run([0, 2, 3], [1, 0, 2], [0.9, 0.4, 0.2], "two")


def listed(fused: Run, query: int) -> dict[str, float]:
    part = slice(fused.offsets[query], fused.offsets[query + 1])
    return dict(zip(DOCUMENTS.ids[fused.document[part]].tolist(), fused.score[part].tolist(), strict=True))


def test_reciprocal_rank_by_hand(one: Run, two: Run) -> None:
    fused = fuse_reciprocal_rank([one, two], k0=60)
    assert listed(fused, 0) == pytest.approx({"b": 1 / 61 + 1 / 62, "a": 1 / 61 + 1 / 62, "c": 1 / 63}, rel=1e-6)
    assert list(listed(fused, 0)) == ["b", "a", "c"]
    assert listed(fused, 1) == pytest.approx({"c": 1 / 61}, rel=1e-6)
    assert fused.features["one"][:3].tolist() == [6, 10, 2]
    assert np.isnan(fused.features["two"][2])
    assert fused.scorer == "rrf"
    assert fused.sources == ("one", "two")
    assert listed(fuse_reciprocal_rank([one, two], k0=0, k=1), 0) == pytest.approx({"b": 1.5})


def test_the_lists_of_card_81() -> None:
    """Lists [a, b, c] and [b, d]: b = 1/62 + 1/61, a = 1/61, d = 1/62, c = 1/63."""
    queries, documents = Collection(["q"], name="query"), Collection(list("abcd"))
    first = Run.build(queries, documents, [0, 3], [0, 1, 2], [3, 2, 1], scorer="bm25")
    second = Run.build(queries, documents, [0, 2], [1, 3], [0.9, 0.8], scorer="dense")
    fused = fuse_reciprocal_rank([first, second])
    assert documents.ids[fused.document].tolist() == ["b", "a", "d", "c"]
    np.testing.assert_allclose(fused.score, [0.032522, 0.016393, 0.016129, 0.015873], atol=5e-7)


def test_reciprocal_ranks_can_be_weighed(one: Run, two: Run) -> None:
    expected = {"b": 1 / 62 + 3 / 61, "a": 1 / 61 + 3 / 62, "c": 1 / 63}
    for weights in ([1, 3], {"two": 3, "one": 1}):
        fused = fuse_reciprocal_rank([one, two], weights=weights)
        assert listed(fused, 0) == pytest.approx(expected, rel=1e-6)
    alike = fuse_reciprocal_rank([one, two], weights=[2, 2])
    assert alike.document.tolist() == fuse_reciprocal_rank([one, two]).document.tolist()
    with pytest.raises(RivalsError, match="weights are for three"):
        fuse_reciprocal_rank([one, two], weights={"three": 1})


def test_weighted_by_hand(one: Run, two: Run) -> None:
    assert listed(fuse_weighted([one, two], [1, 3]), 0) == pytest.approx({"b": 3.5, "a": 1.0, "c": 0.0})
    assert listed(fuse_weighted([one, two], {"two": 3, "one": 1}), 1) == pytest.approx({"c": 3.0})
    deviation = math.sqrt(32 / 3)
    z = listed(fuse_weighted([one, two], [1, 1], normalisation="z-score"), 0)
    assert z == pytest.approx({"b": 0 + 1, "a": 4 / deviation - 1, "c": -4 / deviation - 1}, rel=1e-6)
    raw = listed(fuse_weighted([one, two], [1, 10], normalisation="none"), 0)
    assert raw == pytest.approx({"b": 15, "a": 14, "c": 2})


def test_equal_scores_in_one_run_beat_only_what_it_did_not_retrieve() -> None:
    flat = run([0, 2, 2], [0, 1], [0.3, 0.3], "flat")
    full = run([0, 3, 3], [0, 1, 2], [3, 2, 1], "full")
    assert listed(fuse_weighted([flat, full], [1, 1]), 0) == pytest.approx({"a": 2, "b": 1.5, "c": 0}, abs=1e-5)


def test_fusion_does_not_depend_on_the_order_of_runs(one: Run, two: Run) -> None:
    for left, right in (
        (fuse_reciprocal_rank([one, two]), fuse_reciprocal_rank([two, one])),
        (fuse_weighted([one, two], [0.2, 0.8]), fuse_weighted([two, one], [0.8, 0.2])),
    ):
        np.testing.assert_array_equal(left.document, right.document)
        np.testing.assert_allclose(left.score, right.score, rtol=1e-6)


def random_runs(generator: np.random.Generator, count: int) -> tuple[list[Run], Judgements, Collection, Collection]:
    queries, documents = Collection([f"q{i}" for i in range(40)]), Collection([f"d{i:02d}" for i in range(30)])
    gold = generator.integers(30, size=40)
    runs = []
    for member in range(count):
        score = generator.normal(size=(40, 30)) + (member + 0.3) * (np.arange(30) == gold[:, None])
        order = np.argsort(-score, axis=1)[:, :15]
        picked = np.take_along_axis(score, order, axis=1)
        runs.append(
            Run.build(queries, documents, np.arange(41) * 15, order.ravel(), picked.ravel(), scorer=f"r{member}")
        )
    judged = Judgements.build(np.arange(39), gold[:39], np.ones(39), queries=40, documents=30)
    return runs, judged, queries, documents


def mean_ndcg(fused: Run, judgements: Judgements) -> float:
    scores, relevance, mask = fused.lists(judgements)
    return float(ndcg(scores, relevance, mask, k=10)[:39].mean())


def test_fitted_weights_are_the_best_of_the_grid() -> None:
    runs, judgements, _, _ = random_runs(np.random.default_rng(1), 2)
    weights = fit_weights(runs, judgements, steps=10)
    assert sum(weights.values()) == pytest.approx(1)
    best = max(mean_ndcg(fuse_weighted(runs, [w / 10, 1 - w / 10]), judgements) for w in range(11))
    assert mean_ndcg(fuse_weighted(runs, weights), judgements) == pytest.approx(best, abs=1e-9)
    assert fit_weights(runs, judgements, steps=10) == weights


def test_three_runs_are_weighted_no_worse_than_each_alone_and_evenly() -> None:
    runs, judgements, _, _ = random_runs(np.random.default_rng(2), 3)
    fitted = mean_ndcg(fuse_weighted(runs, fit_weights(runs, judgements)), judgements)
    for weights in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]):
        assert fitted >= mean_ndcg(fuse_weighted(runs, weights), judgements) - 1e-9


def test_equal_runs_keep_even_weights() -> None:
    runs, judgements, queries, documents = random_runs(np.random.default_rng(3), 1)
    twin = Run.build(queries, documents, runs[0].offsets, runs[0].document, runs[0].score, scorer="twin")
    assert fit_weights([runs[0], twin], judgements) == {"r0": 0.5, "twin": 0.5}


@pytest.fixture
def retrievers(letters: Any) -> list[Any]:
    return [BM25(DOCUMENTS, language=None), Dense(letters, DOCUMENTS)]


def test_retrievers_equal_the_functions(retrievers: list[Any]) -> None:
    asked = Collection(["x", "y"], ["ab aab", "zz"], name="query")
    runs = [retriever(asked, 100) for retriever in retrievers]
    by_rank = ReciprocalRankFusion(retrievers)
    assert by_rank(asked, 5).score.tolist() == fuse_reciprocal_rank(runs).score.tolist()
    weighted = WeightedFusion(retrievers, [0.3, 0.7])
    heavy = ReciprocalRankFusion(retrievers, weights={"bm25": 2, "dense": 0.5})
    assert heavy(asked, 5).score.tolist() == fuse_reciprocal_rank(runs, weights=[2, 0.5]).score.tolist()
    fused = weighted(asked, 5)
    np.testing.assert_allclose(fused.score, fuse_weighted(runs, [0.3, 0.7]).score, rtol=1e-6)
    assert not np.isnan(fused.features["bm25"]).any()
    for fusion in (by_rank, heavy, weighted):
        found = fusion(asked, 5)
        np.testing.assert_allclose(fusion.score(asked, found.query, found.document), found.score, rtol=1e-6)
        assert len(fusion(asked, 1)) == 2


def test_fitting_from_retrievers(retrievers: list[Any]) -> None:
    asked = Collection(["x"], ["ab"], name="query")
    dataset = Dataset(asked, DOCUMENTS, Judgements.build([0], [1], [1], queries=1, documents=3))
    fusion = WeightedFusion.fit(retrievers, dataset)
    assert fusion.weights["bm25"] > 0
    positives = fusion(dataset, 1)
    assert positives.positive_score[0] == pytest.approx(positives.score[0], rel=1e-6)


def test_runs_that_do_not_fit_are_refused(one: Run, two: Run) -> None:
    elsewhere = Run.build(QUERIES, Collection(["a", "b"]), [0, 1, 1], [0], [1], scorer="else")
    otherwise = Run.build(Collection(["q0", "q2"]), DOCUMENTS, [0, 1, 1], [0], [1], scorer="else")
    for runs, message in (
        ([], "no run"),
        ([one, elsewhere], "different documents"),
        ([one, otherwise], "same queries"),
        ([one, one], "different scorers"),
    ):
        with pytest.raises(RivalsError, match=message):
            fuse_reciprocal_rank(runs)
        with pytest.raises(RivalsError, match=message):
            fuse_weighted(runs, [1] * len(runs))
    for weights, message in (([1], "1 weights for 2"), ([0, 0], "not all 0"), ([1, math.nan], "finite")):
        with pytest.raises(RivalsError, match=message):
            fuse_weighted([one, two], weights)
    with pytest.raises(RivalsError, match="weights are for three"):
        fuse_weighted([one, two], {"three": 1})
    with pytest.raises(RivalsError, match="normalisation"):
        fuse_weighted([one, two], [1, 1], normalisation="max")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="k0"):
        fuse_reciprocal_rank([one], k0=-1)


def test_weights_need_judged_queries(one: Run, two: Run) -> None:
    nobody = Judgements.build([0], [0], [0], queries=2, documents=3)
    with pytest.raises(RivalsError, match="no query has a relevant document"):
        fit_weights([one, two], nobody)
    with pytest.raises(RivalsError, match="cover 1 queries"):
        fit_weights([one, two], Judgements.build([0], [0], [1], queries=1, documents=3))
    with pytest.raises(RivalsError, match="steps"):
        fit_weights([one, two], Judgements.build([0], [0], [1], queries=2, documents=3), steps=0)


def test_retrievers_that_do_not_fit_are_refused(retrievers: list[Any]) -> None:
    with pytest.raises(RivalsError, match="different names"):
        ReciprocalRankFusion([retrievers[0], retrievers[0]])
    with pytest.raises(RivalsError, match="none"):
        ReciprocalRankFusion([])
    with pytest.raises(RivalsError, match="different documents"):
        ReciprocalRankFusion([retrievers[0], BM25(Collection(["z"], ["zz"]), name="other")])
