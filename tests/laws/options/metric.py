"""Declarations of the metric-learning losses."""

from __future__ import annotations

from tests.laws.options._options import Options

_HELD = "the weights of the pairs are constants"

OPTIONS: dict[str, Options] = {
    "arcface": Options(variants=({"margin": 0.3, "scale": 8.0, "beyond_pi": "plain"}, {"beyond_pi": "easy"})),
    "barlow_twins": Options(own_laws="losses/test_metric_twins.py"),
    "center": Options(own_laws="losses/test_metric_proxies.py"),
    "circle": Options(
        variants=({"margin": 0.4, "scale": 8.0, "pairing": "batch"},), exempt={"gradients_are_right": _HELD}
    ),
    "circle_class": Options(exempt={"gradients_are_right": _HELD}),
    "cosface": Options(variants=({"margin": 0.0, "scale": 1.0},)),
    "in_batch_circle": Options(
        variants=({"fused": True}, {"pairing": "batch", "scale": 4.0}),
        exempt={"gradients_are_right": _HELD},
    ),
    "in_batch_contrastive": Options(
        variants=({"fused": True, "squared": False, "normalize": True}, {"margin": 3.0, "positive_margin": 0.2})
    ),
    "in_batch_multi_similarity": Options(
        variants=({"fused": True}, {"epsilon": None, "empty_anchor": "partial", "normalize": False, "beta": 4.0})
    ),
    "in_batch_supervised_contrastive": Options(
        variants=({"fused": True}, {"positives": "each", "normalize": False, "temperature": 1.0})
    ),
    "in_batch_triplet": Options(
        variants=(
            {"fused": True, "mining": "all", "margin": 1.0},
            {"fused": True, "mining": "all", "soft": True, "margin": 0.0},
            {"mining": "semihard", "squared": True},
            {"soft": True, "normalize": True},
        )
    ),
    "multi_similarity": Options(variants=({"epsilon": None, "empty_anchor": "partial", "alpha": 1.0, "beta": 3.0},)),
    "simsiam": Options(own_laws="losses/test_metric_twins.py"),
    "sphereface": Options(variants=({"margin": 2, "scale": 5.0},)),
    "triplet": Options(
        variants=(
            {"mining": "semihard", "margin": 1.0},
            {"mining": "all", "margin": 1.0},
            {"mining": "all", "soft": True},
        ),
        shift_invariant=True,
    ),
    "unified_negative_pair": Options(own_laws="losses/test_metric_proxies.py"),
    "unified_pair": Options(variants=({"scale": 4.0, "margin": 0.2},), shift_invariant=True),
}
