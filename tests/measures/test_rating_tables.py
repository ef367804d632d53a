"""Tables of two raters: against scikit-learn, our own alpha of raw ratings, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rivals.errors import RivalsError
from rivals.measures import cohen_kappa, krippendorff_alpha
from rivals.measures.rating_tables import kappa_of_tables, ordinal_alpha_of_tables

ratings = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)


@settings(max_examples=80, deadline=None)
@given(ratings)
def test_kappa_as_scikit_learn_has_it(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs).T
    for weights in ("none", "linear", "quadratic"):
        ours = cohen_kappa(one, other, weights=weights, categories=4)
        if len(set(one) | set(other)) == 1:
            assert math.isnan(ours)
            continue
        theirs = cohen_kappa_score(one, other, weights=None if weights == "none" else weights, labels=[0, 1, 2, 3])
        assert ours == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(ratings)
def test_alpha_of_a_table_is_that_of_its_ratings(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs).T
    table = np.bincount(one * 4 + other, minlength=16).reshape(4, 4)
    if len(set(one) | set(other)) == 1:
        assert np.isnan(ordinal_alpha_of_tables(table))
    else:
        assert ordinal_alpha_of_tables(table) == pytest.approx(krippendorff_alpha(np.stack([one, other])), abs=1e-12)


def test_many_tables_at_once_are_the_tables_one_by_one() -> None:
    tables = np.random.default_rng(0).integers(0, 9, (2, 5, 3, 3))
    for of_tables in (kappa_of_tables, ordinal_alpha_of_tables):
        together = of_tables(tables)
        assert together.shape == (2, 5)
        apart = [of_tables(table) for table in tables.reshape(-1, 3, 3)]
        np.testing.assert_allclose(together.reshape(-1), apart)


def test_kappa_by_hand() -> None:
    # agree on 2 of 4; chance: 1/4 * 1/2 + 3/4 * 1/2
    assert cohen_kappa([1, 0, 0, 0], [1, 1, 1, 0]) == pytest.approx(1 - (2 / 4) / (1 - (1 / 4 * 3 / 4 + 3 / 4 * 1 / 4)))
    assert cohen_kappa([0, 1, 2], [0, 1, 2], weights="quadratic") == 1.0
    assert cohen_kappa([0, 1], [1, 0]) == -1.0


@pytest.mark.parametrize(
    ("one", "other", "options", "message"),
    [
        ([0], [0, 1], {}, "rate the same things"),
        ([], [], {}, "one at least"),
        ([0.5], [0], {}, "whole numbers from 0"),
        ([0, 3], [0, 1], {"categories": 3}, "below the number of categories"),
        ([0, 1], [0, 1], {"weights": "cubic"}, "'none', 'linear' or 'quadratic', not 'cubic'"),
    ],
)
def test_bad_ratings_are_refused(
    one: list[float], other: list[float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(RivalsError, match=message):
        cohen_kappa(one, other, **options)  # type: ignore[arg-type]
