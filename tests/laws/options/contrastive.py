"""Declarations of the contrastive losses."""

from __future__ import annotations

from tests.laws.options._options import Options

BOTH = ("query_to_document", "document_to_query")
OPTIONS: dict[str, Options] = {
    "bank_contrastive": Options(own_laws="losses/test_bank.py"),
    "continual_contrast": Options(own_laws="losses/test_continual.py"),
    "continual_nt_xent": Options(own_laws="losses/test_continual.py"),
    "debiased_contrastive": Options(variants=({"form": "code", "temperature": 0.5},)),
    "dual_view_contrast": Options(own_laws="losses/test_momentum.py"),
    "in_batch_info_nce": Options(
        variants=(
            {"positives": "all", "temperature": 0.5},
            {"directions": BOTH, "normalize": False, "temperature": 2.0},
            {"fused": True},
            {"fused": True, "positives": "all", "directions": ("document_to_query",), "temperature": 0.01},
            {"joint": True, "directions": (*BOTH, "query_to_query", "document_to_document"), "margin": 0.1},
            {"positives": "graded", "temperature": 0.5},
            {"fused": True, "positives": "graded", "directions": BOTH, "temperature": 0.5},
            {"positive_prior": 0.1, "margin": 0.2, "temperature": 0.5},
            {"fused": True, "positive_prior": 0.1, "margin": 0.2, "directions": BOTH, "temperature": 0.5},
            {"fused": True, "positives": "decoupled", "normalize": False, "temperature": 2.0},
        )
    ),
    "info_nce": Options(
        variants=(
            {"positives": "all"},
            {"positives": "graded", "temperature": 2.0},
            {"positives": "decoupled", "margin": 0.5, "temperature": 2.0},
            {"temperature": 2.0},
        ),
        shift_invariant=True,
    ),
    "mann_whitney": Options(
        variants=(
            {"temperature": 0.5, "average": "positives"},
            {"graded": True},
            {"surrogate": "hinge", "graded": True},
            {"surrogate": "squared_hinge", "margin": 0.5},
        )
    ),
    "momentum_contrast": Options(own_laws="losses/test_momentum.py"),
    "multi_head_contrastive": Options(own_laws="losses/test_multi_head.py"),
    "multi_head_redundancy": Options(own_laws="losses/test_multi_head.py"),
    "multi_head_siamese": Options(own_laws="losses/test_multi_head.py"),
    "progressive_info_nce": Options(
        variants=(
            {"progress": 0.7, "temperature": 0.5},
            {"mode": "curricular", "positive_level": 0.3, "temperature": 0.5},
        ),
        exempt={
            "gradients_are_right": "its weights are constants for the gradient by definition; test_progressive.py checks it "
            "against frozen weights"
        },
    ),
    "pseudo_negative": Options(own_laws="losses/test_continual.py"),
    "structure_aware_info_nce": Options(variants=({"num_negatives": 4.0, "margin": 0.3, "temperature": 0.5},)),
}
