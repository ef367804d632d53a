"""Every measure that ir-measures and pytrec_eval share with us, on the border's notation: random and real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run, load_sample, save_qrels, save_run
from rivals.evaluate import evaluate

FEW = {"resamples": 100, "permutations": 100}
CUTS = (1, 3, 5, 10, 100)
#: Our notation, and pytrec_eval's name of the same value.
TREC = {
    **{f"nDCG@{k}": f"ndcg_cut_{k}" for k in CUTS},
    **{f"R@{k}": f"recall_{k}" for k in CUTS},
    **{f"P@{k}": f"P_{k}" for k in CUTS},
    **{f"Success@{k}": f"success_{k}" for k in CUTS},
    **{f"AP@{k}": f"map_cut_{k}" for k in CUTS},
    "nDCG": "ndcg",
    "RR": "recip_rank",
    "AP": "map",
    "Rprec": "Rprec",
}
TREC_CUT = ("ndcg_cut", "recall", "P", "success", "map_cut")
#: What ir-measures computes itself or asks of pytrec_eval at another level. Its RR@k and Judged break ties by their
#: own order, so they are compared on runs without ties; its ERR and RBP need programs besides Python.
GRADED = ("P(rel=2)@5", "R(rel=2)@10", "AP(rel=2)", "Rprec(rel=2)", "RR(rel=2)", "Success(rel=2)@3", "P(rel=3)@10")
TIELESS = ("RR@10", "RR(rel=2)@5", "Judged@10")


def random_data(seed: int, *, ties: bool, lowest: int = -1) -> tuple[Dataset, Run]:
    """40 queries, some without results and some with none relevant, most documents unjudged; grades `lowest` to 3."""
    rng = np.random.default_rng(seed)
    queries, documents = (
        Collection([f"q{i}" for i in range(40)], name="query"),
        Collection([f"d{i}" for i in range(150)]),
    )
    judged, offsets, document, score = [], [0], [], []
    for q in range(40):
        grades = [0, lowest] if q == 3 else range(lowest, 4)
        chosen = rng.permutation(150)[: rng.integers(1, 30)]
        judged += [(q, int(d), int(rng.choice(grades))) for d in chosen]
        found = [] if q in (5, 6) else rng.permutation(150)[: rng.integers(1, 140)].tolist()
        document += found
        score += (rng.integers(-8, 9, len(found)) / 4 if ties else rng.standard_normal(len(found))).tolist()
        offsets.append(len(document))
    dataset = Dataset(queries, documents, Judgements.build(*zip(*judged, strict=True), queries=40, documents=150))
    return dataset, Run.build(queries, documents, offsets, document, score)


def as_dicts(dataset: Dataset, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Judgements and run as the peers take them."""
    qrels: dict[str, Any] = {}
    listed: dict[str, Any] = {}
    judged = dataset.judgements
    for q, d, r in zip(judged.query, judged.document, judged.relevance, strict=True):
        qrels.setdefault(dataset.queries.ids[q], {})[dataset.documents.ids[d]] = int(r)
    for q, d, s in zip(run.query, run.document, run.score, strict=True):
        listed.setdefault(run.queries.ids[q], {})[run.documents.ids[d]] = float(s)
    return qrels, listed


def check(dataset: Dataset, run: Run, names: tuple[str, ...], qrels: dict[str, Any], listed: dict[str, Any]) -> None:
    """Compare per query with ir-measures; queries without results are 0 on both sides."""
    import ir_measures

    found = evaluate({"run": run}, dataset, measures=names, **FEW).per_query["run"]
    place = {q: i for i, q in enumerate(q for q in dataset.queries.ids if q in qrels)}
    compared = 0
    for metric in ir_measures.iter_calc([ir_measures.parse_measure(name) for name in names], qrels, listed):
        assert found[str(metric.measure)][place[metric.query_id]] == pytest.approx(metric.value, abs=2e-6), metric
        compared += 1
    assert compared >= len(names) * len(listed)


@pytest.mark.parametrize("seed", range(3))
def test_pytrec_eval_on_random_runs_with_ties_gaps_and_unjudged_documents(seed):
    import pytrec_eval

    dataset, run = random_data(seed, ties=True, lowest=0)
    qrels, listed = as_dicts(dataset, run)
    found = evaluate({"run": run}, dataset, measures=tuple(TREC), **FEW).per_query["run"]
    asked = {"ndcg_cut", "recall", "P", "success", "map_cut", "ndcg", "recip_rank", "map", "Rprec"}
    asked = {f"{name}.{','.join(map(str, CUTS))}" if name in TREC_CUT else name for name in asked}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(listed)
    assert len(theirs) == 38
    for i, query in enumerate(dataset.queries.ids):
        for ours, name in TREC.items():
            assert found[ours][i] == pytest.approx(theirs.get(query, {}).get(name, 0.0), abs=2e-6), (query, ours)


@pytest.mark.parametrize("seed", range(3))
def test_ir_measures_at_higher_levels_with_ties(seed):
    dataset, run = random_data(seed, ties=True, lowest=0)
    check(dataset, run, (*GRADED, *(name for name in TREC if name != "RR")), *as_dicts(dataset, run))


@pytest.mark.parametrize("seed", range(3))
def test_ir_measures_own_measures_without_ties(seed):
    dataset, run = random_data(seed, ties=False, lowest=0)
    check(dataset, run, TIELESS, *as_dicts(dataset, run))


def test_negative_grades_are_judged_and_gain_nothing():
    dataset, run = random_data(7, ties=False)
    assert (dataset.judgements.relevance < 0).any()
    qrels, listed = as_dicts(dataset, run)
    clipped = {q: {d: max(g, 0) for d, g in grades.items()} for q, grades in qrels.items()}  # what trec_eval does
    check(dataset, run, (*TREC, *GRADED, *TIELESS), clipped, listed)


def test_a_real_run_through_files(tmp_path: Path):
    import ir_measures

    from rivals.cli.evaluate import load_runs
    from rivals.retrieve import BM25

    sample = load_sample().split("test").take(np.arange(0, 850, 6))
    run = BM25(sample.documents)(sample.queries, 30)
    save_run(run, tmp_path / "bm25.trec", "bm25")
    save_qrels(sample, tmp_path / "test.qrels")
    systems, dataset = load_runs({"bm25": str(tmp_path / "bm25.trec")}, str(tmp_path / "test.qrels"))
    names = ("nDCG@10", "nDCG", "RR", "AP", "R@30", "P@5", "Success@1", "Rprec", "P(rel=2)@5")
    found = evaluate(systems, dataset, measures=names, **FEW)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "test.qrels")))
    listed = list(ir_measures.read_trec_run(str(tmp_path / "bm25.trec")))
    means = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names], qrels, listed)
    for measure, value in means.items():
        assert found.mean("bm25", str(measure)) == pytest.approx(value, abs=2e-6), measure
    assert found.mean("bm25", "nDCG@10") > 0.3
    assert found.mean("bm25", "P(rel=2)@5") == 0
