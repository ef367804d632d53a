"""Krippendorff's alpha against its definition and published values; thresholds that turn scores into labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.measures import OrdinalThresholds, krippendorff_alpha

N = np.nan
PUBLISHED = np.array(  # three coders, fifteen units, with gaps
    [
        [N, N, N, N, N, 3, 4, 1, 2, 1, 1, 3, 3, N, 3],
        [1, N, 2, 1, 3, 3, 4, 3, N, N, N, N, N, N, N],
        [N, N, 2, 1, 3, 4, 4, N, 2, 1, 1, 3, 3, N, 4],
    ]
)


def alpha_by_coincidences(ratings, level):
    """1 - D_o / D_e over the table of coincidences, as Krippendorff writes it."""
    values = np.unique(ratings[~np.isnan(ratings)])
    table = np.zeros((len(values), len(values)))
    for column in ratings.T:
        given = column[~np.isnan(column)]
        for i in range(len(given)):
            for j in range(len(given)):
                if i != j:
                    table[np.searchsorted(values, given[i]), np.searchsorted(values, given[j])] += 1 / (len(given) - 1)
    n = table.sum(0)
    distance = np.zeros_like(table)
    for c in range(len(values)):
        for k in range(len(values)):
            low, high = sorted((c, k))
            distance[c, k] = {
                "nominal": float(c != k),
                "interval": (values[c] - values[k]) ** 2,
                "ordinal": (n[low : high + 1].sum() - (n[c] + n[k]) / 2) ** 2 if c != k else 0.0,
            }[level]
    expected = (np.outer(n, n) - np.diag(n)) / max(n.sum() - 1, 1)
    return 1 - (table * distance).sum() / (expected * distance).sum()


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_by_its_definition(level):
    rng = np.random.default_rng(0)
    for _ in range(40):
        ratings = rng.integers(-2, 3, (rng.integers(2, 5), rng.integers(4, 12))).astype(float)
        ratings[rng.random(ratings.shape) < 0.3] = np.nan
        paired = ratings[:, (~np.isnan(ratings)).sum(0) > 1]
        if len(np.unique(paired[~np.isnan(paired)])) < 2:
            continue
        found = krippendorff_alpha(ratings, level=level)
        assert found == pytest.approx(alpha_by_coincidences(ratings, level))
        masked = krippendorff_alpha(np.nan_to_num(ratings, nan=99), ~np.isnan(ratings), level=level)
        assert masked == found
        assert krippendorff_alpha(torch.tensor(ratings), level=level).item() == found


def test_published_values():
    found = [krippendorff_alpha(PUBLISHED, level=level).item() for level in ("nominal", "interval", "ordinal")]
    assert found == pytest.approx([0.691358, 0.810845, 0.806722], abs=1e-6)


def test_properties():
    assert krippendorff_alpha(np.array([[1, 2, 3], [1, 2, 3]])) == 1
    # By hand, 2 coders x 5 units: 2 of 5 units differ; values occur 4 and 6 times of 10.
    two = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 0]])
    assert krippendorff_alpha(two, level="nominal") == pytest.approx(1 - 0.4 / (48 / 90))
    rng = np.random.default_rng(1)
    ratings = rng.integers(1, 5, (3, 30)).astype(float)
    assert abs(krippendorff_alpha(ratings)) < 0.25
    np.testing.assert_allclose(krippendorff_alpha(np.exp(ratings)), krippendorff_alpha(ratings))
    np.testing.assert_allclose(
        krippendorff_alpha(7 - 3 * ratings, level="interval"), krippendorff_alpha(ratings, level="interval")
    )
    alone = np.concatenate([ratings, np.array([[9.0], [N], [N]])], axis=1)
    np.testing.assert_allclose(krippendorff_alpha(alone), krippendorff_alpha(ratings))


@pytest.mark.parametrize("ratings", [np.ones((2, 3)), np.array([[1.0, N], [N, 2.0]]), np.zeros((2, 0))])
def test_undefined_is_nan_with_a_warning(ratings):
    with pytest.warns(RuntimeWarning, match="not defined"):
        assert np.isnan(krippendorff_alpha(ratings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratings": np.ones(3)}, "coders, units"),
        ({"ratings": np.array([[1.0, np.inf], [1.0, 2.0]])}, "infinite"),
        ({"ratings": np.ones((2, 2)), "level": "ratio"}, "level is 'ratio'"),
        ({"ratings": np.ones((2, 2)), "mask": np.ones((2, 3), dtype=bool)}, "mask"),
    ],
)
def test_bad_ratings_are_named(arguments, message):
    with pytest.raises(RivalsError, match=message):
        krippendorff_alpha(**arguments)


# ---------------------------------------------------------------------------------- thresholds


def test_thresholds_recover_a_clear_scale():
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 5, 300)
    scores = labels / 5 + rng.uniform(-0.09, 0.09, 300)
    cut = OrdinalThresholds(4, restarts=True).fit(scores, labels)
    assert cut.alpha == pytest.approx(1)
    np.testing.assert_array_equal(cut.predict(scores), labels)
    assert (np.diff(cut.thresholds) > 0).all()
    fresh = OrdinalThresholds(4).fit(torch.tensor(scores), torch.tensor(labels))
    assert fresh.alpha > 0.9


def test_restarts_never_lose_and_skewed_scores_need_them():
    rng = np.random.default_rng(3)
    labels = rng.integers(1, 5, 200)
    scores = np.exp(2.5 * (labels + rng.normal(0, 0.4, 200)))
    plain, again = (OrdinalThresholds(4, restarts=flag).fit(scores, labels).alpha for flag in (False, True))
    assert again > plain
    expected = krippendorff_alpha(np.stack([labels, OrdinalThresholds(4).fit(scores, labels).predict(scores)]))
    assert plain == pytest.approx(expected.item())


def test_two_labels_of_ones_own_and_closed_ends():
    cut = OrdinalThresholds((2, 4)).fit([0.1, 0.2, 0.8, 0.9], [2, 2, 4, 4])
    assert cut.predict([0.0, 1.0]).tolist() == [2, 4]
    cut.thresholds = np.array([0.5])
    assert cut.predict([0.5, 0.5000001]).tolist() == [2, 4]  # right-closed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OrdinalThresholds(1), "levels is 1"),
        (lambda: OrdinalThresholds((2, 1)), "rising"),
        (lambda: OrdinalThresholds(3).predict([0.1]), "call fit"),
        (lambda: OrdinalThresholds(3).fit([0.1, 0.2], [1]), "scores has 2 values and labels 1"),
        (lambda: OrdinalThresholds(3).fit([0.1, 0.2], [1, np.nan]), "labels must be"),
        (lambda: OrdinalThresholds(3).fit([0.1, 0.2], [1, 1]), "fewer than 2 distinct"),
    ],
)
def test_bad_use_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
