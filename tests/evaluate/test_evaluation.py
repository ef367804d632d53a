"""`evaluate` and what it returns: against ir-measures, alignment and counts, statistics, tables, JSON, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.evaluate import Evaluation, compact_letters, compare_pairs, compare_with_baselines, evaluate
from rivals.evaluate.compare import places
from rivals.measures import bootstrap_interval, effect_size, holm, randomisation_test

QUERIES, DOCUMENTS = 120, 60
FEW = {"resamples": 500, "permutations": 999}


def make_dataset(seed: int = 0) -> Dataset:
    """120 queries, the last 20 unjudged, query 0 judged without a relevant document; grades -1 to 2."""
    rng = np.random.default_rng(seed)
    queries = Collection([f"q{i}" for i in range(QUERIES)], name="query")
    documents = Collection([f"d{i}" for i in range(DOCUMENTS)])
    query, document, relevance = [0], [3], [0]
    for q in range(1, 100):
        for place, d in enumerate(rng.permutation(DOCUMENTS)[:8]):
            query.append(q)
            document.append(d)
            relevance.append(2 if place == 0 else rng.choice([-1, 0, 1]))
    judgements = Judgements.build(query, document, relevance, queries=QUERIES, documents=DOCUMENTS)
    return Dataset(queries, documents, judgements, name="made")


def make_run(dataset: Dataset, noise: float, seed: int, *, k: int = 20, empty: tuple[int, ...] = ()) -> Run:
    """A run that finds relevant documents the better the less noise; scores are coarse, so that many tie."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((QUERIES, DOCUMENTS))
    truth[dataset.judgements.query, dataset.judgements.document] = dataset.judgements.relevance
    scores = np.round(truth + noise * rng.standard_normal(truth.shape), 1)
    offsets, document, score = [0], [], []
    for q in range(QUERIES):
        rows = [] if q in empty else np.argsort(-scores[q])[:k].tolist()
        document += rows
        score += scores[q, rows].tolist()
        offsets.append(len(document))
    return Run.build(dataset.queries, dataset.documents, offsets, document, score)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset) -> Evaluation:
    systems = {
        "weak": make_run(dataset, 3.0, 1, empty=(5, 6, 110)),
        "good": make_run(dataset, 0.8, 2),
        "twin": make_run(dataset, 0.8, 3),
    }
    return evaluate(systems, dataset, baselines=["weak"], **FEW)


def test_values_are_those_of_ir_measures(dataset):
    import ir_measures

    names = ["nDCG@10", "nDCG", "RR", "R@10", "P(rel=2)@1", "AP", "Rprec", "Success@5"]
    run = make_run(dataset, 2.0, 1, empty=(5, 6))
    ids, judgements = dataset.documents.ids, dataset.judgements
    qrels: dict = {}
    for q, d, r in zip(judgements.query, judgements.document, judgements.relevance, strict=True):
        qrels.setdefault(f"q{q}", {})[ids[d]] = max(int(r), 0)  # pytrec_eval can hang on negative grades; they gain 0
    listed: dict = {}
    for q, d, s in zip(run.query, run.document, run.score, strict=True):
        listed.setdefault(f"q{q}", {})[ids[d]] = float(s)
    found = evaluate({"run": run}, dataset, measures=names, **FEW)
    assert len(found.queries) == 100
    metrics = list(ir_measures.iter_calc([ir_measures.parse_measure(name) for name in names], qrels, listed))
    assert len(metrics) == 100 * len(names)
    for metric in metrics:
        own = found.per_query["run"][str(metric.measure)][found.queries.index(metric.query_id)]
        assert own == pytest.approx(metric.value, abs=1e-7), metric
    means = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, listed)
    assert found.mean("run") == pytest.approx(means[ir_measures.nDCG @ 10], abs=1e-9)


def test_what_is_left_out_and_what_counts_as_zero_is_counted(evaluation, dataset):
    assert evaluation.queries == tuple(f"q{i}" for i in range(100))
    assert evaluation.queries_without_judgements == 20
    assert evaluation.queries_without_relevant == 1
    weak, good = evaluation.coverage["weak"], evaluation.coverage["good"]
    assert (weak.without_results, weak.left_out) == (2, 19)
    assert (good.without_results, good.left_out) == (0, 20)
    assert evaluation.per_query["weak"]["nDCG@10"][[5, 6]].tolist() == [0, 0]
    run = make_run(dataset, 0.8, 2)
    judged = dataset.judgements.find(run) >= 0
    first_ten = (run.rank < 10) & (run.query < 100)
    assert good.unjudged_at_10 == pytest.approx(1 - judged[first_ten].mean())
    text = str(evaluation)
    both = ", ".join(system for system in evaluation.order if system != "weak")
    for line in (
        "20 queries without judgements are left out.",
        "1 judged queries have no relevant document; every system scores 0 there.",
        "weak: 2 queries without results count as 0.",
        f"{both}: 20 queries of the run are not judged here and are left out.",
    ):
        assert line in text


