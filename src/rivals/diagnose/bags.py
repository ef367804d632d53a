"""Bags whose training and test parts differ in a decoy: what a model that counts evidence rightly does not notice.

A bag is positive because of what is in it. In the training parts something else goes along with the label ("poison" in
negative bags, or how often a concept occurs); in the test parts it goes the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError

UnitTest = Literal["single-concept", "multi-concept", "false-frequency"]
_POISON, _SIGNAL, _EASY, _A, _B, _BACKGROUND = range(6)


@dataclass(frozen=True, eq=False)
class Bags:
    """Bags of instances, padded: features float32[N, L, D], mask bool[N, L], labels int64[N] of 0 and 1.

    >>> bags = Bags(np.zeros((2, 3, 1)), np.ones((2, 3), bool), np.array([0, 1]))
    >>> len(bags)
    2
    """

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of bags."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class BagSplit:
    """The training and the test bags of a unit test.

    >>> mil_unit_test("single-concept", n_train=4, n_test=4).name
    'single-concept'
    """

    name: UnitTest
    train: Bags
    test: Bags


def mil_unit_test(
    name: UnitTest,
    *,
    n_train: int = 2000,
    n_test: int = 600,
    dim: int = 16,
    variant: Literal["v2"] | None = None,
    easy_signal_rate: float = 0.0,
    min_size: int | None = None,
    seed: int = 0,
) -> BagSplit:
    """Make the bags of one algorithmic unit test of multiple-instance models; half of each part is positive.

    With N(m, s) for instances whose every coordinate is normal, and background N(0, 1):

    - single-concept. Train: negative 1 poison N(-10, .1) + 1-9 background, positive 1-3 signal N(0, 3) + 1-4 background.
      Test: negative 1-9 background, positive 1 poison + 1-3 signal + 1-4 background.
    - multi-concept: positive if both A = N(2, .1) and B = N(3, .1) are there. Train: negative 1 poison + one of A, B + 1-4
      background, positive poison with probability .1 + 1-4 A + 1-4 B + 1-4 background. Test: negative as before without
      poison, positive 1 poison + 1-4 A + 1-4 B + 1-4 background.
    - false-frequency: positive if both A = N(-2, .1) and B = N(2, .1) are there. Train: negative one A or one B + 1-9
      background, positive one A and one B + 1-9 background. Test: negative 35-39 copies of A (4 of 9 bags) or of B + 1-9
      background, positive as in training.

    Args:
        variant: "v2" of multi-concept: training negatives hold A, B or neither, a third each. easy_signal_rate: share of
            single-concept's positive bags whose signal is N(1, 1); 0.5 is the paper's text, 0 what its code does.
        min_size: instead of a random count, background fills up to so many instances, so that size tells nothing.

    Source: Raff and Holt 2023 (arXiv 2310.17867) and its notebook. Paper 88.

    Raises:
        RivalsError: unknown test or variant, fewer than 4 bags in a part, dim below 1, easy_signal_rate outside 0..1.

    >>> split = mil_unit_test("false-frequency", n_train=10, n_test=10)
    >>> split.train.labels.sum(), int(split.test.mask[split.test.labels == 0].sum(1).min()) >= 36
    (np.int64(5), True)
    """
    if name not in get_args(UnitTest):
        raise RivalsError(f"no unit test is called '{name}'; there are {', '.join(get_args(UnitTest))}")
    if variant not in (None, "v2") or (variant and name != "multi-concept"):
        raise RivalsError(f"'{name}' has no variant '{variant}'; only multi-concept has one, 'v2'")
    if min(n_train, n_test) < 4 or dim < 1 or not 0 <= easy_signal_rate <= 1:
        raise RivalsError(
            f"{n_train} and {n_test} bags, dim {dim}, easy_signal_rate {easy_signal_rate}: give at least 4, 1, and 0 to 1"
        )
    tests = get_args(UnitTest)
    parts = []
    for part, size in enumerate((n_train, n_test)):
        generator = np.random.default_rng([seed, 88, tests.index(name), part])
        labels = np.arange(size) % 2
        if name == "single-concept":
            counts = _single_concept(generator, labels, part == 0, easy_signal_rate)
            means = (-10.0, 0.0, 1.0, 0.0, 0.0, 0.0)
        elif name == "multi-concept":
            counts = _multi_concept(generator, labels, part == 0, variant == "v2")
            means = (-10.0, 0.0, 0.0, 2.0, 3.0, 0.0)
        else:
            counts = _false_frequency(generator, labels, part == 0)
            means = (0.0, 0.0, 0.0, -2.0, 2.0, 0.0)
        if min_size is not None:
            counts[:, _BACKGROUND] = np.maximum(min_size - counts[:, :_BACKGROUND].sum(1), 0)
            counts[counts.sum(1) == 0, _BACKGROUND] = 1
        parts.append(_bags(generator, counts, labels, np.array(means), dim))
    return BagSplit(name, *parts)


def _between(generator: np.random.Generator, low: int, high: int, size: int) -> NDArray[np.int64]:
    return generator.integers(low, high + 1, size)


def _single_concept(
    generator: np.random.Generator, labels: NDArray[np.int64], train: bool, easy: float
) -> NDArray[np.int64]:
    n, positive = len(labels), labels == 1
    counts = np.zeros((n, 6), np.int64)
    counts[:, _POISON] = (~positive if train else positive).astype(np.int64)
    kind = np.where(generator.random(n) < easy, _EASY, _SIGNAL)
    counts[np.arange(n), kind] = _between(generator, 1, 3, n) * positive
    counts[:, _BACKGROUND] = np.where(positive, _between(generator, 1, 4, n), _between(generator, 1, 9, n))
    return counts


def _multi_concept(
    generator: np.random.Generator, labels: NDArray[np.int64], train: bool, neither: bool
) -> NDArray[np.int64]:
    n, positive = len(labels), labels == 1
    counts = np.zeros((n, 6), np.int64)
    rare = generator.random(n) < 0.1
    counts[:, _POISON] = np.where(positive, rare, 1) if train else positive
    one = generator.integers(0, 3 if neither and train else 2, n)
    for place, concept in enumerate((_A, _B)):
        counts[:, concept] = np.where(positive, _between(generator, 1, 4, n), one == place)
    counts[:, _BACKGROUND] = _between(generator, 1, 4, n)
    return counts


def _false_frequency(generator: np.random.Generator, labels: NDArray[np.int64], train: bool) -> NDArray[np.int64]:
    n, positive = len(labels), labels == 1
    counts = np.zeros((n, 6), np.int64)
    is_a = generator.random(n) < (1 / 2 if train else 4 / 9)
    copies = np.ones(n, np.int64) if train else _between(generator, 35, 39, n)
    counts[:, _A] = np.where(positive, 1, copies * is_a)
    counts[:, _B] = np.where(positive, 1, copies * ~is_a)
    counts[:, _BACKGROUND] = _between(generator, 1, 9, n)
    return counts


def _bags(
    generator: np.random.Generator,
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    means: NDArray[np.float64],
    dim: int,
) -> Bags:
    """Draw the instances of every kind, in random order inside a bag."""
    kind = np.repeat(np.tile(np.arange(6), len(counts)), counts.ravel())
    offsets = lists.offsets_from_lengths(counts.sum(1))
    kind = kind[np.lexsort((generator.random(len(kind)), lists.segment_ids(offsets)))]
    spread = np.array([0.1, 3.0, 1.0, 0.1, 0.1, 1.0])
    instances = means[kind][:, None] + spread[kind][:, None] * generator.standard_normal((len(kind), dim))
    mask = lists.pad_mask(offsets)
    features = np.zeros((*mask.shape, dim), np.float32)
    features[mask] = instances
    return Bags(features, mask, labels.astype(np.int64))
