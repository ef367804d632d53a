"""Declarations of the losses that the main job trains with."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "binary_cross_entropy": Options(variants=({"threshold": 1.0},)),
    "in_batch_info_nce": Options(
        variants=(
            {"positives": "all", "temperature": 0.5},
            {"directions": ("query_to_document", "document_to_query"), "normalize": False, "temperature": 2.0},
            {"fused": True},
            {"fused": True, "positives": "all", "directions": ("document_to_query",), "temperature": 0.01},
            {
                "joint": True,
                "directions": ("query_to_document", "document_to_query", "query_to_query", "document_to_document"),
            },
        )
    ),
    "info_nce": Options(variants=({"positives": "all"}, {"temperature": 2.0}), shift_invariant=True),
    "pairwise_logistic": Options(shift_invariant=True),
    "poly1_softmax": Options(variants=({"epsilon": 0.3},), shift_invariant=True),
    "softmax": Options(variants=({"normalize_labels": True, "temperature": 0.5},), shift_invariant=True),
}
