"""One call over a whole system: what each perturbation must cost, that the figures add up, and what is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run, load_sample
from rivals.data.pipeline import Transform
from rivals.diagnose.robustness import (
    CandidateOrder,
    ChangeCase,
    ChangeRelevant,
    NearDuplicates,
    Negate,
    PadPassages,
    ReplaceSynonyms,
    RobustnessReport,
    StuffKeywords,
    SubstituteWords,
    Typos,
    WordOrder,
    default_perturbations,
    rebuilt,
    robustness_report,
    run_overlap,
)
from rivals.errors import RivalsError
from rivals.evaluate import evaluate
from rivals.measures.significance import holm, randomisation_test
from rivals.models import Encoder
from rivals.models.list_ranker import ContextRanker
from rivals.models.pair_features import PairFeatures
from rivals.models.rerank import LateInteractionReranker, ListwiseReranker
from rivals.negatives.rescore import Rescore
from rivals.retrieve import BM25, Dense
from tests.models.tiny import write_tiny_bert


class Letters:
    """An encoder that counts letter pairs: cheap, and typos hurt it a little."""

    def __init__(self) -> None:
        self.read = 0

    def encode(self, texts, *, role, progress):
        self.read += len(texts)
        out = np.full((len(texts), 997), 1e-3, np.float32)
        for row, text in enumerate(texts):
            letters = np.frombuffer(text.lower().encode("utf-32-le"), np.uint32).astype(np.int64)
            out[row] += np.bincount((letters[:-1] * 31 + letters[1:]) % 997, minlength=997)
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def fingerprint(self) -> str:
        return "letters"


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Sixty test questions over 400 answers of the sample, theirs among them."""
    sample = load_sample().split("test").take(range(60))
    wanted = np.unique(sample.judgements.document)
    rows = np.union1d(wanted, np.random.default_rng(0).choice(len(sample.documents), 400, replace=False))
    place = np.searchsorted(rows, sample.judgements.document)
    judgements = Judgements(sample.judgements.offsets, place, sample.judgements.relevance)
    return Dataset(sample.queries, sample.documents.take(rows), judgements, {}, "slice")


@pytest.fixture(scope="module")
def bm25(data: Dataset) -> BM25:
    return BM25(data.documents, threads=1)


@pytest.fixture(scope="module")
def whole(data: Dataset, bm25: BM25) -> RobustnessReport:
    """The default suite on a pipeline that has all parts: BM25, re-ranked by letters."""
    dense = Dense(Letters(), data.documents, show_progress=False)
    return robustness_report(bm25 >> Rescore(dense), data, repeats=2, resamples=500, permutations=500, seed=3)


def test_the_default_suite_on_a_pipeline(whole: RobustnessReport, data: Dataset) -> None:
    assert [result.name for result in whole.results] == [change.name for change in default_perturbations()]
    assert not whole.left_out
    assert len(whole.queries) == 60
    for result in whole.results:
        assert result.drop.low <= result.drop.estimate <= result.drop.high
        assert result.value.estimate == pytest.approx(whole.clean.estimate - result.drop.estimate)
        assert np.mean(whole.values[result.name]) == pytest.approx(result.value.estimate)
        assert result.drop_rate.estimate == pytest.approx(-result.drop.estimate / whole.clean.estimate)
        assert 0 <= result.overlap <= 1 + 1e-9
        assert 0 <= result.p <= result.p_corrected <= 1
        assert math.isnan(result.reached) == (result.name not in ("keyword stuffing x3", "substituted words x5"))
        assert all(case.before - case.after > 0 for case in result.worst)
        if result.target != "candidates":
            assert all(case.original != case.perturbed for case in result.worst)
    assert whole["candidate order"].drop.estimate == 0  # the reranker scores each candidate by itself
    assert whole["keyword stuffing x3"].reached > 0.5
    assert whole["keyword stuffing x3"].drop.estimate > 0
    assert not whole["negated"].keeps_meaning
    assert whole["dropped word"].changed == 60


def test_figures_are_those_of_evaluate_and_of_the_tests(data: Dataset, bm25: BM25) -> None:
    changes = [Typos(), ChangeCase("upper"), WordOrder()]
    report = robustness_report(bm25, data, perturbations=changes, resamples=400, permutations=400, seed=5, k=50)
    clean = evaluate({"bm25": bm25(data.queries, 50)}, data, measures=["nDCG@10"], resamples=400, permutations=400)
    assert report.values[""] == pytest.approx(clean.per_query["bm25"]["nDCG@10"].tolist())
    assert report.clean.estimate == pytest.approx(clean.mean("bm25"))
    drops = np.array(report.values[""]) - np.array([report.values[change.name] for change in changes])
    p = randomisation_test(drops, permutations=400, seed=5)
    assert [result.p for result in report.results] == pytest.approx(p.tolist())
    assert [result.p_corrected for result in report.results] == pytest.approx(holm(p).tolist())
    for name in ("upper case", "shuffled words"):  # a bag of folded words sees neither
        assert report[name].drop.estimate == 0
        assert (report[name].p, report[name].overlap) == (1, pytest.approx(1))
        assert not report[name].worst
    assert report["typos"].drop.estimate > 0
    first = report["typos"].worst[0]
    assert first.before - first.after == pytest.approx(drops[0].max())
    row = report.queries.index(first.query)
    assert data.queries.texts[row] == first.original


