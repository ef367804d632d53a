"""Suspects by a complementary model (paper 114): the rule, the batch form it equals, laws, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Run
from rivals.errors import RivalsError
from rivals.losses import false_negative_weights
from rivals.negatives import KnownPositives
from rivals.negatives.complementary import Complementary
from rivals.negatives.vector_source import nearest_positive_cosine, row_blocks, vectors_of
from tests.negatives.given_vectors import searched


def pair(seed: int = 0, queries: int = 6, documents: int = 20):
    """Two retrievers over the same texts, of different vectors, and the dataset."""
    generator = np.random.default_rng(seed)
    positives = [sorted(generator.choice(documents, 1 + i % 3, replace=False).tolist()) for i in range(queries)]
    first, dataset = searched(generator.normal(size=(queries, 4)), generator.normal(size=(documents, 4)), positives)
    second, _ = searched(generator.normal(size=(queries, 5)), generator.normal(size=(documents, 5)), positives)
    second.name = "second"
    return first, second, dataset


def test_the_rule_against_the_batch_form():
    """The weights of a batch of pairs: a candidate is the positive of another query."""
    generator = np.random.default_rng(3)
    documents = generator.normal(size=(6, 3))
    first, dataset = searched(generator.normal(size=(6, 3)), documents, [[i] for i in range(6)])
    second, _ = searched(documents + generator.normal(size=(6, 3)) * 0.5, documents, [[i] for i in range(6)])
    run = first(dataset, 6)
    rule = Complementary(second, 0.6, action="weight")
    weight = np.zeros((6, 6), np.float32)
    marked = rule(run)
    weight[run.query, run.document] = marked.weight
    vectors = [torch.from_numpy(v) for v in (second.query_vectors(dataset.queries), second.vectors)]
    assert np.array_equal(weight, false_negative_weights(*vectors, threshold=0.6).numpy())
    assert marked.keep.all()
    assert np.array_equal(marked.where_reason(rule.reason), marked.weight == 0)


def test_thresholds_of_the_card(make_run):
    """Checks 3 and 6: all below, all above, and a positive that is never marked."""
    first, second, dataset = pair()
    run = first(dataset, 20)
    known = ~KnownPositives()(run).keep
    assert Complementary(second, 1.0)(run).keep.all()
    everything = Complementary(second, -1.0)(run)
    assert np.array_equal(everything.keep, known)


def test_to_the_positive():
    first, second, dataset = pair(1)
    run = first(dataset, 20)
    unit = second.vectors / np.linalg.norm(second.vectors, axis=1, keepdims=True)
    rule = Complementary(second, 0.3, to="positive")
    similarity = rule.similarity(run)
    for row in range(len(run)):
        query = run.query[row]
        own = run.positive[run.positive_offsets[query] : run.positive_offsets[query + 1]]
        assert similarity[row] == pytest.approx((unit[own] @ unit[run.document[row]]).max(), abs=1e-5)
    known = ~KnownPositives()(run).keep
    assert similarity[known] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(~rule(run).keep, (similarity > 0.3) & ~known)
    assert rule.reason == "second to positive above 0.3"


def test_without_positives_nothing_is_near_them():
    first, second, dataset = pair(2)
    run = first(dataset.queries, 5)
    assert (nearest_positive_cosine(run, second.vectors) == -np.inf).all()
    assert Complementary(second, -1.0, to="positive")(run).keep.all()


def test_a_vector_of_zeros_is_near_nothing():
    first, _, dataset = pair(2)
    run = first(dataset, 20)
    vectors = np.array(first.vectors)
    vectors[run.positive[0]] = 0
    cosine = nearest_positive_cosine(run, vectors)
    assert np.isfinite(cosine).all()
    assert (cosine[run.query == 0] == 0).all()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 50),
    st.floats(-0.9, 0.9),
    st.sampled_from(["query", "positive"]),
    st.sampled_from(["drop", "weight"]),
)
def test_laws(seed, threshold, to, action):
    first, second, dataset = pair(seed)
    run = first(dataset, 12)
    rule = Complementary(second, threshold, to=to, action=action, weight=0.5)
    once = rule(run)
    twice, other, before = rule(once), KnownPositives()(run), KnownPositives()(once)
    for name in ("keep", "weight", "document", "reason"):
        assert np.array_equal(getattr(twice, name), getattr(once, name))
    assert np.array_equal(rule(other).keep, before.keep)
    assert np.array_equal(rule(other).weight, before.weight)
    part = rule(first(dataset.take([5, 0]), 12))
    assert np.array_equal(part.keep, once.take([5, 0]).keep)
    assert np.array_equal(once.document, run.document)
    lower = Complementary(second, threshold - 0.1, to=to)(run)
    assert (lower.keep <= Complementary(second, threshold, to=to)(run).keep).all()


def test_features_and_functions(make_run):
    run = make_run([[0.9, 0.8, 0.7]], features={"cross": [3.0, 9.0, 1.0]})
    assert Complementary("cross", 2.5)(run).keep.tolist() == [False, False, True]

    def judged(run: Run) -> list[float]:
        return [0.0, 1.0, 0.0]

    marked = Complementary(judged, 0.5)(run)
    assert marked.reasons_of(1) == ["judged to query above 0.5"]
    assert repr(Complementary(judged, 0.5)) == "Complementary(judged, 0.5, to='query', action='drop')"


def test_bad_input(make_run):
    first, second, dataset = pair()
    run = make_run([[0.9, 0.8]])
    for call, message in (
        (lambda: Complementary(second, 1.5), r"threshold must be in \[-1, 1\], as cosines are"),
        (lambda: Complementary("x", float("nan")), "threshold must be a finite number"),
        (lambda: Complementary("x", 0.5, to="document"), "to must be"),  # type: ignore[arg-type]
        (lambda: Complementary("x", 0.5, action="delete"), "action must be"),  # type: ignore[arg-type]
        (lambda: Complementary("x", 0.5, weight=-1.0), "weight must be"),
        (lambda: Complementary("x", 0.5, to="positive"), "x gives no vectors to compare with positives"),
        (lambda: Complementary(3, 0.5), "3 scores no candidates"),  # type: ignore[arg-type]
        (lambda: Complementary(second)(run), "over different documents"),
        (lambda: Complementary(second, to="positive")(run), "over different documents"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()

    class Wide:
        documents, vectors = second.documents, second.vectors

        def query_vectors(self, queries):
            return np.zeros((len(queries), 2), np.float32)

    with pytest.raises(
        RivalsError, match=r"the query vectors have shape \(6, 2\) for 6 queries and document vectors of width 5"
    ):
        vectors_of(first(dataset, 3), Wide())
    assert [part.stop for part in row_blocks(5, 1 << 22)] == [2, 4, 5]
