"""What is declared about each loss, by its name in `rivals.losses.LOSSES`, one file a family."""

from __future__ import annotations

from tests.laws.options import (
    calibrated,
    contrastive,
    lambdas,
    listwise,
    metric,
    metric_sets,
    multilabel,
    pairwise,
    preference,
    retrieval,
)
from tests.laws.options._options import Options

_FAMILIES = (
    calibrated,
    contrastive,
    lambdas,
    listwise,
    metric,
    metric_sets,
    multilabel,
    pairwise,
    preference,
    retrieval,
)
OPTIONS: dict[str, Options] = {name: options for family in _FAMILIES for name, options in family.OPTIONS.items()}
