"""Uniting and fusing runs keeps what filters said about the candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.data.marks import merge_features, merge_marks
from rivals.errors import RivalsError
from rivals.negatives import LinkSource, PositiveAware
from rivals.retrieve import BM25, ReciprocalRankFusion, WeightedFusion, fuse_reciprocal_rank

QUERIES, DOCUMENTS = Collection(["q"], name="query"), Collection(["a", "b", "c"])


def run_of(documents: list[int], scorer: str, **columns: list[object]) -> Run:
    scores = -np.arange(len(documents), dtype=float)
    return Run.build(QUERIES, DOCUMENTS, [0, len(documents)], documents, scores, scorer=scorer, columns=columns)


def fused(one: Run, two: Run) -> Run:
    return fuse_reciprocal_rank([one, two])


def by_document(run: Run, column: str) -> dict[str, object]:
    return dict(zip(run.documents.ids[run.document].tolist(), getattr(run, column).tolist(), strict=True))


def test_each_column_joins_by_its_rule() -> None:
    one = run_of([0, 1], "one", keep=[True, False], weight=[0.5, 1], label=[-1, 1], target=[0.2, np.nan])
    two = run_of([1, 2], "two", keep=[True, False], weight=[0.25, 2.0], label=[0, -1], fn_probability=[0.1, 0.9])
    run = fused(one, two)
    assert by_document(run, "keep") == {"a": True, "b": False, "c": False}
    assert by_document(run, "weight") == {"a": 0.5, "b": 0.25, "c": 2.0}
    assert by_document(run, "label") == {"a": -1, "b": 1, "c": -1}
    np.testing.assert_allclose([by_document(run, "target")[d] for d in "abc"], [0.2, np.nan, np.nan])  # type: ignore[arg-type]
    np.testing.assert_allclose([by_document(run, "fn_probability")[d] for d in "abc"], [np.nan, 0.1, 0.9])  # type: ignore[arg-type]


def test_reasons_of_both_runs_stay_though_their_bits_differ() -> None:
    one = run_of([0, 1], "one").mark(np.array([True, True]), "near").mark(np.array([False, True]), "judge")
    two = run_of([1, 2], "two").mark(np.array([True, False]), "duplicate").mark(np.array([False, True]), "near")
    run = fused(one, two)
    found = {d: set(run.reasons_of(i)) for i, d in enumerate(run.documents.ids[run.document].tolist())}
    assert found == {"a": {"near"}, "b": {"near", "judge", "duplicate"}, "c": {"near"}}
    assert not run.keep.any()


def test_more_reasons_than_a_run_holds_are_refused() -> None:
    one, two = run_of([0], "one"), run_of([1], "two")
    for i in range(40):
        one, two = one.mark(np.array([True]), f"one {i}"), two.mark(np.array([True]), f"two {i}")
    with pytest.raises(RivalsError, match="80 different reasons; a run holds at most 64"):
        merge_marks([one, two], [np.array([0]), np.array([1])], 2)


def test_runs_without_marks_bring_no_columns() -> None:
    assert merge_marks([run_of([0], "one"), run_of([1], "two")], [np.array([0]), np.array([1])], 2) == ({}, ())


marks = st.lists(st.tuples(st.booleans(), st.sampled_from([-1, 0, 1])), min_size=3, max_size=3)


@given(marks, marks)
def test_merging_does_not_depend_on_order_and_a_run_twice_changes_nothing(
    first: list[tuple[bool, int]], second: list[tuple[bool, int]]
) -> None:
    one, two = (
        run_of([0, 1, 2], name, keep=[k for k, _ in marked], label=[label for _, label in marked])
        for name, marked in (("one", first), ("two", second))
    )
    place = np.arange(3)
    there, back = merge_marks([one, two], [place, place], 3)[0], merge_marks([two, one], [place, place], 3)[0]
    alone, twice = merge_marks([one], [place], 3)[0], merge_marks([one, one], [place, place], 3)[0]
    for left, right in ((there, back), (alone, twice)):
        assert left.keys() == right.keys()
        assert all((left[name] == right[name]).all() for name in left)


def test_the_first_run_that_knows_a_feature_counts() -> None:
    one = Run.build(QUERIES, DOCUMENTS, [0, 2], [0, 1], [2, 1], scorer="one", features={"length": [7, np.nan]})
    two = Run.build(QUERIES, DOCUMENTS, [0, 2], [1, 2], [2, 1], scorer="two", features={"length": [8, 9]})
    places = [one.document, two.document]
    assert merge_features([one, two], places, 3)["length"].tolist() == [7, 8, 9]


@pytest.fixture
def medical() -> tuple[Dataset, BM25, BM25]:
    documents = Collection(["a", "b", "c"], ["a heart attack", "heart attacks hurt", "a broken heart"])
    queries = Collection(["q"], ["heart attack"], name="query")
    dataset = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=1, documents=3))
    return dataset, BM25(documents, name="stemmed"), BM25(documents, stem=False, name="plain")


def test_a_filtered_member_keeps_its_marks_in_a_union(medical: tuple[Dataset, BM25, BM25]) -> None:
    dataset, stemmed, plain = medical
    filtered = stemmed >> PositiveAware(relative=0.05)
    alone, united = filtered(dataset), (filtered | plain)(dataset)
    marked = set(alone.documents.ids[alone.document[~alone.keep]].tolist())
    assert marked
    assert set(united.documents.ids[united.document[~united.keep]].tolist()) == marked
    assert united.reasons == alone.reasons


@pytest.mark.parametrize("weighted", [False, True])
def test_fusions_hand_the_data_set_to_their_operands(medical: tuple[Dataset, BM25, BM25], weighted: bool) -> None:
    """Walks through links start from a query's positives, so without the data set they have nothing to say."""
    dataset, _, plain = medical
    walk = LinkSource(dataset.documents, np.eye(3), ([0, 1, 2, 2], [1, 2]), lambda queries: np.ones((len(queries), 3)))
    operands = [walk, plain >> PositiveAware(relative=0.05)]
    fusion = WeightedFusion(operands, [0.5, 0.5]) if weighted else ReciprocalRankFusion(operands)
    run = fusion(dataset, k=3)
    assert not np.isnan(run.features["walk"]).all()
    assert run.positive.tolist() == [0]
    assert np.isfinite(run.positive_score).all()
    assert (~run.keep).any()