def test_a_run_over_its_own_collections_is_aligned_by_id(dataset):
    run = make_run(dataset, 1.0, 4)
    rng = np.random.default_rng(0)
    order, documents = rng.permutation(QUERIES)[:90], rng.permutation(DOCUMENTS)
    shuffled = run.take(order)
    where = np.argsort(documents)
    extra = Collection([*shuffled.queries.ids, "a query of another set"], name="query")
    other = Run.build(
        extra,
        dataset.documents.take(documents),
        [*shuffled.offsets, shuffled.offsets[-1] + 1],
        [*where[shuffled.document], 0],
        [*shuffled.score, 1.0],
    )
    whole = evaluate({"run": run}, dataset, **FEW).per_query["run"]
    found = evaluate({"run": other}, dataset, **FEW)
    has = np.isin(np.arange(100), order)
    for measure, values in found.per_query["run"].items():
        np.testing.assert_array_equal(values, np.where(has, whole[measure], 0))
    assert found.coverage["run"].without_results == (~has).sum()
    assert found.coverage["run"].left_out == (order >= 100).sum() + 1


def test_statistics_are_those_of_the_measures_room(evaluation):
    weak, good = (evaluation.per_query[system]["nDCG@10"] for system in ("weak", "good"))
    comparison = evaluation.comparison("good", "weak")
    interval = bootstrap_interval(good - weak, resamples=500)
    assert comparison.difference == pytest.approx((good - weak).mean())
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert comparison.effect_size == pytest.approx(effect_size(good, weak))
    assert comparison.p == randomisation_test(good, weak, permutations=999) == 0.001
    both = [evaluation.comparison(system, "weak") for system in ("good", "twin")]
    np.testing.assert_allclose([c.p_corrected for c in both], holm([c.p for c in both]))
    assert comparison.wins == (good > weak).sum()
    assert comparison.losses == (good < weak).sum()
    assert len(evaluation.comparisons) == 2 * 5
    assert evaluation.mean("good") == pytest.approx(good.mean())
    row = evaluation.intervals["good"]["nDCG@10"]
    assert row.low < row.estimate < row.high


def test_systems_that_cannot_be_told_apart_are_a_tie(evaluation):
    assert evaluation.groups == {"good": "a", "twin": "a", "weak": "b"}
    assert evaluation.places == {"good": 1, "twin": 1, "weak": 3}
    assert evaluation.order[-1] == "weak"
    rows = [line.split()[:3] for line in str(evaluation).splitlines()]
    assert ["1=", "good", "a"] in rows
    assert ["1=", "twin", "a"] in rows
    assert ["3", "weak", "b"] in rows


def test_the_same_run_twice_is_a_tie_with_p_one(dataset):
    run = make_run(dataset, 1.0, 2)
    again = evaluate({"a": run, "b": run.top(15)}, dataset, measures=["nDCG@10"], baselines=["a"], **FEW)
    comparison = again.comparison("b", "a")
    assert (comparison.p, comparison.difference, comparison.effect_size) == (1.0, 0.0, 0.0)
    assert again.groups == {"a": "a", "b": "a"}


def test_equal_seeds_give_equal_evaluations(dataset):
    runs = {"a": make_run(dataset, 1.0, 2), "b": make_run(dataset, 1.1, 3)}
    one, two = (evaluate(runs, dataset, baselines=["a"], seed=3, **FEW) for _ in range(2))
    assert one.to_json() == two.to_json()


def test_json_gives_back_the_same_evaluation(evaluation, dataset):
    text = evaluation.to_json()
    again = Evaluation.from_json(text)
    assert str(again) == str(evaluation)
    assert again.to_json() == text
    np.testing.assert_array_equal(again.values, evaluation.values)
    assert again.comparisons == evaluation.comparisons
    assert json.loads(text)["groups"]["weak"] == "b"
    single = evaluate({"a": make_run(dataset, 1, 1)}, dataset.take([4]), measures=["RR"], **FEW)
    assert "NaN" not in single.to_json()
    assert np.isnan(Evaluation.from_json(single.to_json()).intervals["a"]["RR"].low)