def test_seeds(data: Dataset, bm25: BM25) -> None:
    made = [
        robustness_report(bm25, data, perturbations=[Typos()], resamples=100, permutations=100, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert made[0].to_json() == made[1].to_json() != made[2].to_json()


def test_json_and_print(whole: RobustnessReport) -> None:
    again = RobustnessReport.from_json(whole.to_json())
    assert again.to_json() == whole.to_json()
    assert again["keyword stuffing x3"] == whole["keyword stuffing x3"]
    said = str(whole)
    for result in whole.results:
        assert result.name in said
    assert "should change" in said
    assert "Worst queries" in said
    with pytest.raises(RivalsError, match="not a saved robustness report"):
        RobustnessReport.from_json("{}")
    with pytest.raises(RivalsError, match="has version 9"):
        RobustnessReport.from_json('{"format": "rivals robustness", "version": 9}')
    with pytest.raises(RivalsError, match="no perturbation is called 'rust'"):
        whole["rust"]


def test_a_blind_system_is_perfectly_stable_and_scores_badly(data: Dataset) -> None:
    """It sorts by id whatever is asked: no drop anywhere, and the report shows how little that is worth."""

    def by_name(queries: Collection, k: int) -> Run:
        size = min(k, len(data.documents))
        rows = np.tile(np.arange(size), len(queries))
        scores = np.tile(-np.arange(size, dtype=np.float32), len(queries))
        return Run.build(queries, data.documents, np.arange(len(queries) + 1) * size, rows, scores)

    report = robustness_report(by_name, data, resamples=100, permutations=100, name="by name")
    assert all(result.drop.estimate == 0 and result.overlap == pytest.approx(1) for result in report.results)
    assert report.clean.estimate < 0.1
    assert {result.target for result in report.results} == {"queries"}
    assert set(report.left_out) == {
        change.name for change in default_perturbations()[-5:]
    }  # documents and candidates, with the reason
    assert "give rebuild=" in report.left_out["near-duplicates"]
    with pytest.raises(RivalsError, match="'padded in front x3' cannot be made: a function cannot be made anew"):
        robustness_report(by_name, data, perturbations=[PadPassages()])


def test_documents_are_changed_as_told(data: Dataset, bm25: BM25) -> None:
    run, texts = bm25(data.queries, 100), data.documents.texts
    relevant = set(data.judgements.positives.document.tolist())
    padded = PadPassages(2, "back")(data, run, seed=1)
    for row, text in enumerate(padded.documents.texts):
        assert text.startswith(texts[row])
        assert (text != texts[row]) == (row in relevant)
    assert (padded.rival == -1).all()
    shouting = ChangeRelevant(ChangeCase("upper"))(data, run)
    assert all(shouting.documents.texts[row] == texts[row].upper() for row in relevant)
    twins = NearDuplicates(2)(data, run, seed=1)
    assert twins.documents.texts[: len(texts)] == texts
    assert len(relevant) < len(twins.documents) - len(texts) <= 2 * len(relevant)
    assert not set(twins.documents.texts[len(texts) :]) & set(texts)
    stuffed = StuffKeywords(2, below=5)(data, run, seed=1)
    assert len(set(stuffed.rival.tolist())) == len(stuffed.rival) == 60
    assert not relevant & set(stuffed.rival.tolist())
    for query, rival, text in zip(stuffed.query.tolist(), stuffed.rival.tolist(), stuffed.changed, strict=True):
        asked = data.queries.texts[query].strip()
        assert stuffed.documents.texts[rival] == text == f"{asked} {asked} {texts[rival]}"
    dressed = SubstituteWords(3)(data, run, seed=1)
    for old, new in zip(dressed.original, dressed.changed, strict=True):
        pairs = list(zip(old.split(), new.split(), strict=True))
        assert sum(a != b for a, b in pairs) <= 3
    for change in (PadPassages(), NearDuplicates(), StuffKeywords(), SubstituteWords()):
        assert change(data, run, seed=2).documents.texts == change(data, run, seed=2).documents.texts
        assert change(data, run, seed=2).documents.texts != change(data, run, seed=3).documents.texts


def test_systems_made_anew_answer_as_new_ones(data: Dataset, bm25: BM25) -> None:
    changed = PadPassages(1)(data, bm25(data.queries, 50), seed=1).documents
    letters = Letters()
    dense = Dense(letters, data.documents, show_progress=False)
    read = letters.read
    both = rebuilt(bm25 | dense, changed)
    relevant = len(np.unique(data.judgements.positives.document))
    assert letters.read == read + relevant  # what it knew was not encoded again
    fresh = BM25(changed, threads=1) | Dense(Letters(), changed, show_progress=False)
    one, two = both(data.queries, 20), fresh(data.queries, 20)
    assert run_overlap(one, two) == pytest.approx(1)
    np.testing.assert_allclose(np.sort(one.score), np.sort(two.score), rtol=1e-5)


class Lists(Transform):
    """A list-wise step that trusts the order it is given: the first candidate stays first."""

    def __call__(self, run: Run) -> Run:
        return run.rescored(-run.rank.astype(np.float32), scorer="lists")


def test_candidate_order_moves_what_reads_lists(data: Dataset, bm25: BM25) -> None:
    report = robustness_report(
        bm25 >> Lists(), data, perturbations=[CandidateOrder()], resamples=100, permutations=100, k=20
    )
    assert report["candidate order"].drop.estimate > 0.1
    assert report["candidate order"].significant()
    with pytest.raises(RivalsError, match="only a pipeline with a reranker"):
        robustness_report(bm25, data, perturbations=[CandidateOrder()])


def test_a_weak_change_changes_few_queries(data: Dataset, bm25: BM25) -> None:
    table = {"symptoms": ["zzz"]}
    report = robustness_report(
        bm25, data, perturbations=[ReplaceSynonyms(table)], measure="RR@10", resamples=100, permutations=100
    )
    result = report["synonyms"]
    asked = [("symptoms" in text.lower()) for text in data.queries.texts]
    assert 0 < result.changed == sum(asked) < 60
    assert result.drop_changed * result.changed == pytest.approx(result.drop.estimate * 60)
    assert report.measure == "RR@10"


def test_what_is_refused(data: Dataset, bm25: BM25) -> None:
    nobody = Dataset(
        data.queries, data.documents, Judgements.build([0], [0], [0], queries=60, documents=len(data.documents))
    )

    def other_documents(queries: Collection, k: int) -> Run:
        return BM25(data.documents.take(range(5)), threads=1)(queries, k)

    for options, said in (
        ({"dataset": nobody}, "none of the 60 queries has a relevant document"),
        ({"perturbations": []}, "perturbations must be given"),
        ({"perturbations": [Typos(), Typos()]}, "each name once; got typos, typos"),
        ({"k": 0}, "k must be a whole number"),
        ({"repeats": 0}, "repeats must be"),
        ({"measure": "fame"}, "no measure is called 'fame'"),
        ({"system": lambda queries, k: None}, "the system returned NoneType"),
        ({"system": lambda queries, k: bm25(queries.take([0]), k)}, "not over the queries it was given"),
        ({"system": other_documents}, "different documents"),
    ):
        with pytest.raises(RivalsError, match=re.escape(said)):
            robustness_report(**{"system": bm25, "dataset": data, "perturbations": [Negate()]} | options)


@pytest.mark.parametrize("kind", ["late interaction", "list-wise"])
def test_second_stages_with_stored_tokens_follow_changed_documents(kind: str, data: Dataset, tmp_path: Path) -> None:
    """Nothing has to be given: token vectors of the new texts are made, those of the others kept."""
    encoder = Encoder.load(write_tiny_bert(tmp_path / "tiny"), device="cpu", dtype="float32")
    features, vectors = PairFeatures.build(encoder, data.documents)
    dense = Dense(encoder, data.documents, vectors=vectors, show_progress=False)
    shape = {"n_features": 18, "fc": (8,), "n_layers": 1, "heads": 2, "d_ff": 8}
    nine = np.zeros(9, np.float32)
    stage = (
        LateInteractionReranker(features, 0.5, 20)
        if kind == "late interaction"
        else ListwiseReranker(features, ContextRanker(**shape), shape, nine, nine + 1, 10.0, 20)  # type: ignore[arg-type]
    )
    system = dense >> stage
    report = robustness_report(
        system, data, perturbations=[PadPassages(1), NearDuplicates()], resamples=100, permutations=100, k=30
    )
    assert not report.left_out
    changed = PadPassages(1)(data, system(data.queries, 30), seed=1).documents
    made = rebuilt(system, changed)
    assert made.steps[0].features.weights is features.weights  # trained with these
    again = rebuilt(made, data.documents)(data.queries, 30)
    before = system(data.queries, 30)
    np.testing.assert_allclose(again.score, before.score, atol=2e-3)
    assert run_overlap(again, before).mean() > 0.97
