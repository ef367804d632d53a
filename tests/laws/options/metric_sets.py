"""Declarations of the losses over sets: whitening, prototypes, submodular sets, clusters, graded triplets, word pairs."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "bidirectional_margin": Options(
        variants=({"over": "suspects", "alpha": 0.1, "beta": 0.2},), shift_invariant=True, extra={"suspects": "bool"}
    ),
    "bimodal_contrastive": Options(
        variants=(
            {"balance": True, "normalize": False, "margin": 3.0},
            {"hard_only": True},
        )
    ),
    "cluster_negatives": Options(own_laws="losses/test_online_clusters.py"),
    "contrastive_regression": Options(own_laws="losses/test_relative.py"),
    "facility_location": Options(variants=({"style": "code", "lam": 0.5}, {"kernel": "rbf"}, {"kernel": "euclidean"})),
    "graph_cut": Options(
        variants=(
            {"form": "information", "lam": 0.3},
            {"form": "log_ratio", "kernel": "rbf", "temperature": 0.5},
            {"style": "code", "kernel": "euclidean"},
        )
    ),
    "icnn": Options(variants=({"k": 2},)),
    "log_det": Options(
        variants=({"form": "information"}, {"form": "information", "style": "code", "kernel": "rbf"}, {"kernel": "dot"})
    ),
    "log_sum_exp_multilabel": Options(
        variants=({"mode": "relative"}, {"scale": 2.0, "margin": 0.3, "threshold": -0.5})
    ),
    "online_contrastive": Options(variants=({"margin": 3.0, "reduction": "mean"},)),
    "pair_contrastive": Options(variants=({"balance": True, "margin": 3.0},)),
    "proto_triplet": Options(variants=({"margin": 0.0},)),
    "relative_triplet": Options(
        variants=(
            {"margin": "adaptive", "relevance_range": 3.0, "divide_by": "valid"},
            {"chunk": 1, "min_gap": 1.0},
        ),
        shift_invariant=True,
    ),
    "submodular_snn": Options(variants=({"style": "code", "temperature": 0.5},)),
    "submodular_supcon": Options(variants=({"style": "code", "temperature": 0.5},)),
    "submodular_triplet": Options(variants=({"style": "code"},)),
    "whitened_mse": Options(own_laws="losses/test_whitening.py"),
}
