"""`Run.build`: candidates that come in order already take a short cut, which must not show."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals import lists
from rivals.data import Collection, Run
from rivals.data.collection import normalise_text
from rivals.errors import DataError

DOCUMENTS = Collection([f"d{i}" for i in (3, 11, 2, 7, 1, 10, 4)])


@st.composite
def candidates(draw):
    sizes = draw(st.lists(st.integers(0, len(DOCUMENTS)), min_size=1, max_size=4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offsets = lists.offsets_from_lengths(sizes)
    document = np.concatenate([generator.permutation(len(DOCUMENTS))[:size] for size in sizes]).astype(np.int64)
    return offsets, document, generator.integers(0, 3, len(document)).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(candidates())
def test_sorted_input_gives_the_same_run(case):
    offsets, document, score = case
    queries = Collection([f"q{i}" for i in range(len(offsets) - 1)], name="query")
    feature = np.arange(len(document), dtype=np.float32)
    run = Run.build(queries, DOCUMENTS, offsets, document, score, features={"f": feature})
    order = lists.rank_order(score, DOCUMENTS.tie_order[document], offsets)
    assert lists.is_rank_order(run.score, DOCUMENTS.tie_order[run.document], offsets)
    assert lists.is_rank_order(score, DOCUMENTS.tie_order[document], offsets) == (order == np.arange(len(order))).all()
    again = Run.build(queries, DOCUMENTS, offsets, run.document, run.score, features=run.features)
    for one in (run, again):
        assert (one.document == document[order]).all()
        assert (one.score == score[order]).all()
        assert (one.features["f"] == feature[order]).all()


def test_a_run_does_not_share_memory_with_its_input():
    document, score = np.array([0, 1]), np.array([0.9, 0.8], dtype=np.float32)
    run = Run.build(Collection(["q"]), DOCUMENTS, [0, 2], document, score)
    score[:] = 0
    document[:] = 5
    assert run.document.tolist() == [0, 1]
    assert run.score[0] == np.float32(0.9)


@pytest.mark.parametrize("score", [[0.9, 0.8, 0.7], [0.7, 0.9, 0.8]])
def test_a_document_twice_is_named_in_any_order(score):
    with pytest.raises(DataError, match="query 'q' lists document 'd11' twice"):
        Run.build(Collection(["q"]), DOCUMENTS, [0, 3], [1, 0, 1], score)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.one_of(st.sampled_from(list("aA zZ\t\n\x1f\x7f.ß")), st.characters(codec="utf-8")), max_size=20)
)
def test_the_quick_way_to_normalise_is_the_long_way(text):
    assert normalise_text(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def test_text_groups_number_equal_texts_alike():
    groups = Collection(["a", "b", "c", "d"], ["One", "two", "one ", "TWO"]).text_groups
    assert groups.tolist() == [0, 1, 0, 1]
