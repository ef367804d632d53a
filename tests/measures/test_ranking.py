"""Ranking measures: hand values, ir-measures on random runs, the fast sort against the readable one, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.measures import (
    average_precision,
    dcg,
    judged,
    measure_all,
    micro_recall,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
    success,
)
from rivals.measures.ranked import rank_lists, score_order

NAMES = ["nDCG@3", "nDCG@10", "nDCG", "RR@3", "RR", "RR(rel=2)", "R@3", "R(rel=2)@5", "P@1", "P@5", "P(rel=2)@5"]
NAMES += ["AP", "AP@3", "AP(rel=2)", "Rprec", "Rprec(rel=2)", "Success@1", "Success@5"]


def test_hand_values():
    scores = np.array([9.0, 7.0, 5.0, 3.0, 1.0])
    relevance = np.array([0, 3, -1, 1, 0])
    best = 3 + 1 / math.log2(3)
    found = 3 / math.log2(3) + 1 / math.log2(5)
    assert dcg(scores, relevance) == pytest.approx(found)
    assert ndcg(scores, relevance) == pytest.approx(found / best)
    assert ndcg(scores, relevance, k=3) == pytest.approx(3 / math.log2(3) / best)
    exponential = (7 / math.log2(3) + 1 / math.log2(5)) / (7 + 1 / math.log2(3))
    assert ndcg(scores, relevance, gain="exponential") == pytest.approx(exponential)
    assert reciprocal_rank(scores, relevance) == 0.5
    assert reciprocal_rank(scores, relevance, k=1) == 0
    assert reciprocal_rank(scores, relevance, relevance_level=4) == 0
    assert recall(scores, relevance, k=2) == 0.5
    assert recall(scores, relevance, k=2, total_relevant=5) == 0.2
    assert precision(scores, relevance, k=2) == 0.5
    assert precision(scores, relevance, k=10) == 0.2
    assert precision(scores, relevance) == pytest.approx(2 / 5)
    assert success(scores, relevance, k=1) == 0
    assert success(scores, relevance, k=2) == 1
    assert average_precision(scores, relevance) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(scores, relevance, k=3, total_relevant=4) == pytest.approx(1 / 8)
    assert r_precision(scores, relevance) == 0.5
    assert judged(scores, np.array([1, np.nan, np.nan, 0, np.nan]), k=4) == 0.5


def test_micro_recall_counts_all_lists_together():
    relevance = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    scores, total = np.tile([3.0, 2.0, 1.0], (3, 1)), np.array([2, 1, 1])
    assert micro_recall(scores, relevance, k=1, total_relevant=total) == 0.25
    assert micro_recall(scores, relevance, k=2, total_relevant=total) == 0.5
    assert micro_recall(scores, relevance, total_relevant=total) == 0.75
    assert recall(scores, relevance, total_relevant=total).mean() == pytest.approx(2 / 3)
    assert micro_recall(scores, relevance * 0, k=1) == 0
    tensor = micro_recall(torch.tensor(scores), torch.tensor(relevance), k=2)
    assert tensor.item() == pytest.approx(2 / 3)


def test_relevant_documents_outside_the_list_lower_ndcg():
    scores, relevance = np.array([[2.0, 1.0]]), np.array([[1, 0]])
    ideal, ideal_mask = np.array([[1, 2, 99]]), np.array([[True, True, False]])
    expected = 1 / (2 + 1 / math.log2(3))
    assert ndcg(scores, relevance, ideal=ideal, ideal_mask=ideal_mask).item() == pytest.approx(expected)


def _ir_measures(names: list[str], run: dict, qrels: dict) -> dict[str, dict[str, float]]:
    """What ir-measures says, by measure and query.

    RR@k is made of trec_eval's RR, as ir-measures' own RR@k breaks ties otherwise. Negative grades go in as 0, what
    trec_eval takes them for: with them pytrec_eval-terrier 0.5.11 now and then never returns.
    """
    import ir_measures

    qrels = {q: {d: max(grade, 0) for d, grade in grades.items()} for q, grades in qrels.items()}

    values: dict[str, dict[str, float]] = {name: {} for name in names}
    asked = [ir_measures.parse_measure(name) for name in names if not name.startswith("RR@")] + [ir_measures.RR]
    found: dict[str, dict[str, float]] = {}
    for metric in ir_measures.iter_calc(asked, qrels, run):
        found.setdefault(str(metric.measure), {})[metric.query_id] = metric.value
    for name in names:
        values[name] = found.get(name) or {
            q: v if v and 1 / v <= int(name.partition("@")[2]) + 1e-9 else 0.0 for q, v in found["RR"].items()
        }
    return values


def _padded(rows: list[list[float]], fill: float) -> tuple[np.ndarray, np.ndarray]:
    width = max([len(row) for row in rows], default=0)
    mask = np.array([[i < len(row) for i in range(width)] for row in rows], dtype=bool).reshape(len(rows), width)
    return np.array([row + [fill] * (width - len(row)) for row in rows], dtype=float).reshape(len(rows), width), mask


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_to_ir_measures_on_random_runs_with_ties_and_gaps(data):
    seed, size = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, 12))
    rng = np.random.default_rng(seed)
    documents = [f"d{i}" for i in range(14)]
    run, qrels = {}, {}
    for q in range(size):
        retrieved = rng.permutation(documents)[: rng.integers(0, 13)]
        if len(retrieved):  # a query without results is not in a run at all
            run[f"q{q}"] = {d: float(rng.integers(-3, 4)) / 4 for d in retrieved}
        judged_here = rng.permutation(documents)[: rng.integers(1, 10)]
        qrels[f"q{q}"] = {d: int(rng.choice([-1, 0, 0, 1, 2, 3])) for d in judged_here}
    if not run:
        run["q0"] = {"d0": 1.0}
    run["unjudged query"] = {"d1": 1.0}
    expected = _ir_measures(NAMES, run, qrels)
    # trec_eval's order: score descending, then document id descending
    order = [sorted(run.get(q, {}), key=lambda d, q=q: (run[q][d], d), reverse=True) for q in qrels]
    scores, mask = _padded([[run[q][d] for d in docs] for q, docs in zip(qrels, order, strict=True)], 0)
    relevance, _ = _padded([[qrels[q].get(d, np.nan) for d in docs] for q, docs in zip(qrels, order, strict=True)], 0)
    ideal, ideal_mask = _padded([list(map(float, grades.values())) for grades in qrels.values()], 9)
    values = measure_all(NAMES, scores, relevance, mask, ideal=ideal, ideal_mask=ideal_mask)
    for name in NAMES:
        wanted = [expected[name][q] for q in qrels]
        np.testing.assert_allclose(values[name], wanted, atol=1e-7, rtol=0, err_msg=name)
    # ir-measures' own Judged breaks ties by document id ascending
    order = [sorted(run.get(q, {}), key=lambda d, q=q: (-run[q][d], d)) for q in qrels]
    other, _ = _padded([[qrels[q].get(d, np.nan) for d in docs] for q, docs in zip(qrels, order, strict=True)], 0)
    wanted = _ir_measures(["Judged@5"], run, qrels)["Judged@5"]
    np.testing.assert_allclose(judged(scores, other, mask, k=5, ranked=True), [wanted[q] for q in qrels], atol=1e-7)
    presorted = measure_all(NAMES, scores, relevance, mask, ideal=ideal, ideal_mask=ideal_mask, ranked=True)
    for name in NAMES:
        np.testing.assert_array_equal(values[name], presorted[name], err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 40, 600]), st.integers(1, 40), st.sampled_from(["f4", "f2"])
)
def test_fast_sort_equals_the_readable_one(seed, width, depth, dtype):
    rng = np.random.default_rng(seed)
    pool = np.array([0.0, -0.0, np.inf, -np.inf, 1e-40, 1, -1, 1e4, *rng.standard_normal(4)], dtype=dtype)
    scores, mask = rng.choice(pool, size=(5, width)), rng.random((5, width)) < 0.7
    relevance = np.arange(1, 5 * width + 1).reshape(5, width)
    for present in (None, mask):
        fast = rank_lists(scores, relevance, present, depth=depth).relevance
        readable = rank_lists(scores, relevance, present, depth=depth, order=score_order).relevance
        assert torch.equal(fast, readable)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_every_dtype_sorts_alike(dtype):
    scores = torch.tensor([[3, 1, 2, 2], [5, -5, 0, 7]]).to(dtype)
    assert rank_lists(scores, torch.tensor([[1, 2, 3, 4]] * 2)).relevance.tolist() == [[1, 3, 4, 2], [4, 1, 3, 2]]


def test_kind_and_shape_of_the_result_follow_the_scores():
    scores, relevance = torch.randn(2, 3, 5), torch.randint(0, 2, (2, 3, 5))
    value = ndcg(scores, relevance.bool(), k=3)
    assert isinstance(value, torch.Tensor)
    assert value.shape == (2, 3)
    array = ndcg(scores.numpy(), relevance.numpy(), k=3)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, value.numpy())
    assert not ndcg(scores.requires_grad_(), relevance).requires_grad
    assert isinstance(ndcg([2.0, 1.0], [1, 0]), np.ndarray)


def test_lists_that_are_empty_or_without_relevant_documents():
    scores, relevance = np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([[0, -1], [1, 0]])
    for measure in (ndcg, reciprocal_rank, recall, precision, success, average_precision, r_precision):
        assert measure(scores, relevance)[0] == 0
        assert np.isnan(measure(scores, relevance, empty="nan")).tolist() == [True, False]
        assert measure(np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [0, 0]
        assert measure(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
        assert measure(scores, relevance, np.zeros((2, 2), bool)).tolist() == [0, 0]
    assert np.isnan(reciprocal_rank(scores, relevance, total_relevant=[0, 1], empty="nan")).tolist() == [True, False]
    assert reciprocal_rank(scores, relevance, total_relevant=[2, 1], empty="nan").tolist() == [0, 1]


def test_masked_candidates_never_count():
    rng = np.random.default_rng(3)
    scores, relevance = rng.standard_normal((6, 9)), rng.integers(-1, 4, (6, 9))
    mask = rng.random((6, 9)) < 0.6
    worse = np.where(mask, scores, np.nan)
    values = measure_all(["nDCG@4", "AP", "P", "Rprec", "Judged"], worse, np.where(mask, relevance, 3), mask)
    for q in range(6):
        alone = measure_all(["nDCG@4", "AP", "P", "Rprec", "Judged"], scores[q, mask[q]], relevance[q, mask[q]])
        for name, value in alone.items():
            assert values[name][q] == pytest.approx(value.item(), abs=1e-12)


def test_relations_between_measures():
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((50, 20))
    single = np.eye(20)[rng.integers(0, 20, 50)]
    np.testing.assert_allclose(average_precision(scores, single), reciprocal_rank(scores, single))
    np.testing.assert_array_equal(recall(scores, single, k=5), success(scores, single, k=5))
    grades = rng.integers(0, 4, (50, 20))
    np.testing.assert_array_equal(ndcg(-grades.astype(float), grades) < 1, grades.min(1) != grades.max(1))
    np.testing.assert_allclose(ndcg(grades, grades), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ndcg([np.nan, 1.0], [1, 0]), "NaN"),
        (lambda: ndcg([1.0, 2.0], [1.0]), "must be equal"),
        (lambda: ndcg(1.0, 1.0), "at least one dimension"),
        (lambda: ndcg([1.0, 2.0], [np.inf, 0]), "infinite"),
        (lambda: ndcg([1.0, 2.0], [1, 0], [1, 1]), "mask must be bool"),
        (lambda: ndcg([1.0, 2.0], [1, 0], k=0), "k is 0"),
        (lambda: ndcg([1.0, 2.0], [1, 0], gain="cubic"), "'linear' or 'exponential'"),
        (lambda: ndcg([1.0, 2.0], [2000, 0], gain="exponential"), "overflows"),
        (lambda: ndcg([1.0, 2.0], [1, 0], ideal=[0.5]), "worth less"),
        (lambda: ndcg([[1.0, 2.0]], [[1, 0]], ideal=[1.0]), "last dimension"),
        (lambda: ndcg([[1.0, 2.0]], [[1, 0]], ideal=[[1.0], [1.0]]), "must begin with"),
        (lambda: ndcg(["a", "b"], [1, 0]), "array of numbers"),
        (lambda: recall([1.0, 2.0], [1, 1], total_relevant=1), "holds 2 itself"),
        (lambda: recall([1.0, 2.0], [1, 1], relevance_level=0), "above 0"),
        (lambda: recall([1.0, 2.0], [1, 0], empty="skip"), "'zero' or 'nan'"),
        (lambda: recall([1.0, 2.0], [1, 0], np.array([False, True]), ranked=True), "absent candidates last"),
    ],
)
def test_bad_input_is_met_with_one_clear_line(call, message):
    with pytest.raises(RivalsError, match=message) as fault:
        call()
    assert "\n" not in str(fault.value)
