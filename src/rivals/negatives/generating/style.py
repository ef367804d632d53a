"""Whether generated texts betray themselves: a linear probe between two sets of vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rivals.errors import RivalsError


def style_probe_auc(
    people: ArrayLike, generated: ArrayLike, *, folds: int = 5, ridge: float = 1.0, seed: int = 0
) -> float:
    """Return how well a linear probe tells generated texts from people's by their vectors: 0.5 not at all, 1 always.

    Ridge regression to +1 and -1 on standardised vectors, trained on all folds but one, judged on that one; the mean of
    the folds' AUCs. Penalty: ridge times the number of training rows.

    When to use: before training on generated negatives (`write_negatives`). Near 1 and with positives all written by
    people, a model can win by telling machine from man: mix in mined negatives, or have positives rewritten as well.

    Shapes: people[N, D], generated[M, D], vectors of a frozen encoder -> a number.

    Source: the style shortcut of generated negatives, paper 68; the probe is our own.

    Raises:
        RivalsError: shapes that do not fit, a value that is not finite, fewer rows on a side than folds, folds below 2,
            ridge not above 0.

    >>> generator = np.random.default_rng(0)
    >>> style_probe_auc(generator.normal(size=(50, 4)), generator.normal(size=(50, 4)) + 5)
    1.0
    """
    from rivals.measures.roc import pooled_auc

    one, other = np.asarray(people, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1:] != other.shape[1:]:
        raise RivalsError(f"vectors must be [N, D] and [M, D], not {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise RivalsError("vectors must be finite")
    if isinstance(folds, bool) or folds < 2 or min(len(one), len(other)) < folds or not ridge > 0:
        raise RivalsError(
            f"{folds} folds of {len(one)} and {len(other)} rows with ridge {ridge}: folds must be 2 or more, each side "
            "have as many rows at least, and ridge be above 0"
        )
    rows = np.concatenate([one, other])
    machine = np.repeat([0.0, 1.0], [len(one), len(other)])
    generator = np.random.default_rng(seed)
    fold = np.concatenate([generator.permutation(len(side)) % folds for side in (one, other)])
    areas = []
    for held in range(folds):
        train, test = fold != held, fold == held
        mean, spread = rows[train].mean(0), rows[train].std(0)
        scaled = (rows - mean) / np.where(spread > 0, spread, 1.0)
        wanted = 2 * machine[train] - 1
        wanted = wanted - wanted.mean()
        gram = scaled[train].T @ scaled[train]
        gram[np.diag_indices_from(gram)] += ridge * train.sum()
        direction = np.linalg.solve(gram, scaled[train].T @ wanted)
        areas.append(float(pooled_auc((scaled[test] @ direction)[None], machine[test][None])))
    return float(np.mean(areas))
