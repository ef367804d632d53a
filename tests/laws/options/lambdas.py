"""Declarations of the lambda and RankNet losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "first": Options(own_laws="losses/test_lambdas.py"),
    "lambda": Options(
        variants=(
            {"scheme": "lambdarank", "k": 3},
            {"scheme": "ndcg1"},
            {"scheme": "ndcg1", "k": 2},
            {"scheme": "ndcg2", "gain": "linear", "normalize": False, "sigma": 0.5},
            {"scheme": "mrr", "k": 2, "log_base": 2.718281828459045},
            {"scheme": "ranknet_diff", "mu": 0.0},
            {"scheme": "ranknet_diff2"},
            {"scheme": None},
        ),
        shift_invariant=True,
    ),
    "ordinal": Options(own_laws="losses/test_ordinal.py"),
    "pairwise_hinge": Options(variants=({"power": 2, "margin": 0.3}, {"margin": 0.0}), shift_invariant=True),
    "profit_aware_pairwise": Options(
        variants=({"top_k": 3}, {"top_k": 2, "pair_weight": "linear", "empty": "keep"}), shift_invariant=True
    ),
    "rank_weighted_ranknet": Options(variants=({"weighting": None},), shift_invariant=True),
    "ranklist": Options(
        variants=(
            {"max_skip": 1},
            {"margin": 0.7},
            {"form": "pairwise"},
            {"form": "pairwise", "max_skip": 2, "margin": 0.2, "local_weight": 2.0, "nonlocal_weight": 0.5},
        ),
        shift_invariant=True,
    ),
    "selection_weighted": Options(
        variants=({"debias_ratio": 0.5}, {"max_weight": 1.5}),
        shift_invariant=True,
        extra={"selection_scores": "normal"},
    ),
    "yeti": Options(
        always={"noise": None},
        variants=(
            {"metric": "dcg", "num_neighbors": 2, "top": 3, "gain": "exponential", "denominator": "position"},
            {"metric": "mrr", "num_neighbors": -1},
            {"metric": "map", "num_neighbors": 3},
            {"metric": "classic"},
            {"num_neighbors": -1},
        ),
        shift_invariant=True,
    ),
}
