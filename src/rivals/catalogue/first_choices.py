"""What to try first for each task, and first of all under which condition: names of the catalogue, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rivals.catalogue.entry import Kind

Condition = Literal["always", "imbalanced", "graded", "noisy"]
Choices = Mapping[Condition, tuple[str, ...]]

_OF_LISTS: Choices = {"always": ("ndcg", "reciprocal_rank", "average_precision"), "graded": ("ndcg", "dcg")}

FIRST_CHOICES: Mapping[str, Mapping[Kind, Choices]] = {
    "regression": {
        "loss": {
            "always": ("squared_error", "huber", "log_cosh", "quantile"),
            "imbalanced": ("berhu", "balanced_l1"),
            "graded": ("ordinal", "contrastive_regression"),
            "noisy": ("huber", "log_cosh", "absolute_error"),
        },
        "measure": {
            "always": ("rmse", "mae", "r2"),
            "graded": ("spearman",),
            "noisy": ("mae",),
        },
    },
    "binary": {
        "loss": {
            "always": ("binary_cross_entropy", "hinge"),
            "imbalanced": ("sigmoid_focal", "dice", "mann_whitney", "confusion"),
            "graded": ("ordinal",),
            "noisy": ("large_loss_modification", "asymmetric", "entropy_maximisation"),
        },
        "measure": {
            "always": ("classification_rates", "pooled_auc", "expected_calibration_error"),
            "imbalanced": ("f_score", "average_precision", "precision_recall_curve"),
        },
    },
    "multiclass": {
        "loss": {
            "always": ("cross_entropy", "poly1_cross_entropy", "multiclass_hinge"),
            "imbalanced": ("focal", "softmax_dice", "lovasz_softmax"),
            "graded": ("ordinal", "ordinal_wasserstein"),
            "noisy": ("generalized_cross_entropy", "symmetric_cross_entropy", "ldr", "learned_link"),
        },
        "measure": {
            "always": ("confusion_matrix", "f_score", "multiclass_auc", "expected_calibration_error"),
            "imbalanced": ("f_score", "balanced_accuracy_score"),
        },
    },
    "multilabel": {
        "loss": {
            "always": ("binary_cross_entropy", "asymmetric", "log_sum_exp_multilabel"),
            "imbalanced": ("asymmetric", "sigmoid_focal", "hybrid_multilabel"),
            "graded": ("ordinal",),
            "noisy": ("large_loss_modification", "entropy_maximisation", "asymmetric"),
        },
        "measure": {"always": ("label_average_precision", "f_score", "hamming_error")},
    },
    "ranking": {
        "loss": {
            "always": ("softmax", "pairwise_logistic", "list_mle"),
            "imbalanced": ("poly1_softmax", "mann_whitney"),
            "graded": ("lambda", "pairwise_logistic", "approx_ndcg", "neural_ndcg", "yeti"),
            "noisy": ("selection_weighted", "ranklist", "probability_error"),
        },
        "measure": _OF_LISTS,
    },
    "retrieval": {
        "loss": {
            "always": ("in_batch_info_nce", "info_nce", "triplet", "mann_whitney"),
            "imbalanced": ("bank_contrastive", "momentum_contrast", "progressive_info_nce"),
            "graded": ("cosent", "listwise_kl", "soft_label_alignment"),
            "noisy": ("debiased_contrastive", "bidirectional_margin", "soft_label_alignment"),
        },
        "measure": {"always": ("ndcg", "recall", "reciprocal_rank"), "noisy": ("judged", "ndcg")},
    },
    "recommendation": {
        "loss": {
            "always": ("pairwise_softmax", "cosine_contrastive", "pairwise_logistic"),
            "imbalanced": ("cosine_contrastive",),
            "graded": ("profit_aware_pairwise", "lambda", "welfare_rank"),
            "noisy": ("pairwise_softmax", "large_loss_modification"),
        },
        "measure": {"always": ("ndcg", "recall", "success", "auc")},
    },
    "metric-learning": {
        "loss": {
            "always": ("in_batch_multi_similarity", "in_batch_circle", "in_batch_supervised_contrastive", "cosface"),
            "imbalanced": ("submodular_supcon", "facility_location", "log_det"),
            "graded": ("contrastive_regression", "cosent"),
            "noisy": ("unified_negative_pair", "center"),
        },
        "measure": {"always": ("recall", "r_precision", "average_precision")},
    },
    "preference": {
        "loss": {
            "always": ("dpo", "simpo", "orpo", "ipo"),
            "imbalanced": ("kto", "npo"),
            "graded": ("lipo_lambda", "pro", "rrhf"),
            "noisy": ("robust_dpo", "cdpo", "ipo"),
        },
        "measure": {"always": ("pair_accuracy",), "graded": ("kendall_tau",)},
    },
    "generation": {
        "loss": {
            "always": ("cross_entropy", "dpo", "unlikelihood", "cringe"),
            "graded": ("graded_margin", "lipo_lambda"),
            "noisy": ("robust_dpo",),
        },
        "measure": {"always": ("perplexity", "rouge_l", "bleu", "exact_match")},
    },
    "rag": {
        "loss": {"always": ("in_batch_info_nce", "softmax", "yes_no")},
        "measure": {"always": ("context_precision", "context_recall", "faithfulness", "answer_correctness")},
    },
}
"""Task -> kind -> condition -> names; what holds under a condition comes before what always holds."""
