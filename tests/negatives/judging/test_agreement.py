"""Agreement with people: against references, by hand, and over whole queries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.measures.agreement import krippendorff_alpha
from rivals.negatives.judging import Agreement, LabelJudge, agreement_with_labels, judge_agreement
from tests.negatives.judging.models import RuleJudge


def graded(seed: int = 0, queries: int = 40, depth: int = 6):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, queries * depth)
    scores = np.clip(labels / 3 + generator.normal(0, 0.3, len(labels)), 0, 1)
    return scores, labels, np.repeat(np.arange(queries), depth)


def test_the_measures_of_graded_labels():
    scores, labels, queries = graded()
    report = agreement_with_labels(scores, labels, queries, relevant=2, resamples=200)
    assert report.accuracy.estimate == pytest.approx(((scores > 0.5) == (labels >= 2)).mean())
    assert report.kappa.estimate == pytest.approx(cohen_kappa_score(scores > 0.5, labels >= 2))
    rated = np.round(scores * 3)
    assert report.weighted_kappa.estimate == pytest.approx(cohen_kappa_score(rated, labels, weights="quadratic"))
    assert report.alpha.estimate == pytest.approx(krippendorff_alpha(np.stack([rated, labels])).item())
    assert report.auc.estimate == pytest.approx(roc_auc_score(labels >= 2, scores))
    for interval in (report.accuracy, report.kappa, report.weighted_kappa, report.alpha, report.auc):
        assert interval.low < interval.estimate < interval.high
    assert (report.pairs, report.told, report.queries) == (240, 240, 40)


def test_intervals_are_over_queries():
    # 200 pairs of 4 queries that stand or fall together are no better known than 4
    together = agreement_with_labels(
        np.repeat([1.0, 1.0, 0.0, 1.0], 50), np.ones(200), np.repeat(range(4), 50), resamples=300
    )
    apart = agreement_with_labels(np.repeat([1.0, 1.0, 0.0, 1.0], 50), np.ones(200), resamples=300)
    assert together.accuracy.estimate == apart.accuracy.estimate == 0.75
    assert together.accuracy.high - together.accuracy.low > 3 * (apart.accuracy.high - apart.accuracy.low)
    assert math.isnan(together.auc.estimate)
    assert math.isnan(agreement_with_labels([1.0, 0.0], [1, 0], ["q", "q"]).accuracy.low)  # one query carries no spread


def test_what_the_judge_could_not_tell_is_left_out_and_counted():
    scores, labels, queries = graded()
    blind = np.where(np.arange(len(scores)) % 3 == 0, np.nan, scores)
    report = agreement_with_labels(blind, labels, queries, relevant=2, resamples=100)
    seen = ~np.isnan(blind)
    assert (report.pairs, report.told) == (240, 160)
    assert report.auc.estimate == pytest.approx(roc_auc_score(labels[seen] >= 2, scores[seen]))
    nobody = agreement_with_labels([np.nan, np.nan], [0, 1])
    assert nobody.told == 0
    assert math.isnan(nobody.accuracy.estimate)


def test_slices_and_json():
    scores, labels, queries = graded()
    kind = np.where(queries % 2, "odd", "even")
    report = agreement_with_labels(scores, labels, queries, relevant=2, slices=kind, resamples=100, judge="j")
    assert list(report.slices) == ["even", "odd"]
    odd = agreement_with_labels(
        scores[kind == "odd"], labels[kind == "odd"], queries[kind == "odd"], relevant=2, resamples=100
    )
    assert report.slices["odd"].kappa == odd.kappa
    again = Agreement.from_json(report.to_json())
    assert again == report
    text = str(report)
    assert text.startswith("j against people: 40 queries")
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["all", "even", "odd"]
    undefined = agreement_with_labels([1.0], [1])
    assert math.isnan(Agreement.from_json(undefined.to_json()).kappa.estimate)
    assert agreement_with_labels(scores, labels, queries, relevant=2, resamples=100, judge="j", slices=kind) == report
    with pytest.raises(RivalsError, match="no agreement report"):
        Agreement.from_json("[]")


def test_a_judge_over_a_dataset():
    queries = Collection(["q0", "q1"], columns={"kind": ["a", "b"]}, name="query")
    people = Judgements.build([0, 0, 1, 1], [0, 1, 0, 2], [2, 0, 1, 0], queries=2, documents=3)
    dataset = Dataset(queries, Collection(["d0", "d1", "d2"]), people)
    right = {("q0", "d0"): 1.0, ("q0", "d1"): 0.0, ("q1", "d0"): 0.4, ("q1", "d2"): 0.2}
    judge = RuleJudge(lambda q, d: right[q, d])
    report = judge_agreement(judge, dataset, slices="kind", resamples=100, show=False)
    assert sorted(judge.asked) == sorted(right)
    assert report.accuracy.estimate == 0.75
    assert report.auc.estimate == 1.0
    assert report.slices["a"].accuracy.estimate == 1.0
    assert judge_agreement(LabelJudge.of(dataset), dataset, threshold=0.4, show=False).weighted_kappa.estimate == 1.0
    with pytest.raises(RivalsError, match="queries have no column 'year'"):
        judge_agreement(judge, dataset, slices="year", show=False)
    with pytest.raises(RivalsError, match="no judgement to compare"):
        judge_agreement(
            judge, Dataset(queries, dataset.documents, Judgements.build([], [], [], queries=2, documents=3))
        )


def test_faulty_input_is_named():
    with pytest.raises(RivalsError, match=r"labels has shape \(1,\)"):
        agreement_with_labels([0.5, 0.5], [1])
    with pytest.raises(RivalsError, match="no labelled pair"):
        agreement_with_labels([], [])
    with pytest.raises(RivalsError, match=r"scores must lie in \[0, 1\]"):
        agreement_with_labels([1.5], [1])
    with pytest.raises(RivalsError, match="among the grades"):
        agreement_with_labels([0.5], [4], grades=[0, 1])
    with pytest.raises(RivalsError, match="at least 100 resamples"):
        agreement_with_labels([0.5], [1], resamples=5)
