"""One adapter per paper: a recorded case -> (our output, our gradients by input name)."""

from __future__ import annotations

from tests.golden.adapters import (
    calibrated,
    combination,
    contrastive,
    lambdas,
    listwise,
    measurement,
    metric,
    metric_sets,
    multilabel,
    pairwise,
    preference,
    retrieval,
    sampling,
)
from tests.golden.adapters.case import Adapter

_FAMILIES = (
    calibrated,
    combination,
    contrastive,
    lambdas,
    listwise,
    measurement,
    metric,
    metric_sets,
    multilabel,
    pairwise,
    preference,
    retrieval,
    sampling,
)
ADAPTERS: dict[int, Adapter] = {paper: adapter for family in _FAMILIES for paper, adapter in family.ADAPTERS.items()}
"""Every adapter by the number of its paper."""
TOLERANCES: dict[int, float] = {
    paper: tolerance for family in _FAMILIES for paper, tolerance in getattr(family, "TOLERANCES", {}).items()
}
"""Where a paper's card allows more than `runner.TOLERANCE`."""
