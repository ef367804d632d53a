"""Unit tests of multiple-instance models: the bags are as told, oracles pass, cheats fail, monotone poolings are."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rivals.diagnose.bags import Bags, mil_unit_test
from rivals.diagnose.unit_tests import (
    UnitTestResult,
    bag_auc,
    check_monotone_in_instances,
    fit_bag_classifier,
    run_mil_unit_tests,
)
from rivals.errors import RivalsError
from rivals.models.bag_classifier import BagClassifier


def means(bags: Bags) -> np.ndarray[Any, Any]:
    """Return each instance's mean coordinate, NaN for padding."""
    return np.where(bags.mask, bags.features.mean(-1), np.nan)


def near(bags: Bags, centre: float) -> np.ndarray[Any, Any]:
    """Return how many instances of a bag are copies of a tight concept."""
    distance = np.abs(bags.features - centre).max(-1)
    return ((distance < 0.6) & bags.mask).sum(1)


def test_bags_of_a_single_concept() -> None:
    split = mil_unit_test("single-concept", n_train=5000, n_test=1000)
    for bags, poisoned in ((split.train, 0), (split.test, 1)):
        assert np.bincount(bags.labels).tolist() == [len(bags) // 2] * 2
        poison, size = (means(bags) < -8).sum(1), bags.mask.sum(1)
        assert (poison == (bags.labels == poisoned)).all()
        sizes = {label: (size[bags.labels == label].min(), size[bags.labels == label].max()) for label in (0, 1)}
        own = {0: (1, 9), 1: (2, 7)}
        assert sizes == {
            label: (low + (label == poisoned), high + (label == poisoned)) for label, (low, high) in own.items()
        }
        assert bags.mask[:, 0].all()
        assert not bags.features[~bags.mask].any()
    assert len({int(row.argmin()) for row in np.nan_to_num(means(split.train))[split.train.labels == 0]}) > 5, (
        "any order"
    )


def test_bags_of_two_concepts() -> None:
    for name, centres in (("multi-concept", (2.0, 3.0)), ("false-frequency", (-2.0, 2.0))):
        split = mil_unit_test(name, n_train=3000, n_test=3000)  # type: ignore[arg-type]
        for bags in (split.train, split.test):
            both = np.minimum(near(bags, centres[0]), near(bags, centres[1])) > 0
            assert (both == (bags.labels == 1)).all(), name
    train = mil_unit_test("multi-concept", n_train=5000).train
    poison = (means(train) < -8).sum(1)
    assert (poison[train.labels == 0] == 1).all()
    assert poison[train.labels == 1].mean() == pytest.approx(0.1, abs=0.02)
    second = mil_unit_test("multi-concept", n_train=6000, variant="v2").train
    neither = (near(second, 2.0) + near(second, 3.0) == 0)[second.labels == 0]
    assert neither.mean() == pytest.approx(1 / 3, abs=0.04)


def test_false_frequency_repeats_one_concept_in_test_negatives() -> None:
    bags = mil_unit_test("false-frequency", n_test=4000).test
    copies = np.stack([near(bags, -2.0), near(bags, 2.0)], 1)[bags.labels == 0]
    assert (copies.min(1) == 0).all()
    assert (copies.max(1).min(), copies.max(1).max()) == (35, 39)
    assert (copies[:, 0] > 0).mean() == pytest.approx(4 / 9, abs=0.04)


def test_sizes_can_be_made_equal_and_signals_easy() -> None:
    split = mil_unit_test("single-concept", n_train=100, n_test=100, min_size=12)
    assert (split.train.mask.sum(1) == 12).all()
    assert (split.test.mask.sum(1) == 12).all()
    easy = mil_unit_test("single-concept", n_train=2000, easy_signal_rate=1.0, dim=200).train
    assert ((np.abs(means(easy) - 1) < 0.5).sum(1) > 0).tolist() == (easy.labels == 1).tolist()


def nearest(bags: Any, mask: Any, centre: float) -> Any:
    return np.where(mask, -np.abs(bags - centre).max(-1), -np.inf).max(1)


def test_oracles_pass() -> None:
    def energy(bags: Any, mask: Any) -> Any:
        strong = np.where(mask & (bags.mean(-1) > -5), (bags**2).mean(-1), -np.inf).max(1)
        return np.maximum(strong, -1)

    fits = {
        "single-concept": lambda *_: energy,
        "multi-concept": lambda *_: lambda b, m: np.minimum(nearest(b, m, 2.0), nearest(b, m, 3.0)),
        "false-frequency": lambda *_: lambda b, m: np.minimum(nearest(b, m, -2.0), nearest(b, m, 2.0)),
    }
    for name, fit in fits.items():
        report = run_mil_unit_tests(fit, tests=[name], seeds=2, show=False)  # type: ignore[list-item]
        report.assert_passed(strict=True)
        assert min(report[name].test_auc) > (0.95 if name == "single-concept" else 1 - 1e-12)


def test_a_poison_counter_fails_and_a_constant_does_not_learn() -> None:
    counter = run_mil_unit_tests(
        lambda *_: lambda bags, mask: -((bags.mean(-1) < -8) & mask).sum(1), tests=["single-concept"], show=False
    )
    assert min(counter["single-concept"].train_auc) >= 0.99
    assert max(counter["single-concept"].test_auc) <= 0.01
    assert counter["single-concept"].verdict == "failed"
    with pytest.raises(AssertionError, match="single-concept failed"):
        counter.assert_passed()
    constant = run_mil_unit_tests(lambda *_: lambda bags, mask: np.zeros(len(bags)), show=False, seeds=1)
    assert {result.verdict for result in constant.results} == {"did not learn"}
    assert len(constant.table().columns) == 4
    assert UnitTestResult("x", (0.9,), (0.6,)).verdict == "weakly passed"


def test_the_maximum_of_scores_passes_where_pooled_vectors_invert_the_rule() -> None:
    options: dict[str, Any] = {"tests": ["single-concept"], "seeds": 1, "n_train": 600, "n_test": 300, "show": False}
    right = run_mil_unit_tests(partial(fit_bag_classifier, pool="instance-max", epochs=6), **options)["single-concept"]
    assert right.verdict == "passed"
    assert right.test_auc[0] > 0.9
    for pool in ("mean", "attention", "embedding-max"):
        wrong = run_mil_unit_tests(partial(fit_bag_classifier, pool=pool, epochs=6), **options)["single-concept"]
        assert wrong.verdict == "failed", pool
        assert wrong.test_auc[0] < 0.1, pool


@pytest.mark.parametrize(
    "pool", ["instance-max", "embedding-max", "mean", "attention", "noisy-or", "multi-concept-max"]
)
def test_padding_never_counts_and_some_poolings_are_monotone(pool: Any) -> None:
    bags = mil_unit_test("single-concept", n_train=60).train
    model = BagClassifier(16, pool, seed=1)

    def score(features: Any, mask: Any) -> Any:
        with torch.no_grad():
            return model(torch.as_tensor(features), torch.as_tensor(mask)).numpy()

    wide = np.concatenate([np.full((60, 2, 16), 7, np.float32), bags.features], 1)
    there = np.concatenate([np.zeros((60, 2), bool), bags.mask], 1)
    assert score(wide, there) == pytest.approx(score(bags.features, bags.mask), abs=1e-5)
    found = check_monotone_in_instances(score, bags)
    assert found.monotone == (pool in ("instance-max", "noisy-or", "multi-concept-max"))
    assert found.monotone or (found.drop > 0 and found.share > 0 and found.bag != found.donor)


def test_bad_input_is_refused() -> None:
    with pytest.raises(RivalsError, match="no unit test"):
        mil_unit_test("double-concept")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="at least 4"):
        mil_unit_test("single-concept", n_train=3)
    with pytest.raises(RivalsError, match="no variant"):
        mil_unit_test("single-concept", variant="v2")
    with pytest.raises(RivalsError, match="bag 1 is empty"):
        BagClassifier(2)(torch.zeros(2, 1, 2), torch.tensor([[True], [False]]))
    with pytest.raises(RivalsError, match="pool is"):
        BagClassifier(2, "median")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="one a bag"):
        bag_auc(lambda bags, mask: mask, mil_unit_test("single-concept").test)
    with pytest.raises(RivalsError, match="0 seeds"):
        run_mil_unit_tests(lambda *_: lambda b, m: b, seeds=0)
