"""Measures by name."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.measures import ALIASES, MEASURES, Measure, known_measures, measure_all, ndcg, parse_measure, recall


@pytest.mark.parametrize(
    ("text", "measure", "name"),
    [
        ("nDCG@10", Measure("nDCG", 10), "nDCG@10"),
        ("ndcg@10", Measure("nDCG", 10), "nDCG@10"),
        (" NDCG @ 10 ", Measure("nDCG", 10), "nDCG@10"),
        ("nDCG(dcg='log2')@10", Measure("nDCG", 10), "nDCG@10"),
        ("nDCG(dcg='exp-log2')", Measure("nDCG", gain="exponential"), "nDCG(dcg='exp-log2')"),
        ("RR@10", Measure("RR", 10), "RR@10"),
        ("MRR@10", Measure("RR", 10), "RR@10"),
        ("Recall@100", Measure("R", 100), "R@100"),
        ("P(rel=2)@5", Measure("P", 5, 2), "P(rel=2)@5"),
        ("P(rel=1)@5", Measure("P", 5), "P@5"),
        ("AP(rel=0.5)", Measure("AP", None, 0.5), "AP(rel=0.5)"),
        ("MAP", Measure("AP"), "AP"),
        ("Rprec", Measure("Rprec"), "Rprec"),
        ("Hit@5", Measure("Success", 5), "Success@5"),
        ("Judged@10", Measure("Judged", 10), "Judged@10"),
        ("err@20", Measure("ERR", 20), "ERR@20"),
        ("ERR(max=3)", Measure("ERR", max_grade=3), "ERR(max=3)"),
        ("ERR(max=4)@5", Measure("ERR", 5), "ERR@5"),
        ("RBP", Measure("RBP"), "RBP(p=0.8)"),
        ("RBP(rel=2, p=.5)@10", Measure("RBP", 10, 2, p=0.5), "RBP(p=0.5, rel=2)@10"),
        ("RBP(p=0.95,max=3)", Measure("RBP", p=0.95, max_grade=3), "RBP(p=0.95, max=3)"),
        ("AUC", Measure("AUC"), "AUC"),
        ("ROCAUC(max_fpr=0.1, rel=2)", Measure("AUC", None, 2, max_fpr=0.1), "AUC(rel=2, max_fpr=0.1)"),
        ("tau", Measure("KendallTau"), "KendallTau"),
        ("Spearman", Measure("Spearman"), "Spearman"),
        ("PairAccuracy", Measure("PairAccuracy"), "PairAccuracy"),
        ("RBO(p=0.7)@50", Measure("RBO", 50, p=0.7), "RBO(p=0.7)@50"),
    ],
)
def test_notation(text, measure, name):
    parsed = parse_measure(text)
    assert parsed == measure
    assert parsed.name == str(parsed) == name
    assert parse_measure(name) == parse_measure(parsed) == parsed


def test_names_are_those_of_ir_measures():
    import ir_measures

    for name in (
        *("nDCG@10", "RR@10", "RR", "R@100", "P(rel=2)@5", "AP@100", "Rprec", "Success@5", "Judged@10"),
        *("ERR@20", "RBP(p=0.5)@10"),
    ):
        assert str(ir_measures.parse_measure(name)) == parse_measure(name).name


@pytest.mark.parametrize("text", ["nDGC@10", "", "nDCG@", "nDCG@-1", "nDCG@10x", "Bpref@20"])
def test_unknown_names_list_the_known_ones(text):
    with pytest.raises(RivalsError) as fault:
        parse_measure(text)
    assert known_measures() in str(fault.value)
    assert all(name in known_measures() for name in (*MEASURES, *ALIASES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nDCG(rel=2)@10", "options: dcg="),
        ("P(dcg='log2')@5", "options: rel="),
        ("P(rel=-1)@5", "above 0"),
        ("P(rel=0)@5", "above 0"),
        ("Judged(rel=1)@5", "options: none"),
        ("Rprec@5", "no cut-off"),
        ("P@0", "at least 1"),
        ("AUC@5", "no cut-off"),
        ("Spearman(rel=1)", "options: none"),
        ("RBP(p=1)", "between 0 and 1"),
        ("ERR(max=0)", "above 0"),
        ("AUC(max_fpr=2)", "at most 1"),
        ("RBO(p=x)", "options: p="),
    ],
)
def test_options_that_do_not_fit(text, message):
    with pytest.raises(RivalsError, match=message):
        parse_measure(text)


def test_measure_all_equals_the_functions():
    rng = np.random.default_rng(0)
    scores, relevance = rng.standard_normal((8, 12)).astype(np.float32), rng.integers(0, 3, (8, 12))
    ideal = np.concatenate([relevance, rng.integers(0, 3, (8, 4))], axis=1)
    values = measure_all(["nDCG@5", "R(rel=2)@3", "AP", "ERR@3", "Tau", "RBO@4", "AUC"], scores, relevance, ideal=ideal)
    np.testing.assert_array_equal(values["nDCG@5"], ndcg(scores, relevance, k=5, ideal=ideal))
    total = (ideal >= 2).sum(-1)
    alone = recall(scores, relevance, k=3, relevance_level=2, total_relevant=total)
    np.testing.assert_array_equal(values["R(rel=2)@3"], alone)
    for name, value in values.items():
        np.testing.assert_allclose(parse_measure(name)(scores, relevance, ideal=ideal), value, atol=1e-14)


def test_the_table_is_what_it_says():
    with pytest.raises(RivalsError, match="no measure is called 'ndcg'"):
        Measure("ndcg")
    for name, function in MEASURES.items():
        value = function(np.array([[3.0, 2.0, 1.0]]), np.array([[0, 1, 1]]))
        assert parse_measure(name)(np.array([[3.0, 2.0, 1.0]]), np.array([[0, 1, 1]])).tolist() == value.tolist()
