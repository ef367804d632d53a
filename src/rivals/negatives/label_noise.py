"""How predictions differ from labels, and predictions that no item's own label had a part in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError

Fit = Callable[[Any, NDArray[Any]], Callable[[Any], Any]]


class NoiseTable(NamedTuple):
    """Errors of predictions against labels by kind, in all and for every class.

    A false negative has a positive label and is predicted negative, a false positive the other way round; `confused`
    are positives predicted as another positive. `classes` [K] and `per_class` int64[K, 3], counted by the label, with
    columns in this order. `items`, `errors`: in all.
    """

    items: int
    errors: int
    false_negatives: int
    false_positives: int
    confused: int
    classes: NDArray[Any]
    per_class: NDArray[np.int64]

    def __str__(self) -> str:
        def part(count: int) -> str:
            return f"{count:,} ({100 * count / max(self.errors, 1):.0f} %)"

        return (
            f"{self.errors:,} of {self.items:,} predictions differ from the label: false negatives "
            f"{part(self.false_negatives)}, false positives {part(self.false_positives)}, one positive for another "
            f"{part(self.confused)}"
        )


def characterise_noise(labels: Any, predictions: Any, negative_label: Any = 0) -> NoiseTable:
    """Return how predictions differ from labels: how much of it lies around the negative class.

    Use it on out-of-fold predictions before cleaning: where most errors are false negatives, the negatives hold
    unlabelled positives.

    Source: "Noise in Relation Classification Dataset TACRED" (2023). Paper 118.

    Raises:
        RivalsError: labels and predictions of different lengths, none at all, or no negative label among them.

    >>> print(characterise_noise([1, 1, 0, 0, 2], [0, 1, 2, 0, 1]))
    3 of 5 predictions differ from the label: false negatives 1 (33 %), false positives 1 (33 %), one positive for another 1 (33 %)
    """
    given, guessed = as_labels(labels, "labels"), as_labels(predictions, "predictions")
    if len(given) != len(guessed):
        raise RivalsError(f"{len(given)} labels and {len(guessed)} predictions do not pair up")
    check_negative_label(given, negative_label)
    negative, told = given == negative_label, guessed == negative_label
    kinds = np.stack([~negative & told, negative & ~told, ~negative & ~told & (given != guessed)])
    classes, place = np.unique(given, return_inverse=True)
    per_class = np.stack([np.bincount(place, kind, len(classes)) for kind in kinds], axis=1).astype(np.int64)
    missed, invented, confused = kinds.sum(1).tolist()
    return NoiseTable(len(given), missed + invented + confused, missed, invented, confused, classes, per_class)


def out_of_fold_predictions(fit: Fit, features: Any, labels: Any, *, folds: int = 5, seed: int = 0) -> NDArray[Any]:
    """Return every item's prediction by a model that was fitted without it.

    Folds hold the classes in equal shares, as far as they go round. Predictions of a model on its own training data show
    no false negative, so `NeighbourCleaner` needs these.

    Args:
        fit: (features, labels) -> a function from features to predictions, for example
            `lambda x, y: LogisticRegression().fit(x, y).predict`. features: an array, or anything that numpy can index
            by rows. folds: 2 or more.

    Raises:
        RivalsError: folds below 2 or above the items, lengths that differ, another number of predictions than asked.

    >>> def nearest_mean(features, labels):
    ...     classes = np.unique(labels)
    ...     means = np.array([features[labels == each].mean(0) for each in classes])
    ...     return lambda x: classes[np.abs(x - means.T).argmin(1)]
    >>> features = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> out_of_fold_predictions(nearest_mean, features, [0, 0, 0, 1, 1, 1], folds=3).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    given = as_labels(labels, "labels")
    rows = features if hasattr(features, "shape") else np.asarray(features)
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= len(given):
        raise RivalsError(f"folds must lie in 2..{len(given)}, the items; not {folds!r}")
    if len(rows) != len(given):
        raise RivalsError(f"{len(given)} labels for {len(rows)} rows of features")
    shuffled = np.random.default_rng(seed).permutation(len(given))
    fold = np.empty(len(given), np.int64)
    fold[shuffled[np.argsort(np.unique(given, return_inverse=True)[1][shuffled], kind="stable")]] = (
        np.arange(len(given)) % folds
    )
    found = given.copy()
    for each in range(folds):
        held = np.flatnonzero(fold == each)
        rest = np.flatnonzero(fold != each)
        guessed = np.asarray(fit(rows[rest], given[rest])(rows[held]))
        if guessed.shape != held.shape:
            raise RivalsError(f"the fitted model gave {guessed.shape} predictions for {len(held)} items")
        if not np.can_cast(guessed.dtype, found.dtype):
            found = found.astype(np.promote_types(guessed.dtype, found.dtype))
        found[held] = guessed
    return found


def as_labels(values: Any, what: str) -> NDArray[Any]:
    """Return labels as an array [N], N above 0, or raise a RivalsError.

    >>> as_labels([1, 0], "labels").tolist()
    [1, 0]
    """
    labels = np.asarray(values)
    if labels.ndim != 1 or not len(labels):
        raise RivalsError(f"{what} must be a list of one or more labels, not of shape {labels.shape}")
    return labels


def check_negative_label(labels: NDArray[Any], negative_label: Any) -> None:
    """Raise a RivalsError unless some item has the negative label."""
    if not (labels == negative_label).any():
        raise RivalsError(f"no item has the negative label {negative_label!r}; say which it is with negative_label=")
