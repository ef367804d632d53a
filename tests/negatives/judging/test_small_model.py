"""The judges and writers over a real model, which is weak: what is tested is that the parts fit, not that it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.models.language.base import Prompt, Sampling
from rivals.models.language.completion_cache import CachedLanguageModel
from rivals.models.language.prompts import PromptTemplate
from rivals.negatives import KnownPositives
from rivals.negatives.generating import (
    WRITER_PROMPTS,
    PromptGenerator,
    TextChecks,
    query_groups,
    write_negatives,
    write_queries,
)
from rivals.negatives.judging import Cascade, GradedJudge, JudgeThreshold, LabelJudge, ListJudge, Verify, YesNoJudge
from tests.models.language.smollm import smollm2

SHORT = PromptTemplate.parse("Query: {query}\nText: {document}\nDoes the text answer the query? Yes or No:")
GRADE = PromptTemplate.parse("Query: {query}\nText: {document}\nGrade from 0 to 3:")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real model, its answers kept for the module."""
    with CachedLanguageModel(smollm2(), tmp_path_factory.mktemp("answers") / "answers.db") as cached:
        yield cached


@pytest.fixture(scope="module")
def data() -> Dataset:
    texts = ["Gout is a kind of arthritis.", "Gout is treated with rest.", "Flu is an infection.", "Rivers run down."]
    queries = Collection(["q0", "q1"], ["What is gout ?", "What is flu ?"], name="query")
    judgements = Judgements.build([0, 1], [0, 2], [1, 1], queries=2, documents=4)
    return Dataset(queries, Collection(["a", "b", "c", "d"], texts), judgements)


@pytest.fixture(scope="module")
def run(data: Dataset) -> Run:
    known = data.judgements.positives
    score = np.tile([0.9, 0.8, 0.7, 0.6], 2)
    made = Run.build(
        data.queries, data.documents, [0, 4, 8], np.tile(range(4), 2), score, positives=(known.offsets, known.document)
    )
    return KnownPositives()(made)


def test_yes_and_no_are_weighed_as_the_model_weighs_them(model, run):
    verdicts = YesNoJudge(model, SHORT).judge(run)
    assert verdicts.unreadable == 0
    assert ((verdicts.score > 0) & (verdicts.score < 1)).all()
    prompt: Prompt = SHORT.fill({"query": "What is gout ?", "document": "Gout is treated with rest."})
    yes, no = smollm2().option_log_probabilities([prompt], ["Yes", "No"])[0]
    place = int(np.flatnonzero((run.query == 0) & (run.document == 1))[0])
    assert verdicts.score[place] == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-4)
    turned = YesNoJudge(model, SHORT, yes="No", no="Yes", name="turned").judge(run)
    np.testing.assert_allclose(turned.score, 1 - verdicts.score, atol=1e-4)


def test_filters_and_a_cascade_over_the_model(model, run):
    people = LabelJudge({("q0", "b"): 1, ("q1", "b"): 0, ("q1", "a"): 0}, name="people")
    weighed = YesNoJudge(model, SHORT, name="weighed")
    marked = JudgeThreshold(weighed)(run)
    asked = run.label != 1
    assert not np.isnan(marked.target[asked]).any()
    assert np.isnan(marked.target[~asked]).all()
    report = Cascade([weighed, people], threshold=0.0).clean(run).report  # at 0 the model flags everything
    assert report.stages[0].flagged == 6
    assert report.stages[1].unknown == 3
    assert report.relabelled == 1
    before = model.usage.calls
    JudgeThreshold(weighed)(run)
    assert model.usage.calls == before  # every answer is on disk by now


def test_grades_and_lists(model, run):
    graded = GradedJudge(model, GRADE).judge(run)
    assert ((graded.score >= 0) & (graded.score <= 1)).all()
    assert len(set(graded.score.tolist())) > 1
    listed = ListJudge(model, sampling=Sampling(max_tokens=6), max_words=20).judge(run.take([0]))
    assert listed.asked == 1
    assert listed.unreadable in (0, 1)
    assert np.isnan(listed.score).all() == bool(listed.unreadable)


def test_negatives_are_written_and_kept(model, data, tmp_path):
    writer = PromptGenerator(model, sampling=Sampling(max_tokens=12, temperature=0.7))
    checks = TextChecks(shortest=None, longest=None)
    written = write_negatives(data, writer, n=1, retries=0, checks=checks, show=False)
    assert 1 <= written.report.kept <= 2
    texts = written.dataset.documents.texts[4:]
    assert all(text.strip() and text not in data.documents.texts for text in texts)
    source = written.source()(written.dataset, k=5)
    assert len(source) == written.report.kept
    before = model.usage.calls
    again = write_negatives(data, writer, n=1, retries=0, checks=checks, show=False)
    assert again.dataset.documents.texts[4:] == texts
    assert model.usage.calls == before  # no generation at all


def test_queries_are_written_and_verified(model, data):
    writer = PromptGenerator(
        model, WRITER_PROMPTS / "query_variants.txt", lines=True, sampling=Sampling(max_tokens=40, temperature=0.5)
    )
    loose = TextChecks(shortest=None, longest=None, overlap=None)
    written = write_queries(data, writer, n=2, checks=loose, show=False)
    prompts = [YesNoJudge(model, SHORT, name="one"), YesNoJudge(model, GRADE, name="two")]
    verified = Verify(prompts, threshold=0.99)(written.run)
    assert (verified.keep | np.array([bool(verified.reasons_of(row)) for row in range(len(verified))])).all()
    groups = query_groups(verified)
    assert (groups.label == 1).sum() == len(groups.offsets) - 1
