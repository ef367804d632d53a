"""How good a ranking is, how sure we are of it, and whether two differ.

- `ranking`: nDCG, reciprocal rank, recall, precision, ... as functions `measure(scores, relevance, mask=None, *, ...)`;
  `cascade`: ERR and RBP; `correlation`: Kendall, Spearman, rank-biased overlap, pair accuracy; `roc`: AUC.
- `classification`, `label_ranking`: F scores, confusion, Jaccard, multi-label mAP, several classes' AUC. `calibration`:
  ECE and its kin, Brier score, log loss. `regression`, `survival`: errors of numbers, the concordance index.
- `text`, `overlap`, `rag`: edit distance, exact match, perplexity; ROUGE, BLEU; answers and contexts under a judge.
- `agreement`: Krippendorff's alpha, ordinal thresholds. `money`: welfare, value at the top, the cost of wrong flags.
- `thresholds`: the best F1 and the ROC curve of one threshold for all.
- `names`: the same by name (`parse_measure("nDCG@10")`), several with one sort (`measure_all`), and the table
  `MEASURES`.
- `intervals`: bootstrap intervals of means over queries. `significance`: paired randomisation tests, corrections,
  effect sizes.

Names are loaded when first used: intervals and tests need numpy alone, ranking measures need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.measures.agreement import OrdinalThresholds, krippendorff_alpha
    from rivals.measures.between_groups import groups_differ_test
    from rivals.measures.calibration import (
        CalibrationReport,
        ReliabilityCurve,
        brier_score,
        calibration_report,
        classwise_calibration_error,
        expected_calibration_error,
        negative_log_likelihood,
        reliability_curve,
    )
    from rivals.measures.cascade import expected_reciprocal_rank, rank_biased_precision
    from rivals.measures.classification import (
        Rates,
        classification_rates,
        confusion_matrix,
        f_score,
        hamming_error,
        jaccard_accuracy,
        subset_accuracy,
    )
    from rivals.measures.correlation import kendall_tau, pair_accuracy, rank_biased_overlap, spearman
    from rivals.measures.intervals import Interval, bootstrap_interval
    from rivals.measures.label_ranking import label_average_precision, multiclass_auc
    from rivals.measures.money import flagged_value, value_at_k, welfare, welfare_ratio, welfare_regret
    from rivals.measures.names import ALIASES, MEASURES, Measure, known_measures, measure_all, parse_measure
    from rivals.measures.overlap import Rouge, bleu, distinct_n, rouge_l, rouge_n
    from rivals.measures.rag import (
        PredictionPowered,
        answer_correctness,
        answer_relevance,
        answer_similarity,
        aspect_critique,
        context_entity_recall,
        context_precision,
        context_recall,
        faithfulness,
        prediction_powered_mean,
        summarisation_score,
    )
    from rivals.measures.ranking import (
        average_precision,
        dcg,
        judged,
        micro_recall,
        ndcg,
        precision,
        r_precision,
        recall,
        reciprocal_rank,
        success,
    )
    from rivals.measures.rating_tables import cohen_kappa
    from rivals.measures.regression import adjusted_r2, mae, mape, mse, pinball, r2, rmse, smape
    from rivals.measures.roc import auc, pooled_auc
    from rivals.measures.significance import (
        benjamini_hochberg,
        corrected,
        effect_size,
        holm,
        minimal_detectable_difference,
        queries_needed,
        randomisation_test,
        standardised_difference,
        superiority,
    )
    from rivals.measures.survival import Concordance, concordance_counts, concordance_index
    from rivals.measures.text import (
        character_error_rate,
        edit_distance,
        exact_match,
        normalise_answer,
        perplexity,
        token_f1,
        word_error_rate,
    )
    from rivals.measures.thresholds import BestF1, RocCurve, best_f1, pooled_roc_curve

__all__ = [
    "ALIASES",
    "MEASURES",
    "BestF1",
    "CalibrationReport",
    "Concordance",
    "Interval",
    "Measure",
    "OrdinalThresholds",
    "PredictionPowered",
    "Rates",
    "ReliabilityCurve",
    "RocCurve",
    "Rouge",
    "adjusted_r2",
    "answer_correctness",
    "answer_relevance",
    "answer_similarity",
    "aspect_critique",
    "auc",
    "average_precision",
    "benjamini_hochberg",
    "best_f1",
    "bleu",
    "bootstrap_interval",
    "brier_score",
    "calibration_report",
    "character_error_rate",
    "classification_rates",
    "classwise_calibration_error",
    "cohen_kappa",
    "concordance_counts",
    "concordance_index",
    "confusion_matrix",
    "context_entity_recall",
    "context_precision",
    "context_recall",
    "corrected",
    "dcg",
    "distinct_n",
    "edit_distance",
    "effect_size",
    "exact_match",
    "expected_calibration_error",
    "expected_reciprocal_rank",
    "f_score",
    "faithfulness",
    "flagged_value",
    "groups_differ_test",
    "hamming_error",
    "holm",
    "jaccard_accuracy",
    "judged",
    "kendall_tau",
    "known_measures",
    "krippendorff_alpha",
    "label_average_precision",
    "mae",
    "mape",
    "measure_all",
    "micro_recall",
    "minimal_detectable_difference",
    "mse",
    "multiclass_auc",
    "ndcg",
    "negative_log_likelihood",
    "normalise_answer",
    "pair_accuracy",
    "parse_measure",
    "perplexity",
    "pinball",
    "pooled_auc",
    "pooled_roc_curve",
    "precision",
    "prediction_powered_mean",
    "queries_needed",
    "r2",
    "r_precision",
    "randomisation_test",
    "rank_biased_overlap",
    "rank_biased_precision",
    "recall",
    "reciprocal_rank",
    "reliability_curve",
    "rmse",
    "rouge_l",
    "rouge_n",
    "smape",
    "spearman",
    "standardised_difference",
    "subset_accuracy",
    "success",
    "summarisation_score",
    "superiority",
    "token_f1",
    "value_at_k",
    "welfare",
    "welfare_ratio",
    "welfare_regret",
    "word_error_rate",
]

_HOMES = {
    "agreement": (
        "OrdinalThresholds",
        "krippendorff_alpha",
    ),
    "between_groups": ("groups_differ_test",),
    "calibration": (
        "CalibrationReport",
        "ReliabilityCurve",
        "brier_score",
        "calibration_report",
        "classwise_calibration_error",
        "expected_calibration_error",
        "negative_log_likelihood",
        "reliability_curve",
    ),
    "cascade": (
        "expected_reciprocal_rank",
        "rank_biased_precision",
    ),
    "classification": (
        "Rates",
        "classification_rates",
        "confusion_matrix",
        "f_score",
        "hamming_error",
        "jaccard_accuracy",
        "subset_accuracy",
    ),
    "correlation": (
        "kendall_tau",
        "pair_accuracy",
        "rank_biased_overlap",
        "spearman",
    ),
    "intervals": (
        "Interval",
        "bootstrap_interval",
    ),
    "label_ranking": (
        "label_average_precision",
        "multiclass_auc",
    ),
    "money": (
        "flagged_value",
        "value_at_k",
        "welfare",
        "welfare_ratio",
        "welfare_regret",
    ),
    "names": (
        "ALIASES",
        "MEASURES",
        "Measure",
        "known_measures",
        "measure_all",
        "parse_measure",
    ),
    "overlap": (
        "Rouge",
        "bleu",
        "distinct_n",
        "rouge_l",
        "rouge_n",
    ),
    "rag": (
        "PredictionPowered",
        "answer_correctness",
        "answer_relevance",
        "answer_similarity",
        "aspect_critique",
        "context_entity_recall",
        "context_precision",
        "context_recall",
        "faithfulness",
        "prediction_powered_mean",
        "summarisation_score",
    ),
    "rating_tables": ("cohen_kappa",),
    "regression": (
        "adjusted_r2",
        "mae",
        "mape",
        "mse",
        "pinball",
        "r2",
        "rmse",
        "smape",
    ),
    "roc": (
        "auc",
        "pooled_auc",
    ),
    "significance": (
        "benjamini_hochberg",
        "corrected",
        "effect_size",
        "holm",
        "minimal_detectable_difference",
        "queries_needed",
        "randomisation_test",
        "standardised_difference",
        "superiority",
    ),
    "survival": (
        "Concordance",
        "concordance_counts",
        "concordance_index",
    ),
    "text": (
        "character_error_rate",
        "edit_distance",
        "exact_match",
        "normalise_answer",
        "perplexity",
        "token_f1",
        "word_error_rate",
    ),
    "thresholds": (
        "BestF1",
        "RocCurve",
        "best_f1",
        "pooled_roc_curve",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rivals.measures' has no attribute '{name}'")
    home = next((module for module, names in _HOMES.items() if name in names), "ranking")
    return getattr(import_module(f"rivals.measures.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
