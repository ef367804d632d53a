"""How good a ranking is, how sure we are of it, and whether two differ.

- `ranking`: nDCG, reciprocal rank, recall, precision, ... as functions `measure(scores, relevance, mask=None, *, ...)`;
  `cascade`: ERR and RBP; `correlation`: Kendall, Spearman, rank-biased overlap, pair accuracy; `roc`: AUC.
- `agreement`: Krippendorff's alpha.
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
        label_average_precision,
        multiclass_auc,
        subset_accuracy,
    )
    from rivals.measures.correlation import kendall_tau, pair_accuracy, rank_biased_overlap, spearman
    from rivals.measures.intervals import Interval, bootstrap_interval
    from rivals.measures.names import ALIASES, MEASURES, Measure, known_measures, measure_all, parse_measure
    from rivals.measures.ranking import (
        average_precision,
        dcg,
        judged,
        ndcg,
        precision,
        r_precision,
        recall,
        reciprocal_rank,
        success,
    )
    from rivals.measures.roc import auc, pooled_auc
    from rivals.measures.significance import (
        benjamini_hochberg,
        effect_size,
        holm,
        minimal_detectable_difference,
        randomisation_test,
    )

__all__ = [
    "ALIASES",
    "MEASURES",
    "CalibrationReport",
    "Interval",
    "Measure",
    "OrdinalThresholds",
    "Rates",
    "ReliabilityCurve",
    "auc",
    "average_precision",
    "benjamini_hochberg",
    "bootstrap_interval",
    "brier_score",
    "calibration_report",
    "classification_rates",
    "classwise_calibration_error",
    "confusion_matrix",
    "dcg",
    "effect_size",
    "expected_calibration_error",
    "expected_reciprocal_rank",
    "f_score",
    "hamming_error",
    "holm",
    "jaccard_accuracy",
    "judged",
    "kendall_tau",
    "known_measures",
    "krippendorff_alpha",
    "label_average_precision",
    "measure_all",
    "minimal_detectable_difference",
    "multiclass_auc",
    "ndcg",
    "negative_log_likelihood",
    "pair_accuracy",
    "parse_measure",
    "pooled_auc",
    "precision",
    "r_precision",
    "randomisation_test",
    "rank_biased_overlap",
    "rank_biased_precision",
    "recall",
    "reciprocal_rank",
    "reliability_curve",
    "spearman",
    "subset_accuracy",
    "success",
]

_HOMES = {
    "agreement": (
        "OrdinalThresholds",
        "krippendorff_alpha",
    ),
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
        "label_average_precision",
        "multiclass_auc",
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
    "names": (
        "ALIASES",
        "MEASURES",
        "Measure",
        "known_measures",
        "measure_all",
        "parse_measure",
    ),
    "roc": (
        "auc",
        "pooled_auc",
    ),
    "significance": (
        "benjamini_hochberg",
        "effect_size",
        "holm",
        "minimal_detectable_difference",
        "randomisation_test",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rivals.measures' has no attribute '{name}'")
    home = next((module for module, names in _HOMES.items() if name in names), "ranking")
    return getattr(import_module(f"rivals.measures.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
