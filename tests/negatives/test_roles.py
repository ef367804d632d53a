"""Swapping roles."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Run
from rivals.negatives import KnownPositives, PositiveAware, swap_roles


def same(one: Run, other: Run) -> None:
    for field in fields(Run):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f"), field.name
        elif field.name == "features":
            assert left.keys() == right.keys()
            assert all(np.array_equal(left[name], right[name], equal_nan=True) for name in left)
        else:
            assert left == right or left is right, field.name


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_swapping_twice_is_the_identity(make_run, queries, documents, seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (queries, documents)) / 4
    positives = [np.flatnonzero(row).tolist()[:2] for row in generator.random((queries, documents)) < 0.4]
    run = make_run(scores, positives, features={"other": generator.random(queries * documents)}, seed=7)
    run = run.select(generator.random(len(run)) < 0.7)
    run = PositiveAware(relative=0.05, without_positive="keep")(KnownPositives()(run))
    run = run.replace(weight=generator.random(len(run)), version=3)
    same(swap_roles(swap_roles(run)), run)


def test_swapped_run_ranks_queries_for_documents(make_run):
    run = swap_roles(make_run([[0.9, 0.1], [0.5, 0.6]], [[0], [0, 1]]))
    assert run.documents.ids[run.document].tolist() == ["q0", "q1", "q1", "q0"]
    assert run.score.round(3).tolist() == np.float32([0.9, 0.5, 0.6, 0.1]).round(3).tolist()
    assert run.positive_offsets.tolist() == [0, 2, 3]
    assert run.positive.tolist() == [0, 1, 1]
    assert run.positive_score.round(3).tolist() == np.float32([0.9, 0.5, 0.6]).round(3).tolist()
