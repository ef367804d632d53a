"""Declarations of the losses that the main job trains with."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "binary_cross_entropy": Options(variants=({"threshold": 1.0},)),
    "pairwise_logistic": Options(shift_invariant=True),
    "poly1_softmax": Options(variants=({"epsilon": 0.3},), shift_invariant=True),
    "softmax": Options(variants=({"normalize_labels": True, "temperature": 0.5},), shift_invariant=True),
}
