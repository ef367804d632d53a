"""Declarations of pair losses and recommender losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "angle": Options(own_laws="losses/test_graded_pairs.py"),
    "balanced_rerank": Options(variants=({"weighting": "term", "margin": 0.1},)),
    "cosent": Options(own_laws="losses/test_graded_pairs.py"),
    "cosine_contrastive": Options(cosine=True, variants=({"negative_weight": None, "margin": -0.2},)),
    "graded_margin": Options(variants=({"average": "pairs", "margin": 0.5},), shift_invariant=True),
    "multi_positive_softmax": Options(variants=({"weighting": "term", "label_smoothing": 0.0},)),
    "ordinal_ranking": Options(variants=({"scale": 1.0},), shift_invariant=True),
    "pairwise_softmax": Options(
        cosine=True,
        variants=(
            {"activation": "atan", "tau_star": 0.5},
            {"activation": "relu", "tau_star": 1.0, "include_positive": True},
            {"activation": "exp"},
        ),
    ),
    "probability_error": Options(shift_invariant=True),
    "unified_reranking": Options(own_laws="losses/test_yes_no.py"),
    "welfare_rank": Options(own_laws="losses/test_auctions.py"),
    "yes_no": Options(own_laws="losses/test_yes_no.py"),
}
