"""Nearest-neighbour noise cleaning: the card's toys, laws, and planted and real noise with known truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.negatives.label_noise import characterise_noise, out_of_fold_predictions
from rivals.negatives.neighbour_noise import NeighbourCleaner


def cleaner(strategy="intrinsic", **options):
    return NeighbourCleaner(strategy, **{"neighbours": 1, "metric": "euclidean"} | options)


def quietly(call, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call(*arguments, **options)


# -------------------------------------------------------------------------------------------------------- the card's toys


def test_extrinsic_toy():
    found = cleaner("extrinsic").find([[0.0], [10.0], [0.1], [9.9]], [0, 1, 0, 0], clean=[0, 1])
    assert (found.index.tolist(), found.proposed.tolist(), found.evidence.tolist()) == ([3], [1], [1])
    assert found.score.tolist() == [1.0]
    assert found.distance.tolist() == pytest.approx([0.1])


def test_intrinsic_toy():
    arguments = ([[10.0], [9.8], [0.0]], [1, 0, 0])
    found = cleaner().find(*arguments, predictions=[0, 0, 0])
    assert (found.index.tolist(), found.proposed.tolist(), found.evidence.tolist()) == ([1], [1], [0])
    cleaned = quietly(cleaner(action="relabel").apply, *arguments, predictions=[0, 0, 0])
    assert cleaned.labels.tolist() == [1, 1, 0]
    assert cleaned.keep.all()
    dropped = quietly(cleaner().apply, *arguments, predictions=[0, 0, 0])
    assert dropped.keep.tolist() == [True, False, True]
    assert dropped.labels.tolist() == [1, 0, 0]


def test_without_a_missed_positive_nothing_is_removed():
    with pytest.warns(UserWarning, match="no positive is predicted negative"):
        found = cleaner().find([[10.0], [9.8], [0.0]], [1, 0, 0], predictions=[1, 0, 0])
    assert len(found) == 0


def test_scope_all_also_doubts_positives_and_may_propose_the_negative_class():
    vectors, labels = [[0.0], [10.0], [20.0], [0.2], [19.7], [9.8]], [0, 1, 2, 1, 1, 1]
    found = cleaner("extrinsic", scope="all").find(vectors, labels, clean=[0, 1, 2])
    assert found.index.tolist() == [3, 4]
    assert found.proposed.tolist() == [0, 2]
    assert len(cleaner("extrinsic").find(vectors, labels, clean=[0, 1, 2])) == 0


def test_ties_between_labels_are_no_majority_and_agreement_is_a_share():
    vectors, labels = [[0.0], [1.0], [2.0], [1.1]], [1, 1, 0, 0]
    assert len(cleaner("extrinsic", neighbours=2, agreement=0.5).find(vectors, labels, clean=[1, 2])) == 0
    for agreement, expected in ((0.6, [3]), (2 / 3, [3]), (0.7, [])):
        found = cleaner("extrinsic", neighbours=3, agreement=agreement).find(vectors, labels, clean=[0, 1, 2])
        assert found.index.tolist() == expected


def test_more_misread_positives_point_more_strongly():
    vectors, labels = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.05], [0.0, 1.1]], [1, 1, 2, 0, 0]
    found = NeighbourCleaner(neighbours=1).find(vectors, labels, predictions=[0] * 5)
    assert found.index.tolist() == [3, 4]
    unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found.score, [unit[3] @ unit[0] + unit[3] @ unit[1], 1.0])
    assert found.proposed.tolist() == [1, 2]
    weighted = quietly(NeighbourCleaner(neighbours=1, action="weight").apply, vectors, labels, predictions=[0] * 5)
    np.testing.assert_allclose(weighted.weight[3:], 1 / (1 + found.score), rtol=1e-6)
    assert weighted.keep.all()


def test_weights_of_the_extrinsic_strategy_are_what_disagrees():
    vectors, labels = [[0.0], [1.0], [2.0], [1.1]], [1, 1, 0, 0]
    rule = cleaner("extrinsic", neighbours=3, action="weight")
    cleaned = quietly(rule.apply, vectors, labels, clean=[0, 1, 2])
    np.testing.assert_allclose(cleaned.weight, [1, 1, 1, 1 / 3], rtol=1e-6)


def test_max_share_takes_the_strongest_and_reports_the_rest():
    vectors = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.05], [0.0, 1.1], [-1.0, -1.0], [-1.0, -0.9]]
    cleaned = NeighbourCleaner(neighbours=1, max_share=0.25).apply(vectors, [1, 1, 2, 0, 0, 0, 0], predictions=[0] * 7)
    assert np.flatnonzero(~cleaned.keep).tolist() == [3]
    assert cleaned.report == {
        "items": 7,
        "negatives": 4,
        "suspects": 2,
        "altered": 1,
        "left by max_share": 1,
        "share of negatives altered": 0.25,
    }
    with pytest.warns(UserWarning, match="50% of the negatives are suspects"):
        NeighbourCleaner(neighbours=1).apply(vectors, [1, 1, 2, 0, 0, 0, 0], predictions=[0] * 7)


def test_labels_may_be_names():
    cleaned = quietly(
        cleaner(action="relabel", negative_label="no").apply,
        [[10.0], [9.8], [0.0]],
        ["founder of", "no", "no"],
        predictions=["no", "no", "no"],
    )
    assert cleaned.labels.tolist() == ["founder of", "founder of", "no"]


# --------------------------------------------------------------------------------------------------------------- laws


@st.composite
def data(draw):
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = draw(st.integers(12, 40))
    vectors = generator.integers(-3, 4, (count, 3)) + 0.5  # duplicates happen
    labels = generator.integers(0, 3, count)
    labels[:6] = [0, 0, 0, 0, 1, 2]
    predictions = np.where(generator.random(count) < 0.5, 0, labels)
    predictions[4] = 0
    return vectors, labels, predictions, np.arange(0, count, 3)


@settings(max_examples=60, deadline=None)
@given(data(), st.sampled_from(["cosine", "euclidean"]), st.integers(1, 4))
def test_suspects_are_sorted_unique_and_where_they_may_be(case, metric, neighbours):
    vectors, labels, predictions, clean = case
    intrinsic = NeighbourCleaner(neighbours=neighbours, metric=metric).find(vectors, labels, predictions=predictions)
    assert (np.diff(intrinsic.index) > 0).all()
    assert (labels[intrinsic.index] == 0).all()
    assert (labels[intrinsic.evidence] == intrinsic.proposed).all()
    assert (predictions[intrinsic.evidence] == 0).all()
    for scope in ("negatives", "all"):
        rule = NeighbourCleaner("extrinsic", neighbours=neighbours, metric=metric, scope=scope, agreement=0.5)
        found = rule.find(vectors, labels, clean=clean)
        assert (np.diff(found.index) > 0).all()
        assert not np.isin(found.index, clean).any()
        assert (labels[found.index] != found.proposed).all()
        assert np.isin(found.evidence, clean).all()
        assert scope == "all" or (labels[found.index] == 0).all()
        strict = NeighbourCleaner("extrinsic", neighbours=neighbours, metric=metric, scope=scope, agreement=1.0)
        assert np.isin(strict.find(vectors, labels, clean=clean).index, found.index).all()
        near = NeighbourCleaner(
            "extrinsic", neighbours=neighbours, metric=metric, scope=scope, agreement=0.5, max_distance=0.4
        ).find(vectors, labels, clean=clean)
        assert set(near.index) <= set(found.index)
        assert (near.distance < 0.4).all()


@settings(max_examples=40, deadline=None)
@given(data(), st.integers(0, 10**6))
def test_the_order_of_the_items_does_not_matter(case, seed):
    generator = np.random.default_rng(seed)
    vectors, labels, predictions, clean = case
    vectors = vectors + 0.01 * generator.standard_normal(vectors.shape)  # no ties
    order = generator.permutation(len(labels))
    where = np.argsort(order)
    for rule, more, moved in (
        (NeighbourCleaner(neighbours=2), {"predictions": predictions}, {"predictions": predictions[order]}),
        (NeighbourCleaner("extrinsic", neighbours=3), {"clean": clean}, {"clean": where[clean]}),
    ):
        one, two = rule.find(vectors, labels, **more), rule.find(vectors[order], labels[order], **moved)
        assert sorted(order[two.index].tolist()) == one.index.tolist()
        back = np.argsort(order[two.index])
        assert (two.proposed[back] == one.proposed).all()
        np.testing.assert_allclose(two.score[back], one.score)


def test_neighbours_equal_a_plain_search():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((200, 6)) + 3
    labels = (np.arange(200) % 4 == 0).astype(int)
    predictions = np.zeros(200, int)
    for metric in ("cosine", "euclidean"):
        found = NeighbourCleaner(neighbours=3, metric=metric).find(vectors, labels, predictions=predictions)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        distance = (
            1 - unit @ unit.T if metric == "cosine" else np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
        )
        negatives = np.flatnonzero(labels == 0)
        expected = np.unique(negatives[np.argsort(distance[labels == 1][:, negatives], axis=1)[:, :3]])
        assert found.index.tolist() == expected.tolist()
    limit = NeighbourCleaner(neighbours=3, metric="euclidean", max_distance="median")
    typical = np.median([distance[i, j] for i in range(200) for j in range(i) if labels[i] == labels[j]])
    found = limit.find(vectors, labels, predictions=predictions)
    assert (found.distance < 1.05 * typical).all()


# ------------------------------------------------------------------------------------------------------ characterising


def test_noise_of_a_confusion_by_hand():
    table = characterise_noise([1, 1, 0, 0, 2], [0, 1, 2, 0, 1])
    assert (table.items, table.errors) == (5, 3)
    assert (table.false_negatives, table.false_positives, table.confused) == (1, 1, 1)
    assert table.classes.tolist() == [0, 1, 2]
    assert table.per_class.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_folds_hold_every_item_once_and_classes_evenly():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 5)
    seen = []

    def fit(features, given):
        assert np.bincount(given, minlength=3).tolist() == [40, 8, 4]

        def predict(held):
            assert not set(held[:, 0]) & set(features[:, 0])
            seen.extend(held[:, 0].tolist())
            return held[:, 0]

        return predict

    features = np.arange(65)[:, None]
    found = out_of_fold_predictions(fit, features, labels)
    assert sorted(seen) == list(range(65))
    assert found.tolist() == list(range(65))
    again = out_of_fold_predictions(fit, features, labels, seed=0)
    assert (again == found).all()


# ------------------------------------------------------------------------------------------- planted and real noise


def micro_f1(truth, predicted):
    right = ((truth == predicted) & (truth != 0)).sum()
    return 2 * right / ((predicted != 0).sum() + (truth != 0).sum())


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def logistic(features, labels):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=200).fit(features / 16, labels)
    return lambda asked: model.predict(asked / 16)


def test_the_cards_experiment_on_digits(digits):
    """0 is "no relation", 30 % of the others are called 0 in training: cleaning must give back most of what is lost."""
    features, truth = digits
    gains, figures = [], {"precision": [], "recall": [], "extrinsic precision": [], "extrinsic recall": []}
    for seed in (0, 1):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(truth))
        train, test = order[:1200], order[1200:]
        x, clean_labels = features[train], truth[train]
        flipped = (clean_labels != 0) & (generator.random(1200) < 0.3)
        noisy = np.where(flipped, 0, clean_labels)
        predictions = out_of_fold_predictions(logistic, x, noisy, folds=3, seed=seed)
        table = characterise_noise(noisy, predictions)
        assert table.false_negatives + table.false_positives > 0.8 * table.errors  # the noise is around 0
        verified = generator.permutation(1200)[:120]
        known = noisy.copy()
        known[verified] = clean_labels[verified]

        def score(labels, keep=slice(None), x=x, test=test):
            return micro_f1(truth[test], logistic(x[keep], labels[keep])(features[test]))

        inner = quietly(NeighbourCleaner().apply, x, noisy, predictions=predictions)
        outer = quietly(NeighbourCleaner("extrinsic").apply, x, known, clean=verified)
        relabelled = quietly(NeighbourCleaner("extrinsic", action="relabel").apply, x, known, clean=verified)
        gains.append(
            [
                score(inner.labels, inner.keep) - score(noisy),
                score(outer.labels, outer.keep) - score(noisy),
                score(relabelled.labels) - score(noisy),
            ]
        )
        for name, found in (("", inner), ("extrinsic ", outer)):
            hit = flipped[found.suspects.index]
            figures[f"{name}precision"].append(hit.mean())
            figures[f"{name}recall"].append(hit.sum() / (flipped & (noisy == 0)).sum())
    assert np.mean(gains, axis=0).min() > 0.04
    assert np.mean(figures["precision"]) > 0.9
    assert np.mean(figures["recall"]) > 0.8
    assert np.mean(figures["extrinsic precision"]) > 0.95
    assert np.mean(figures["extrinsic recall"]) > 0.75


def test_without_noise_cleaning_costs_little(digits):
    features, truth = digits
    order = np.random.default_rng(5).permutation(len(truth))
    train, test = order[:1200], order[1200:]
    predictions = out_of_fold_predictions(logistic, features[train], truth[train], folds=3)
    cleaned = quietly(NeighbourCleaner().apply, features[train], truth[train], predictions=predictions)
    before = micro_f1(truth[test], logistic(features[train], truth[train])(features[test]))
    after = micro_f1(truth[test], logistic(features[train][cleaned.keep], truth[train][cleaned.keep])(features[test]))
    assert after > before - 0.01


def test_real_label_errors_of_sick(shared_data):
    """Pairs called NEUTRAL whose label linguists corrected, by 2,000 verified pairs and features of the words.

    The intrinsic strategy has nothing to offer here: it trusts the positives, and in SICK more of them are wrong (237
    false entailments) than of the negatives.
    """
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    table = pq.read_table(shared_data / "sick" / "pairs.parquet").to_pydict()
    label, corrected = np.array(table["label"]), np.array(table["label_corrected"])
    pairs = [
        [set(text.lower().split()) for text in pair]
        for pair in zip(table["sentence1"], table["sentence2"], strict=True)
    ]
    negation = {"no", "not", "nobody", "without"}
    counts = [[len(a - b), len(b - a), len(a & b), 3 * bool(negation & (a ^ b))] for a, b in pairs]
    features = np.column_stack([np.array(counts, float), 2 * np.array(table["score"])])
    wrong = (label == "NEUTRAL") & (corrected != "NEUTRAL")
    verified = np.random.default_rng(0).permutation(len(label))[:2000]
    known = label.copy()
    known[verified] = corrected[verified]
    left = wrong.copy()
    left[verified] = False
    options = {"negative_label": "NEUTRAL", "metric": "euclidean"}
    found = NeighbourCleaner("extrinsic", **options).find(features, known, clean=verified)
    base = left.sum() / ((known == "NEUTRAL").sum() - (known[verified] == "NEUTRAL").sum())
    assert left.sum() > 100
    assert left[found.index].mean() > 3 * base  # measured: 4.3 times
    assert left[found.index].sum() > 0.35 * left.sum()  # measured: 46 % of them

    def fit(x, y):
        return LogisticRegression(max_iter=500, class_weight="balanced").fit(x, y).predict

    predictions = out_of_fold_predictions(fit, features, label, folds=2)
    inner = NeighbourCleaner(neighbours=3, **options).find(features, label, predictions=predictions)
    assert wrong[inner.index].mean() < left[found.index].mean() / 2


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "both"}, "strategy must be one of"),
        ({"action": "delete"}, "action must be one of"),
        ({"scope": "all"}, "needs strategy 'extrinsic'"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"neighbours": 0}, "neighbours must be a whole number"),
        ({"agreement": 0.0}, r"agreement must lie in \(0, 1\]"),
        ({"max_share": 2.0}, r"max_share must lie in \(0, 1\]"),
        ({"max_distance": "mean"}, "max_distance must be"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(RivalsError, match=said):
        NeighbourCleaner(**options)


def test_arguments_that_do_not_fit():
    vectors, labels = [[1.0], [2.0], [3.0]], [1, 0, 0]
    for rule, more, said in (
        (cleaner(negative_label=7), {"predictions": labels}, "no item has the negative label 7"),
        (cleaner(), {}, "needs predictions"),
        (cleaner(), {"predictions": [0]}, "do not pair up"),
        (cleaner("extrinsic"), {}, "needs clean"),
        (cleaner("extrinsic"), {"clean": [5]}, "clean names row 5"),
        (cleaner("extrinsic", neighbours=2), {"clean": [0]}, "only 1 items to choose from"),
        (cleaner(neighbours=3), {"predictions": [0, 0, 0]}, "only 2 items to choose from"),
    ):
        with pytest.raises(RivalsError, match=said):
            rule.find(vectors, labels, **more)
    with pytest.raises(RivalsError, match="one row a label"):
        cleaner().find([[1.0], [np.nan]], [0, 1], predictions=[0, 0])
    with pytest.raises(RivalsError, match="has length 0"):
        NeighbourCleaner(neighbours=1).find([[0.0], [1.0]], [0, 1], predictions=[0, 0])
    with pytest.raises(RivalsError, match="a list of one or more labels"):
        characterise_noise([], [])
    with pytest.raises(RivalsError, match="do not pair up"):
        characterise_noise([0, 1], [0])
    with pytest.raises(RivalsError, match=r"folds must lie in 2..3"):
        out_of_fold_predictions(logistic, vectors, labels, folds=9)
    with pytest.raises(RivalsError, match="3 labels for 2 rows"):
        out_of_fold_predictions(logistic, np.ones((2, 1)), labels, folds=2)
    with pytest.raises(RivalsError, match="predictions for"):
        out_of_fold_predictions(lambda x, y: lambda z: [0], np.ones((6, 1)), [0] * 6, folds=2)
