"""The T2Ranking protocol by hand, and its averages against the tensor measures."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.data.dataset import Judgements
from rivals.errors import RivalsError
from rivals.evaluate.protocols import binary_judgements, mean_recall, mean_reciprocal_rank, passage_protocol
from rivals.evaluate.ratios import ratio_interval
from rivals.measures import bootstrap_interval, micro_recall, ndcg

PASSAGES = Collection([str(n) for n in range(30)])


def listed(rows: dict[int, list[int]], queries: int) -> Run:
    document = [d for q in range(queries) for d in rows.get(q, [])]
    score = [-float(i) for q in range(queries) for i in range(len(rows.get(q, [])))]
    offsets = np.cumsum([0, *(len(rows.get(q, [])) for q in range(queries))])
    return Run.build(Collection([f"q{q}" for q in range(queries)], name="query"), PASSAGES, offsets, document, score)


def judged(rows: dict[tuple[int, int], float], queries: int) -> Judgements:
    query, document = zip(*rows, strict=True)
    return Judgements.build(query, document, list(rows.values()), queries=queries, documents=30)


CARD_RUN = {0: [13, 12, 11], 1: [22, 23, 24]}
CARD = {(0, 11): 1.0, (0, 12): 1.0, (1, 21): 1.0}


def test_the_cards_example() -> None:
    run, answers = listed(CARD_RUN, 2), judged(CARD, 2)
    assert mean_reciprocal_rank(run, answers) == 0.25
    assert mean_recall(run, answers, k=1) == 0
    assert mean_recall(run, answers, k=50) == pytest.approx(2 / 3)
    assert mean_recall(run, answers, k=50, average="macro") == 0.5


def test_a_ranked_query_without_judgements_lowers_mrr_but_not_recall() -> None:
    run, answers = listed({**CARD_RUN, 2: [1, 2]}, 3), judged(CARD, 3)
    assert mean_reciprocal_rank(run, answers) == pytest.approx(0.5 / 3)
    assert mean_reciprocal_rank(run, answers, average="judged") == 0.25
    assert mean_recall(run, answers, k=50) == pytest.approx(2 / 3)
    missing = listed({0: CARD_RUN[0]}, 3)
    assert mean_reciprocal_rank(missing, answers) == 0.5
    assert mean_reciprocal_rank(missing, answers, average="judged") == 0.25
    assert mean_recall(missing, answers, k=50) == 1


def test_linear_and_exponential_gains_differ() -> None:
    run, answers = listed({0: [1, 2, 3]}, 1), judged({(0, 1): 3, (0, 2): 0, (0, 3): 1}, 1)
    report = passage_protocol({"ours": run}, answers, ndcg_at=(3,), minimum=2)
    assert report.values["ours"]["nDCG@3"].estimate == pytest.approx(0.9639, abs=5e-5)
    scores, relevance, mask = run.lists(answers)
    assert ndcg(scores, relevance, mask, gain="exponential", k=3)[0] == pytest.approx(0.9828, abs=5e-5)


def test_the_report_is_the_protocols_numbers() -> None:
    draw = np.random.default_rng(0)
    rows = {q: draw.choice(30, 12, replace=False).tolist() for q in range(40) if q != 7}
    grades = {
        (q, d): float(draw.integers(0, 4)) for q in range(40) if q != 9 for d in draw.choice(30, 8, replace=False)
    }
    run, graded = listed(rows, 40), judged(grades, 40)
    report = passage_protocol({"ours": run}, graded, recall_at=(1, 5), ndcg_at=(10,))
    values, binary = report.values["ours"], binary_judgements(graded)
    assert values["MRR@10 (ranked)"].estimate == pytest.approx(mean_reciprocal_rank(run, binary))
    assert values["R@5 (micro)"].estimate == pytest.approx(mean_recall(run, binary, k=5))
    assert values["R@5 (micro)"].low < values["R@5 (micro)"].estimate < values["R@5 (micro)"].high
    scores, relevance, mask = run.lists(binary)
    total = np.bincount(binary.query, binary.relevance, minlength=40)
    ranked = np.arange(40) != 7
    expected = micro_recall(
        scores[ranked], relevance[ranked], mask[ranked], k=5, total_relevant=total[ranked], ranked=True
    )
    assert values["R@5 (micro)"].estimate == pytest.approx(float(expected))
    assert report.counts["ours"]["ranked"] == 39
    assert report.counts["ours"]["not ranked"] == int(total[7] > 0)
    assert report.level_one == pytest.approx(np.mean([g == 1 for g in grades.values()]))
    assert "grade 2" in str(report.table().title)


def test_a_ratio_over_equal_bottoms_is_a_mean() -> None:
    values = np.random.default_rng(0).random(30)
    ratio = ratio_interval(values, np.ones(30), resamples=500)
    assert ratio == pytest.approx(bootstrap_interval(values, method="percentile", resamples=500))
    assert np.isnan(ratio_interval([0, 0], [0, 0]).estimate)
    with pytest.raises(RivalsError, match="bottom from 0"):
        ratio_interval([1, 2], [1, -1])


def test_bad_input_is_refused() -> None:
    run, answers = listed(CARD_RUN, 2), judged(CARD, 2)
    with pytest.raises(RivalsError, match="'ranked' or 'judged'"):
        mean_reciprocal_rank(run, answers, average="all")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="'micro' or 'macro'"):
        mean_recall(run, answers, k=3, average="mean")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="no system"):
        passage_protocol({}, answers)
    with pytest.raises(RivalsError, match="ranks no query"):
        passage_protocol({"ours": listed({}, 2)}, answers, minimum=1)
    with pytest.raises(RivalsError, match="align"):
        mean_recall(run, judged(CARD, 3), k=3)
    with pytest.raises(RivalsError, match="minimum"):
        binary_judgements(answers, minimum=0)
