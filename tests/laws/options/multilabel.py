"""Declarations of the classification and multi-label losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "asymmetric": Options(
        variants=({"gamma_pos": 1.0, "gamma_neg": 2.0, "clip": 0.0, "eps": 1e-8}, {"detach_weight": False}),
        relevance="binary",
        exempt={"gradients_are_right": "the focusing weight is a constant in the gradient; its test checks the rest"},
    ),
    "asymmetric_softmax": Options(variants=({"gamma_pos": 1.0, "gamma_neg": 0.0, "label_smoothing": 0.3},)),
    "confusion": Options(
        variants=(
            {"amplification": None, "level": "list", "metric": "mcc"},
            {"amplification": 5.0, "level": "label", "metric": "gmean"},
            {"level": "list", "metric": "balanced_accuracy", "threshold": 0.3},
            {"level": "label", "metric": "accuracy", "smoothing": 0.0},
            {"metric": "jaccard", "smoothing": 0.0},
        )
    ),
    "cross_entropy": Options(variants=({"label_smoothing": 0.2},)),
    "dice": Options(
        variants=(
            {"level": "list", "alpha": 0.1},
            {"level": "label", "squared": False, "smooth": 0.0},
            {"level": "candidate", "ohem_ratio": 1.0},
            {"level": "list", "ohem_ratio": 2.0},
        )
    ),
    "entropy_maximisation": Options(variants=({"eps": 0.0},), extra={"unknown": "bool"}),
    "focal": Options(variants=({"gamma": 0.5}, {"gamma": 0.0})),
    "hinge": Options(variants=({"power": 2, "margin": 0.5},)),
    "hinge_rank": Options(
        variants=({"level": "set"}, {"level": "label", "normalise": "positives"}),
    ),
    "hybrid_multilabel": Options(own_laws="losses/test_hybrid.py"),
    "jaccard": Options(variants=({"level": "list", "smooth": 1.0},)),
    "large_loss_modification": Options(
        variants=({"scheme": "correct", "fraction": 0.3}, {"fraction": 0.0}), extra={"unknown": "bool"}
    ),
    "lovasz_hinge": Options(variants=({"level": "set"}, {"level": "label"})),
    "lovasz_softmax": Options(variants=({"classes": "all"},)),
    "multiclass_hinge": Options(variants=({"power": 2},)),
    "multilabel_contrastive": Options(own_laws="losses/test_hybrid.py"),
    "poly1_cross_entropy": Options(variants=({"epsilon": (-0.5, 2.0)},)),
    "sigmoid_focal": Options(variants=({"gamma": 0.5, "alpha": None},)),
    "softmax_dice": Options(
        variants=({"level": "example", "alpha": 0.1}, {"ohem_ratio": 1.0}, {"squared": False, "smooth": 0.0})
    ),
    "tversky": Options(
        variants=({"level": "list", "fp_weight": 0.3, "fn_weight": 0.7, "smooth": 0.0}, {"level": "candidate"})
    ),
}