BROKEN = json.dumps(
    {name: [[["x"]]] for name in Evaluation.__dataclass_fields__} | {"format": "rivals evaluation", "version": 1}
)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "rivals evaluation"}', '{"format": 1, "version": 1}', BROKEN]
)
def test_json_that_is_no_evaluation(text):
    with pytest.raises(RivalsError, match="not a saved evaluation"):
        Evaluation.from_json(text)


def test_json_of_another_version(evaluation):
    text = evaluation.to_json().replace('"version": 2', '"version": 9', 1)
    with pytest.raises(RivalsError, match="version 9"):
        Evaluation.from_json(text)


def test_worst_queries(evaluation):
    worst = evaluation.worst_queries("good", 100)
    values = [query.value for query in worst]
    assert values == sorted(values)
    zero = [query for query in worst if query.value == 0]
    others = [query.all_values["weak"] + query.all_values["twin"] for query in zero]
    assert others == sorted(others, reverse=True)
    against = evaluation.worst_queries("good", 3, measure="R@10", against="weak")
    losses = evaluation.per_query["good"]["R@10"] - evaluation.per_query["weak"]["R@10"]
    assert [query.all_values["good"] - query.all_values["weak"] for query in against] == sorted(losses)[:3]


def test_tables_print_in_a_narrow_terminal(evaluation):
    import io

    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=100).print(evaluation)
    assert max(map(len, page.getvalue().splitlines())) <= 100
    assert "good" in page.getvalue()
    assert "nDCG@10 against baselines" in str(evaluation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systems": {}}, "no system"),
        ({"baselines": ["bm26"]}, "baseline 'bm26' is not among the systems: run"),
        ({"measures": ["nDGC@10"]}, "no measure is called 'nDGC@10'"),
        ({"measures": ["RR@10", "MRR@10"]}, "each once"),
        ({"measures": []}, "got none"),
    ],
)
def test_bad_options(dataset, options, message):
    with pytest.raises(RivalsError, match=message):
        evaluate(**{"systems": {"run": make_run(dataset, 1, 1)}, "dataset": dataset, **options})


def test_documents_the_data_set_does_not_have_are_named(dataset):
    strange = Run.build(dataset.queries.take([1]), Collection(["d1", "alien"]), [0, 2], [0, 1], [1.0, 2.0])
    with pytest.raises(RivalsError, match=r"system 'odd' returned document 'alien'.*1 such"):
        evaluate({"odd": strange}, dataset)


def test_no_judged_query(dataset):
    with pytest.raises(RivalsError, match="none of the 2 queries has a judgement"):
        evaluate({"run": make_run(dataset, 1, 1)}, dataset.take([110, 111]))


def test_unknown_names_of_an_evaluation(evaluation):
    for call in (
        lambda: evaluation.mean("bad"),
        lambda: evaluation.mean("good", "AP"),
        lambda: evaluation.comparison("weak", "good"),
        lambda: evaluation.worst_queries("good", against="bad"),
    ):
        with pytest.raises(RivalsError, match=r"no system|not measured|not tested"):
            call()


def test_an_empty_run_and_one_with_one_list(dataset):
    nothing = Run.build(dataset.queries.take([]), dataset.documents.take([]), [0], [], [])
    found = evaluate({"nothing": nothing, "run": make_run(dataset, 1, 1)}, dataset, measures=["AP", "P@1"], **FEW)
    assert found.coverage["nothing"].without_results == 100
    assert not found.values[0].any()
    assert found.order == ("run", "nothing")


def test_two_baselines_meet_once():
    values = np.random.default_rng(0).random((3, 1, 20))
    found = compare_with_baselines(values, ["a", "b", "c"], ["RR"], ["a", "b"], **FEW)
    assert [(c.system, c.baseline) for c in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert compare_with_baselines(values, ["a", "b", "c"], ["RR"], []) == ()


def test_rounding_differences_are_no_differences():
    values = np.random.default_rng(0).random((2, 40))
    values[1] = values[0] + 1e-15
    assert compare_pairs(values).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("seed", range(20))
def test_letters_are_shared_exactly_by_those_that_do_not_differ(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    p = np.triu(rng.random((count, count)) ** 3, 1)
    p = p + p.T + np.eye(count)
    means = rng.random(count)
    letters = compact_letters(means, p)
    for i in range(count):
        assert letters[i]
        for j in range(i):
            assert bool(set(letters[i]) & set(letters[j])) == (p[i, j] >= 0.05)
    assert "a" in letters[int(means.argmax())]
    assert places(means, p)[int(means.argmax())] == 1


def test_reading_an_evaluation_needs_no_torch(evaluation):
    import subprocess
    import sys

    code = "import sys; from rivals.evaluate import Evaluation; print(Evaluation.from_json(sys.stdin.read()))"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], input=evaluation.to_json(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(evaluation).strip()
