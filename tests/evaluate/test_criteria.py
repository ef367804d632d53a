"""Candidates by several criteria: hand values, scale, floors, runs, fitted weights, each criterion, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Judgements, Run
from rivals.diagnose import NgramLM
from rivals.errors import RivalsError
from rivals.evaluate.criteria import CriteriaReranker, combine_criteria
from rivals.evaluate.text_criteria import (
    DocumentCoverage,
    Fluency,
    LabelAgreement,
    MeanRouge,
    SentenceBleu,
    VectorSimilarity,
    semantic_weights,
)
from rivals.measures import rouge_l, rouge_n

TABLE = np.array([[0.5, 0.4, 1.0], [0.2, 0.9, 1.0]])


def fixed(values):
    return lambda sources, candidates: np.asarray(values, dtype=float)[: len(candidates)]


def test_products_by_hand() -> None:
    assert np.exp(combine_criteria(TABLE, [0, 2])) == pytest.approx([0.2, 0.18])
    assert np.exp(combine_criteria(TABLE, [0, 2], weights=[0, 1, 1])) == pytest.approx([0.4, 0.9])
    sums = combine_criteria([[1.0, -5.0], [3.0, -5.0], [7.0, 1.0]], [0, 2, 3], combine="sum")
    assert sums == pytest.approx([-1, 1, 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.sampled_from(["product", "sum"]))
def test_scale_and_ones_change_nothing(seed: int, scale: float, combine: str) -> None:
    draw = np.random.default_rng(seed)
    table, offsets = draw.uniform(0.05, 1, (9, 3)), [0, 4, 4, 9]
    before = combine_criteria(table, offsets, combine=combine)
    scaled, ones = table * [scale, 1, 1], np.column_stack([table, np.ones(9)])
    for start, end in ((0, 4), (4, 9)):
        part = slice(start, end)
        moved = combine_criteria(scaled, offsets, combine=combine)[part] - before[part]
        np.testing.assert_allclose(moved, moved[0], atol=1e-9)
    np.testing.assert_allclose(combine_criteria(ones, offsets, combine=combine), before, atol=1e-12)
    order = draw.permutation(4)
    again = combine_criteria(table[order], [0, 4], combine=combine)
    np.testing.assert_allclose(again, before[:4][order], atol=1e-9)


def test_an_expert_of_zeros_leaves_the_order_to_the_others() -> None:
    dead = np.column_stack([TABLE, np.zeros(2)])
    found = combine_criteria(dead, [0, 2])
    assert np.isfinite(found).all()
    assert found[0] - found[1] == pytest.approx(np.log(0.2 / 0.18))


def test_rerank_texts() -> None:
    found = CriteriaReranker({"a": fixed([0.5, 0.2, 0.3]), "b": fixed([0.4, 0.9, 0.3])}).rerank(
        ["x", "y"], [["p", "q"], ["r"]]
    )
    assert found.ranks == [[1, 2], [1]]
    assert found.best == [0, 0]
    assert np.exp(found.scores[0]) == pytest.approx([0.2, 0.18])
    assert found.values["b"].tolist() == [0.4, 0.9, 0.3]
    tied = CriteriaReranker({"a": fixed([1, 1, 1])}).rerank(["x"], [["p", "q", "r"]])
    assert tied.ranks == [[1, 2, 3]]


def test_copies_of_the_source_go_last() -> None:
    candidates = [["Good  morning", "good day", "nonsense"]]
    with_copy = CriteriaReranker({"bleu": SentenceBleu()}).rerank(["good morning"], candidates)
    assert with_copy.best == [1] or with_copy.best == [0]
    found = CriteriaReranker(
        {"overlap": VectorSimilarity(lambda t: [[1.0, "morning" in x] for x in t])}, drop_identical=True
    )
    assert found.rerank(["good morning"], candidates).ranks == [[3, 1, 2]]


QUERIES = Collection(["q0", "q1"], ["red apple", "blue sky"])
DOCUMENTS = Collection(["a", "b", "c"], ["red apple pie", "blue sky today", "something else"])


def a_run() -> Run:
    return Run.build(QUERIES, DOCUMENTS, [0, 3, 6], [0, 1, 2] * 2, [0.1, 0.2, 0.3] * 2, scorer="first")


def test_a_step_of_a_pipeline() -> None:
    rerank = CriteriaReranker({"words": MeanRouge(), "const": lambda s, c: np.ones(len(c))}, name="both")
    found = rerank(a_run())
    first = found.rank == 0
    assert DOCUMENTS.ids[found.document[first]].tolist() == ["a", "b"]
    assert found.scorer == "both"
    assert set(found.features) == {"words", "const", "first"}
    np.testing.assert_array_equal(rerank(found).score, found.score)
    empty = rerank(Run.build(QUERIES, DOCUMENTS, [0, 0, 0], [], []))
    assert len(empty) == 0


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_fitted_weights_favour_the_telling_criterion(combine: str) -> None:
    draw = np.random.default_rng(0)
    noise = draw.uniform(0.1, 1, 6)
    rerank = CriteriaReranker({"words": MeanRouge(), "noise": fixed(noise)}, combine=combine)
    judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=3)
    assert rerank.fit(a_run(), judged, measure="RR@10") is rerank
    assert rerank.weights["words"] > 0
    assert sum(rerank.weights.values()) == pytest.approx(1)
    found = rerank(a_run())
    assert DOCUMENTS.ids[found.document[found.rank == 0]].tolist() == ["a", "b"]


def test_bleu_and_rouge() -> None:
    bleu = SentenceBleu()
    values = bleu(["a b c d e", "a b c d e", "a b c d e"], ["a b c d e", "a b x y z", "v w x y z"])
    assert values[0] == pytest.approx(1)
    assert 0 < values[1] < 1
    assert values[2] == 0
    smoothed = CriteriaReranker({"bleu": bleu, "f": fixed([0.1, 0.9])}).rerank(["a b c d"], [["v w", "x y"]])
    assert smoothed.best == [1]
    mean = MeanRouge()(["a b c"], ["a c b"])
    parts = [rouge_n(["a c b"], ["a b c"], n=n).f1 for n in (1, 2)] + [rouge_l(["a c b"], ["a b c"]).f1]
    assert mean == pytest.approx(np.mean(parts))


def test_vectors_and_coverage() -> None:
    table = {
        "cat": [2.0, 0.0],
        "dog": [0.0, 3.0],
        "both": [1.0, 1.0],
        "A cat.": [1, 0],
        "A dog.": [0, 1],
        "none": [0, 0],
    }
    asked: list[str] = []

    def vectors(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([table[text] for text in texts], dtype=float)

    assert VectorSimilarity(vectors)(["cat", "cat", "cat"], ["cat", "dog", "none"]).tolist() == [1, 0.5, 0.5]
    assert sorted(asked) == ["cat", "dog", "none"]
    found = DocumentCoverage(vectors)(["A cat. A dog."] * 2, ["cat", "both"])
    assert found == pytest.approx([1.0, np.sqrt(0.5)])


def test_fluency_of_ngrams_and_of_a_language_model() -> None:
    from tests.models.language.smollm import smollm2

    lm = NgramLM(2, min_count=2).fit(["the cat sat", "the cat ran", "a dog sat", "a dog ran"])
    values = Fluency(lm)([""] * 2, ["the cat sat", "sat the ran"])
    assert values[0] == pytest.approx(np.exp(lm.score(["the cat sat"]))[0])
    assert values[0] > values[1]
    real = Fluency(smollm2())(["", "", ""], ["The cat sat on the mat.", "Mat the on sat cat the.", ""])
    assert real[0] > real[1] > real[2] == 0


def test_labels() -> None:
    table = [[0.5, 0.2], [0.5, 0.2], [0.9, 0.1]]
    wanted = {"x": [0, 1], "z": [0]}
    sources, candidates = ["x", "y", "z"], ["a", "b", "c"]
    assert LabelAgreement(lambda s, c: table, wanted)(sources, candidates) == pytest.approx([0.1, 1, 0.9])
    assert LabelAgreement(lambda s, c: table, wanted, aggregate="mean")(sources, candidates)[0] == pytest.approx(0.35)


def test_semantic_weights() -> None:
    assert semantic_weights([[0.9, 0.89], [-1, 1]]).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CriteriaReranker({}), "criteria is empty"),
        (lambda: CriteriaReranker({"a": fixed([1])}, weights={"b": 1}), "weights are for b"),
        (lambda: CriteriaReranker({"a": fixed([1])}, combine="best"), "combine is 'best'"),
        (lambda: CriteriaReranker({"a": fixed([1])}, floor=0), "floor is 0"),
        (lambda: CriteriaReranker({"a": fixed([1])}).rerank(["x"], [[]]), "source 0 has no candidate"),
        (lambda: CriteriaReranker({"a": fixed([1])}).rerank(["x"], []), "1 sources and 0 lists"),
        (lambda: CriteriaReranker({"a": fixed([1])}).rerank(["x"], [["p", "q"]]), "gave shape \\(1,\\) for 2"),
        (
            lambda: CriteriaReranker({"a": fixed([1, np.nan])}).rerank(["x"], [["p", "q"]]),
            "NaN or infinite at candidate 1",
        ),
        (lambda: CriteriaReranker({"a": fixed([-1])}).rerank(["x"], [["p"]]), "below 0 at candidate 0"),
        (lambda: combine_criteria([1.0], [0, 1]), "must be \\[candidates, criteria\\]"),
        (lambda: combine_criteria([[np.inf]], [0, 1]), "must be finite"),
        (lambda: combine_criteria([[-1.0]], [0, 1]), "below 0"),
        (lambda: combine_criteria([[1.0]], [0, 1], weights=[1, 2]), "weights have shape"),
        (lambda: LabelAgreement(lambda s, c: [[2.0]], {})(["x"], ["y"]), "within 0..1"),
        (lambda: LabelAgreement(lambda s, c: [[1.0]], {"x": [3]})(["x"], ["y"]), "labels \\[3\\]"),
        (lambda: VectorSimilarity(lambda texts: [1.0])(["x"], ["y"]), "vectors gave shape"),
        (lambda: semantic_weights([np.nan]), "similarity must lie"),
        (lambda: semantic_weights([0.5], threshold=2), "threshold is 2"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(RivalsError, match=message):
        call()
