"""Slices, power, corrections, condensed lists, per-query tables and leakage in an evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Retriever, Run
from rivals.data.formats.tables import read_table
from rivals.errors import RivalsError
from rivals.evaluate import Evaluation, condense, evaluate, slice_queries
from rivals.evaluate.power import detectable_of_pairs
from rivals.measures import benjamini_hochberg, minimal_detectable_difference

FEW = {"resamples": 300, "permutations": 999}
COUNT = 120


def make() -> tuple[Dataset, dict[str, Run]]:
    """120 queries with columns; `ours` beats `base` on long queries only, `same` never differs from it by design."""
    rng = np.random.default_rng(0)
    long = np.arange(COUNT) % 2 == 1
    texts = [" ".join(["word"] * (8 if is_long else 3)) + f" {i}" for i, is_long in enumerate(long)]
    columns = {
        "kind": ["rare" if i < 5 else ("how" if i % 3 else "what") for i in range(COUNT)],
        "year": [None if i == 7 else 1990 + i % 30 for i in range(COUNT)],
        "topic": [f"t{i % 20}" for i in range(COUNT)],
        "tags": [["a"]] * COUNT,
    }
    queries = Collection([f"q{i}" for i in range(COUNT)], texts, columns, name="query")
    documents = Collection([f"d{i}" for i in range(40)], [f"text of document {i}" for i in range(40)])
    judged = [(q, (q + step) % 40, int(step == 0)) for q in range(COUNT) for step in range(2)]
    dataset = Dataset(queries, documents, Judgements.build(*zip(*judged, strict=True), queries=COUNT, documents=40))

    def run(gain: float) -> Run:
        document, score = [], []
        for q in range(COUNT):
            found = [(q + step) % 40 for step in range(10)]
            document += found
            noise = rng.random(10)
            noise[0] += gain if long[q] else 0.0
            score += noise.tolist()
        return Run.build(queries, documents, range(0, 10 * COUNT + 1, 10), document, score)

    return dataset, {"base": run(0.0), "ours": run(1.0), "same": run(0.0)}


@pytest.fixture(scope="module")
def made() -> tuple[Dataset, dict[str, Run]]:
    return make()


@pytest.fixture(scope="module")
def evaluation(made) -> Evaluation:
    dataset, runs = made
    return evaluate(
        runs, dataset, measures=["RR", "nDCG@5"], baselines=["base"], slices=["length", "kind", "year"],
        condensed=True, **FEW,
    )  # fmt: skip


def test_a_gain_that_depends_on_the_slice_is_found_and_one_that_does_not_is_not(evaluation):
    length, kind, year = evaluation.slices
    assert length.slicing.labels == ("4 words", "9 words")
    assert length.slicing.sizes == (60, 60)
    ours, same = length.tests
    assert (ours.system, ours.baseline, ours.measure) == ("ours", "base", "RR")
    assert ours.p_corrected < 0.02
    assert same.p_corrected > 0.05
    assert ours.differences[1].low > 0.3
    assert ours.differences[0].low < 0 < ours.differences[0].high
    values = evaluation.per_query["ours"]["RR"] - evaluation.per_query["base"]["RR"]
    assert ours.differences[1].estimate == pytest.approx(values[1::2].mean())
    assert length.intervals["ours"]["nDCG@5"][0].estimate == pytest.approx(
        evaluation.per_query["ours"]["nDCG@5"][::2].mean()
    )
    tests = [test for view in evaluation.slices for test in view.tests]
    from rivals.measures import holm

    np.testing.assert_allclose([t.p_corrected for t in tests], holm([t.p for t in tests]))
    assert kind.tests[0].p_corrected > 0.05
    assert year.slicing.sizes == (39, 40, 40)
    text = str(evaluation)
    assert "ours against base: the difference differs between slices" in text
    assert "same against base: no sign that the difference differs between slices" in text


def test_small_slices_and_missing_values_are_pointed_out(evaluation):
    _, kind, year = evaluation.slices
    assert kind.slicing.labels == ("how", "what", "rare")
    assert kind.cautions == (
        "Too small to be tested (fewer than 20 queries), and their means may be chance: rare (5).",
    )
    assert year.cautions == ("1 queries have no value of 'year' and are in no slice.",)
    assert "rare (5)" in str(evaluation)


def test_slices_by_relevant_seen_split_and_refusals(made):
    dataset, runs = made
    relevant = slice_queries(dataset, "relevant")
    assert (relevant.labels, relevant.sizes) == (("1 relevant",), (COUNT,))
    train = dataset.take(np.flatnonzero(np.arange(COUNT) % 20 < 4))
    seen = slice_queries(dataset, "seen", train=train)
    assert dict(zip(seen.labels, seen.sizes, strict=True)) == {"seen topic": 24, "unseen topic": 96}
    bare = Collection(dataset.queries.ids, dataset.queries.texts, name="query")
    plain = Dataset(bare, dataset.documents, dataset.judgements)
    by_document = slice_queries(plain, "seen", train=plain.take(np.arange(10)))
    assert by_document.sizes == (30, 90)  # relevant documents repeat every 40 queries
    splits = {"train": np.arange(100), "test": np.arange(100, COUNT)}
    split = Dataset(dataset.queries, dataset.documents, dataset.judgements, splits)
    assert slice_queries(split, "split", np.arange(90, COUNT)).sizes == (10, 20)
    with pytest.raises(RivalsError, match="'tags' holds lists"):
        slice_queries(dataset, "tags")
    one = evaluate({"ours": runs["ours"]}, dataset, measures=["RR"], slices=["relevant"], **FEW)
    assert "All queries are in one slice" in str(one)
    assert one.slices[0].tests == ()


def test_many_values_are_gathered():
    queries = Collection([f"q{i}" for i in range(60)], None, {"c": [f"v{i % 15:02}" for i in range(60)]}, name="query")
    empty = Judgements.build([], [], [], queries=60, documents=0)
    slicing = slice_queries(Dataset(queries, Collection([]), empty), "c")
    assert slicing.labels[-1] == "6 other values"
    assert slicing.sizes == (4,) * 9 + (24,)


def test_without_baselines_all_pairs_are_tested_and_power_is_said(made):
    dataset, runs = made
    found = evaluate(runs, dataset, measures=["RR"], slices=["length"], **FEW)
    assert {(t.system, t.baseline) for t in found.slices[0].tests} == {
        ("ours", "base"), ("same", "base"), ("same", "ours"),
    }  # fmt: skip
    values = found.values[:, 0]
    smallest = detectable_of_pairs(values, alpha=0.05, power=0.8)
    assert smallest[0, 1] == pytest.approx(minimal_detectable_difference(values[0], values[1]))
    low, high = np.nanmin(smallest), np.nanmax(smallest)
    assert f"With 120 queries a difference below {low:.3f} (" in found.power_sentence
    assert f"to {high:.3f} (" in found.power_sentence
    assert found.power_sentence.endswith("RR cannot be seen (80% power, one test at the 5% level).")
    assert "cannot be seen" in " ".join(str(found).split())
    pair = evaluate({"a": runs["base"], "b": runs["ours"]}, dataset, measures=["RR"], power=0.9, **FEW)
    bound = minimal_detectable_difference(values[0], values[1], power=0.9)
    assert pair.power_sentence.startswith(f"With 120 queries a difference below {bound:.3f} RR cannot be seen (90%")
    assert evaluate({"a": runs["base"]}, dataset, measures=["RR"], **FEW).power_sentence == ""


def test_the_power_that_is_promised_is_there():
    from rivals.measures import randomisation_test

    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        noise = rng.standard_normal(50) * 0.3
        bound = 0.3 * 2.8613 / math.sqrt(50)  # (t_.975 + t_.8) of 49 degrees of freedom
        found += randomisation_test(noise + bound, permutations=300, seed=1) < 0.05
    assert 0.73 < found / 300 < 0.87


def test_benjamini_hochberg_instead_of_holm(made):
    dataset, runs = made
    found = evaluate(runs, dataset, measures=["RR"], baselines=["base"], correction="benjamini-hochberg", **FEW)
    np.testing.assert_allclose(
        [c.p_corrected for c in found.comparisons], benjamini_hochberg([c.p for c in found.comparisons])
    )
    assert "Benjamini-Hochberg-corrected" in str(found)
    assert "Holm" not in str(found)


def test_effect_sizes_of_a_comparison(evaluation):
    ours, base = (evaluation.per_query[name]["RR"] for name in ("ours", "base"))
    comparison = evaluation.comparison("ours", "base")
    difference = ours - base
    assert comparison.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    spread = math.sqrt((ours.var(ddof=1) + base.var(ddof=1)) / 2)
    assert comparison.standardised == pytest.approx(difference.mean() / spread)
    assert comparison.superiority == pytest.approx(
        (comparison.wins + (COUNT - comparison.wins - comparison.losses) / 2) / COUNT
    )


def test_unjudged_shares_and_condensed_lists(made, evaluation):
    dataset, runs = made
    run = runs["base"]
    judged = dataset.judgements.find(run) >= 0
    for depth in (5, 10):
        share = 1 - judged[run.rank < depth].mean()
        assert evaluation.coverage["base"].unjudged[depth] == pytest.approx(share)
    short = {name: condense(system, dataset.judgements) for name, system in runs.items()}
    again = evaluate(short, dataset, measures=["RR", "nDCG@5"], **FEW)
    for name in runs:
        for measure in ("RR", "nDCG@5"):
            assert evaluation.condensed[name][measure] == pytest.approx(again.intervals[name][measure])
    assert all(seen.unjudged_at_10 == 0 for seen in again.coverage.values())
    text = str(evaluation)
    assert "The same on condensed lists" in text
    assert "Unjudged in the first 5, 10, 20, 100: " in text
    with pytest.raises(RivalsError, match="condensed=True"):
        again.condensed_table()


def test_condensed_lists_that_turn_the_order_and_uneven_judging_are_said():
    queries, documents = Collection([f"q{i}" for i in range(30)], name="query"), Collection(list("abcdef"))
    judged = [(q, d, g) for q in range(30) for d, g in ((0, 1), (1, 0), (2, 1))]
    data = Dataset(queries, documents, Judgements.build(*zip(*judged, strict=True), queries=30, documents=6))

    def run(order: str) -> Run:
        rows = [documents.row(letter) for letter in order]
        scores = np.tile(np.arange(len(rows), 0, -1.0), 30)
        return Run.build(queries, documents, np.arange(31) * len(rows), rows * 30, scores)

    runs = {"pooled": run("bac"), "new": run("defac")}
    found = evaluate(runs, data, measures=["RR"], condensed=True, **FEW)
    assert found.order == ("pooled", "new")
    assert found.condensed["new"]["RR"].estimate == 1
    assert "the order on RR is another: new, pooled" in " ".join(str(found).split())
    usual = " ".join(str(evaluate(runs, data, measures=["RR"], **FEW)).split())
    assert "The systems differ in unjudged documents (0% to 60% of the first 10)" in usual
    positives = Dataset(queries, documents, data.judgements.positives)
    assert any("hold relevant documents alone" in c for c in evaluate(runs, positives, condensed=True, **FEW).cautions)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_per_query_values_are_written_as_a_table(evaluation, tmp_path, ending):
    evaluation.save_per_query(tmp_path / f"values.{ending}")
    columns = read_table(tmp_path / f"values.{ending}").columns
    assert list(columns) == ["query", "system", "slice length", "slice kind", "slice year", "RR", "nDCG@5"]
    assert len(columns["query"]) == 3 * COUNT
    row = columns["query"].index("q9") + columns["system"][:3].index("ours")
    assert (columns["query"][row], columns["slice length"][row]) == ("q9", "9 words")
    assert float(columns["RR"][row]) == evaluation.per_query["ours"]["RR"][9]
    assert columns["slice year"][3 * 7] in (None, "")
    with pytest.raises(RivalsError, match=r"\.parquet"):
        evaluation.save_per_query(tmp_path / "values.docx")


def test_leakage_is_reported_with_the_training_data(made):
    dataset, runs = made
    train = dataset.take(np.arange(10))
    found = evaluate(runs, dataset, measures=["RR"], train=train, slices=["seen"], **FEW)
    assert found.leakage is not None
    figures = {overlap.what: (overlap.exact, overlap.total) for overlap in found.leakage.overlaps}
    assert figures == {"queries": (10, 120), "relevant documents": (10, 40), "topics": (10, 20)}
    assert "queries of test that are in train too: 10 word for word" in str(found)
    assert found.slices[0].slicing.sizes == (60, 60)
    again = Evaluation.from_json(found.to_json())
    assert again.leakage == found.leakage
    assert str(again) == str(found)


def test_json_keeps_slices_and_condensed_lists(evaluation):
    again = Evaluation.from_json(evaluation.to_json())
    assert str(again) == str(evaluation)
    assert again.to_json() == evaluation.to_json()
    assert again.slices[0].tests == evaluation.slices[0].tests
    assert again.condensed == evaluation.condensed
    with pytest.raises(RivalsError, match="no slices by 'mood'; there are length, kind, year"):
        again.slice_table("mood")


def test_an_evaluation_of_the_version_before_can_be_read(evaluation):
    import json

    old = json.loads(evaluation.to_json()) | {"version": 1}
    for name in ("correction", "power", "queries_not_common", "slices", "condensed", "leakage", "cautions"):
        del old[name]
    for row in old["comparisons"]:
        del row["standardised"], row["superiority"]
    old["coverage"] = {
        name: {"without_results": 0, "left_out": 0, "unjudged_at_10": row["unjudged"]["10"]}
        for name, row in old["coverage"].items()
    }
    read = Evaluation.from_json(json.dumps(old))
    assert read.coverage["ours"].unjudged_at_10 == evaluation.coverage["ours"].unjudged_at_10
    assert read.slices == ()
    assert read.groups == evaluation.groups
    assert "ours" in str(read)


class Reversed(Retriever):
    """Returns the last `k` documents for every query."""

    name = "reversed"

    def __init__(self, documents: Collection) -> None:
        self.documents = documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        rows = np.tile(np.arange(len(self.documents))[-k:], len(queries))
        return Run.build(queries, self.documents, np.arange(len(queries) + 1) * k, rows, rows.astype(float))

    def score(self, queries, query_row, document_row):
        return document_row.astype(np.float32)


def test_a_retriever_is_evaluated_as_it_is(made):
    dataset, _ = made
    retriever = Reversed(dataset.documents)
    found = evaluate({"it": retriever}, dataset, depth=12, **FEW)
    by_hand = evaluate({"it": retriever(dataset.queries, 12)}, dataset, **FEW)
    np.testing.assert_array_equal(found.values, by_hand.values)
