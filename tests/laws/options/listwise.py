"""Declarations of the list-wise and smooth losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "adversarial_retriever": Options(
        variants=({"adv_lambda": 1.0, "adversarial_reduction": "mean"}, {"adv_lambda": 0.0, "temperature": 3.0}),
        shift_invariant=True,
        extra={"ranker_scores": "normal"},
    ),
    "approx_ndcg": Options(variants=({"temperature": 0.1, "gain": "linear"},), shift_invariant=True),
    "circle_ranking": Options(
        variants=({"margin": 0.25, "scale": 32.0},),
        exempt={"gradients_are_right": "the pulls a_p and a_n are constants for the gradient"},
    ),
    "dynamic_plackett_luce": Options(own_laws="losses/test_plackett_luce.py"),
    "group_ordering": Options(
        variants=({"graded": True, "top_negatives": 2, "cdf": "logistic"}, {"steepness": 10.0, "cdf": "optimal"}),
        shift_invariant=True,
    ),
    "group_ordering_contrastive": Options(own_laws="losses/test_group_ordering.py"),
    "list_mle": Options(variants=({"ties": "skip", "temperature": 0.5}, {"k": 2}), shift_invariant=True),
    "list_net": Options(variants=({"temperature": 0.5, "label_temperature": 2.0},), shift_invariant=True),
    "listwise_kl": Options(
        variants=(
            {"temperature": 0.5, "direction": "symmetric"},
            {"direction": "reverse", "target_temperature": 3.0},
            {"form": "cross_entropy", "eps": 1e-7},
        ),
        shift_invariant=True,
    ),
    "multi_granular_distillation": Options(own_laws="losses/test_distillation.py"),
    "neural_ndcg": Options(
        variants=({"k": 2, "transposed": True, "temperature": 0.3}, {"gain": "linear", "max_iter": 3}),
        shift_invariant=True,
    ),
    "pair_and_list": Options(exempt={"order_never_counts": "the first negative of the list is the one judged alone"}),
    "partial_ranking_distillation": Options(
        variants=(
            {"valid_count": 2, "ties": "skip", "normalize": "terms"},
            {"valid_threshold": 0.0, "temperature": 0.2},
        ),
        shift_invariant=True,
    ),
    "policy_gradient": Options(own_laws="losses/test_policy_gradient.py"),
    "soft_label_alignment": Options(
        variants=({"direction": "forward", "eps": None, "temperature": 1.0}, {"direction": "reverse"}),
        shift_invariant=True,
        relevance="binary",
    ),
    "self_critical": Options(own_laws="losses/test_self_critical.py"),
    "two_stage_policy_gradient": Options(own_laws="losses/test_policy_gradient.py"),
    "two_view_ranking": Options(own_laws="losses/test_plackett_luce.py"),
}
