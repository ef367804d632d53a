"""Declarations of the calibration, regression and survival losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "asymmetric_generalized_cross_entropy": Options(variants=({"a": 3.0, "q": 1.5},), shift_invariant=True),
    "asymmetric_unhinged": Options(variants=({"a": 6.0, "q": 1.5},), shift_invariant=True),
    "balanced_l1": Options(variants=({"alpha": 1.0, "gamma": 0.7},)),
    "berhu": Options(
        variants=({"threshold": 1.0},),
        exempt={"gradients_are_right": "the threshold, a fifth of the largest error, gets no gradient"},
    ),
    "binary_kl": Options(variants=({"temperature": 0.5},)),
    "brier": Options(shift_invariant=True),
    "dual_focal": Options(variants=({"gamma": 0.5}, {"gamma": 0.0}), shift_invariant=True),
    "generalized_cross_entropy": Options(variants=({"q": 1.0}, {"truncate": 0.4}), shift_invariant=True),
    "hazard": Options(variants=({"boundary": 1, "long_weight": 0.5},)),
    "huber": Options(variants=({"delta": 3.0},)),
    "jensen_shannon": Options(variants=({"label_share": 0.1},), shift_invariant=True),
    "ldr": Options(
        variants=(
            {"temperature": 10.0, "normalize": "l1"},
            {"temperature": 0.1, "normalize": "softplus_l1", "margin": 0.0},
            {"top_k": 2, "margin": 1.0},
        )
    ),
    "learned_link": Options(own_laws="losses/test_learned_link.py"),
    "logit_distance": Options(variants=({"temperature": 0.5},)),
    "normalized_cross_entropy": Options(shift_invariant=True),
    "number_level": Options(own_laws="losses/test_number_tokens.py"),
    "number_token": Options(
        variants=({"kind": "squared"}, {"kind": "huber", "reweigh": True}, {"squash": 3.0, "reweigh": True})
    ),
    "ordinal_wasserstein": Options(extra={"values": "normal"}, shift_invariant=True),
    "poisson": Options(
        exempt={
            "extremes_stay_finite": "exp(10,000) is beyond every dtype",
            "gradients_are_right": "next to exp(40) finite differences see nothing else; own test at small scores",
        }
    ),
    "quantile": Options(variants=({"quantile": 0.9},)),
    "robust_log": Options(variants=({"offset": 0.1},), shift_invariant=True),
    "smooth_l1": Options(variants=({"beta": 3.0},)),
    "spherical": Options(own_laws="losses/test_spherical.py"),
    "symmetric_cross_entropy": Options(variants=({"balance": 1.0},), shift_invariant=True),
    "wing": Options(variants=({"width": 1.0, "curvature": 0.5},)),
    "z": Options(variants=({"sharpness": 0.1, "location": 4.0},), shift_invariant=True),
}
