"""Measures of retrieval-augmented generation: hand values, coverage of the corrected mean, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from rivals.errors import RivalsError
from rivals.measures import (
    answer_correctness,
    answer_relevance,
    answer_similarity,
    aspect_critique,
    context_entity_recall,
    context_precision,
    context_recall,
    faithfulness,
    prediction_powered_mean,
    summarisation_score,
)


def test_vectors():
    generated, reference = (
        np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]),
        np.array([[4.0, 3.0], [-2.0, 0.0], [1.0, 1.0]]),
    )
    np.testing.assert_allclose(answer_similarity(generated, reference), [0.96, -1, 0])
    assert isinstance(answer_similarity(torch.tensor(generated), torch.tensor(reference)), torch.Tensor)
    question, written = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[[2.0, 0], [3, 4]], [[1, 0], [0, -1]]])
    np.testing.assert_allclose(answer_relevance(question, written), [(1 + 0.6) / 2, -0.5])


def test_correctness():
    found = answer_correctness(["the Eiffel tower", "x"], ["Eiffel tower", "y"], [0.8, 0.1])
    np.testing.assert_allclose(found, [0.75 * 0.8 + 0.25 * 0.8, 0.025])
    assert answer_correctness(["A"], ["a"], [0.0], weight=1.0, normalise=str.lower).item() == 1


def test_contexts():
    assert context_precision(np.array([1, 0, 1])) == pytest.approx(0.8333333333)
    verdicts = np.array([[0, 1, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(context_precision(verdicts), [(1 / 2 + 2 / 3) / 2, 1 / 4])
    np.testing.assert_allclose(context_precision(verdicts, k=2), [1 / 2, 0])
    there = np.array([[True, True, False, False], [True, True, True, True]])
    np.testing.assert_allclose(context_precision(verdicts, there), [1 / 2, 1 / 4])


def test_judged():
    asked = []

    def judge(statement, source):
        asked.append((statement, source))
        return statement in source

    assert faithfulness(["a", "x"], "a b", judge) == 0.5
    assert context_recall(["a", "b", "c"], "a b", judge) == pytest.approx(2 / 3)
    assert asked == [("a", "a b"), ("x", "a b"), ("a", "a b"), ("b", "a b"), ("c", "a b")]
    answers = iter([True, False, True, True, False, True, False])
    assert aspect_critique("t", "kind", lambda text, aspect: next(answers))
    assert not aspect_critique("t", "kind", lambda text, aspect: next(answers), verdicts=4)  # two of four


def test_entities_and_summaries():
    assert context_entity_recall(["a", "b"], ["b", "c", "d", "b"]) == pytest.approx(1 / 3)
    assert context_entity_recall(["a", "b"], ["b", "c", "d"], of="reference") == 0.5
    assert context_entity_recall(["a"], []) == 0
    assert summarisation_score([True, True], "ab", "abcdefgh") == pytest.approx((1 + 0.75) / 2)
    assert summarisation_score([True], "longer than it", "short") == 0.5
    assert summarisation_score([True, False, False], "", "abc", weight=1) == pytest.approx(1 / 3)


def test_prediction_powered_mean():
    judge, few, human = [1, 0, 1, 1, 0], [1, 0, 1], [1, 0, 0]
    found = prediction_powered_mean(judge, few, human, level=0.9)
    assert found.estimate == pytest.approx(0.6 - 1 / 3)
    assert found.variance == pytest.approx(np.var(judge, ddof=1) / 5 + np.var([0, 0, -1], ddof=1) / 3)
    half = stats.norm.ppf(0.95) * found.variance**0.5
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))
    assert prediction_powered_mean(judge, human, human).estimate == pytest.approx(0.6)


def test_the_corrected_mean_covers_the_truth_though_the_judge_is_biased():
    rng = np.random.default_rng(0)
    truth = (rng.random((400, 1100)) < 0.4).astype(float)
    judge = np.where(rng.random(truth.shape) < 0.2, 1.0, truth)  # says yes too often
    found = [prediction_powered_mean(j[100:], j[:100], t[:100]) for j, t in zip(judge, truth, strict=True)]
    covered = np.mean([one.low <= 0.4 <= one.high for one in found])
    assert 0.92 < covered < 0.98
    people_alone = 2 * 1.96 * np.sqrt(0.24 / 100)
    assert np.mean([one.high - one.low for one in found]) < 0.9 * people_alone


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: answer_similarity(np.ones((2, 3)), np.ones((2, 2))), "must be equal"),
        (lambda: answer_similarity(np.array([np.nan]), np.ones(1)), "generated must be finite"),
        (lambda: answer_correctness(["a"], ["a"], [0.5], weight=2), "weight is 2"),
        (lambda: answer_correctness(["a"], ["a"], [0.5, 0.5]), "similarity has shape"),
        (lambda: answer_relevance(np.ones(2), np.ones((3, 4))), "generated_questions has shape"),
        (lambda: answer_relevance(np.ones(2), np.ones((0, 2))), "no question"),
        (lambda: context_precision(np.ones(2), k=0), "k is 0"),
        (lambda: faithfulness([], "a", lambda s, t: True), "claims must be"),
        (lambda: context_recall("a", "a", lambda s, t: True), "sentences must be"),
        (lambda: context_entity_recall("a", "b", of="both"), "of is 'both'"),
        (lambda: summarisation_score([], "a", "b"), "no question"),
        (lambda: summarisation_score([True], "a", ""), "context is empty"),
        (lambda: summarisation_score([True], "a", "b", weight=-1), "weight is -1"),
        (lambda: aspect_critique("a", "b", lambda s, t: True, verdicts=1), "verdicts is 1"),
        (lambda: prediction_powered_mean([1, 0], [1], [1]), "at least 2"),
        (lambda: prediction_powered_mean([1, 0], [1, 0], [1]), "one list each"),
        (lambda: prediction_powered_mean([1, 0], [1, 0], [1, 0], level=1), "level is 1"),
        (lambda: prediction_powered_mean([1, np.nan], [1, 0], [1, 0]), "finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
