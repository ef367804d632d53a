"""Diagnoses: what is wrong with a model, as reports that are values.

- `collapse`: embeddings that fall together. `multiplicity`, `viable`: models of equal quality that disagree.
- `conditions`, `negation`: documents and queries edited so that only a careful scorer ranks them right.
- `judges`, `unsupervised`: judges of pairs and probes without labels, and whether they contradict themselves.
- `ngrams`: the fluency of texts, and systems ranked by it. `scaling`: forecasts of larger models.
- `landscape`, `curvature`: the loss around a model, along directions and trajectories, and its sharpest curvatures.

Names are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.diagnose.collapse import CollapseReport, SeparationGap, collapse_report, triplet_separation_gap
    from rivals.diagnose.conditions import Monotonicity, WinRate, chain_monotonicity, order_flip_rate, pair_win_rate
    from rivals.diagnose.curvature import hessian_extremes, project_displacement, trajectory_plane
    from rivals.diagnose.judges import JudgeConsistency, break_ties, fuse_scores, judge_consistency, pairwise_wins
    from rivals.diagnose.landscape import (
        direction_cosine,
        interpolate_models,
        loss_curve,
        loss_surface,
        model_difference,
        normalize_direction,
        random_direction,
        sharpness,
    )
    from rivals.diagnose.multiplicity import (
        MultiplicityReport,
        RashomonSet,
        mean_above_quantile,
        rank_ambiguity,
        rashomon_capacity,
    )
    from rivals.diagnose.negation import (
        ContrastItem,
        PairedPreference,
        contrast_pairs,
        contrast_triples,
        paired_preference,
    )
    from rivals.diagnose.ngrams import NgramLM, rank_agreement, rank_outputs, system_ranking
    from rivals.diagnose.scaling import (
        AccuracyLink,
        Forecast,
        LossLaw,
        ScalingLadder,
        Variance,
        fit_accuracy_link,
        fit_loss_law,
        huber_objective,
        moving_average,
    )
    from rivals.diagnose.unsupervised import (
        center_by_class,
        contrast_consistency,
        direction_free_margin,
        direction_free_triplet,
        min_over_directions,
        oracle_direction,
        ordinal_consistency,
    )
    from rivals.diagnose.viable import ViableRange, viable_range_linear

__all__ = [
    "AccuracyLink",
    "CollapseReport",
    "ContrastItem",
    "Forecast",
    "JudgeConsistency",
    "LossLaw",
    "Monotonicity",
    "MultiplicityReport",
    "NgramLM",
    "PairedPreference",
    "RashomonSet",
    "ScalingLadder",
    "SeparationGap",
    "Variance",
    "ViableRange",
    "WinRate",
    "break_ties",
    "center_by_class",
    "chain_monotonicity",
    "collapse_report",
    "contrast_consistency",
    "contrast_pairs",
    "contrast_triples",
    "direction_cosine",
    "direction_free_margin",
    "direction_free_triplet",
    "fit_accuracy_link",
    "fit_loss_law",
    "fuse_scores",
    "hessian_extremes",
    "huber_objective",
    "interpolate_models",
    "judge_consistency",
    "loss_curve",
    "loss_surface",
    "mean_above_quantile",
    "min_over_directions",
    "model_difference",
    "moving_average",
    "normalize_direction",
    "oracle_direction",
    "order_flip_rate",
    "ordinal_consistency",
    "pair_win_rate",
    "paired_preference",
    "pairwise_wins",
    "project_displacement",
    "random_direction",
    "rank_agreement",
    "rank_ambiguity",
    "rank_outputs",
    "rashomon_capacity",
    "sharpness",
    "system_ranking",
    "trajectory_plane",
    "triplet_separation_gap",
    "viable_range_linear",
]

_HOMES = {
    "landscape": (
        "direction_cosine",
        "interpolate_models",
        "loss_curve",
        "loss_surface",
        "model_difference",
        "normalize_direction",
        "random_direction",
        "sharpness",
    ),
    "curvature": ("hessian_extremes", "project_displacement", "trajectory_plane"),
    "collapse": (
        "CollapseReport",
        "SeparationGap",
        "collapse_report",
        "triplet_separation_gap",
    ),
    "conditions": (
        "Monotonicity",
        "WinRate",
        "chain_monotonicity",
        "order_flip_rate",
        "pair_win_rate",
    ),
    "judges": (
        "JudgeConsistency",
        "break_ties",
        "fuse_scores",
        "judge_consistency",
        "pairwise_wins",
    ),
    "multiplicity": (
        "MultiplicityReport",
        "RashomonSet",
        "mean_above_quantile",
        "rank_ambiguity",
        "rashomon_capacity",
    ),
    "negation": (
        "ContrastItem",
        "PairedPreference",
        "contrast_pairs",
        "contrast_triples",
        "paired_preference",
    ),
    "ngrams": (
        "NgramLM",
        "rank_agreement",
        "rank_outputs",
        "system_ranking",
    ),
    "scaling": (
        "AccuracyLink",
        "Forecast",
        "LossLaw",
        "ScalingLadder",
        "Variance",
        "fit_accuracy_link",
        "fit_loss_law",
        "huber_objective",
        "moving_average",
    ),
    "unsupervised": (
        "center_by_class",
        "contrast_consistency",
        "direction_free_margin",
        "direction_free_triplet",
        "min_over_directions",
        "oracle_direction",
        "ordinal_consistency",
    ),
    "viable": (
        "ViableRange",
        "viable_range_linear",
    ),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'rivals.diagnose' has no attribute '{name}'")
    return getattr(import_module(f"rivals.diagnose.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
