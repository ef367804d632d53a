"""Diagnoses: what is wrong with a model, as reports that are values.

- `collapse`: embeddings that fall together. `watch`: any of these looks, or the scores, while a model trains.
- `multiplicity`, `viable`, `viable_gradient`, `exploration`: models of equal quality that disagree, and how to find them.
- `second_order`, `properness`: uncertainty about uncertainty, and what losses can and cannot teach of it.
- `robustness`: changed queries, documents and candidate lists on the user's own data, each with the drop and an interval.
- `conditions`, `condition_sets`, `negation`: documents and queries edited so that only a careful scorer ranks them right.
- `judges`, `unsupervised`, `preference`: judges of pairs, probes without labels, and what preference models rank right.
- `bags`, `unit_tests`: tests that a model over bags of instances must pass.
- `training_sets`: which of several training sets hurt.
- `ngrams`: the fluency of texts, and systems ranked by it. `scaling`, `scaling_alternatives`: forecasts of larger models.
- `landscape`, `curvature`, `trained`: the loss around a model or its training, along directions, and its curvatures.

Names are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.diagnose.bags import (
        Bags,
        BagSplit,
        mil_unit_test,
    )
    from rivals.diagnose.collapse import (
        CollapseReport,
        SeparationGap,
        collapse_report,
        triplet_separation_gap,
    )
    from rivals.diagnose.condition_sets import (
        ConditionItem,
        ConditionItems,
        condition_items,
        graded_lists,
    )
    from rivals.diagnose.conditions import (
        ConditionReport,
        Monotonicity,
        WinRate,
        chain_monotonicity,
        condition_report,
        order_flip_rate,
        pair_win_rate,
        score_pairs,
    )
    from rivals.diagnose.curvature import (
        CurvatureSurface,
        curvature_surface,
        hessian_extremes,
        project_displacement,
        trajectory_plane,
    )
    from rivals.diagnose.exploration import (
        RashomonSample,
        rashomon_ensembles,
        rashomon_of_models,
        sample_rashomon,
        select_least_multiple,
    )
    from rivals.diagnose.judges import (
        JudgeConsistency,
        break_ties,
        fuse_scores,
        judge_consistency,
        pairwise_wins,
    )
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
        ContrastReport,
        EditedItems,
        EditedPassage,
        PairedPreference,
        contrast_pairs,
        contrast_report,
        contrast_triples,
        negation_items,
        paired_preference,
    )
    from rivals.diagnose.ngrams import (
        NgramLM,
        rank_agreement,
        rank_outputs,
        system_ranking,
    )
    from rivals.diagnose.preference import (
        Ideal,
        PreferenceRanking,
        Transitions,
        model_preference_ranking,
        preference_ranking,
    )
    from rivals.diagnose.properness import (
        EpistemicDecay,
        PropernessReport,
        check_epistemic_decay,
        check_second_order_properness,
    )
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
    from rivals.diagnose.scaling_alternatives import (
        ComputeLaw,
        SingleStepLaw,
        fit_compute_law,
        fit_single_step,
    )
    from rivals.diagnose.second_order import (
        Dirichlet,
        Samples,
        Uncertainty,
        dirichlet_kl,
        energy_score,
        second_order_loss,
        uncertainty,
    )
    from rivals.diagnose.trained import (
        ObjectiveLoss,
        TrajectoryRecorder,
        TrajectorySurface,
        trajectory_surface,
    )
    from rivals.diagnose.training_sets import LeaveOneOut, SetEffect, leave_one_out
    from rivals.diagnose.unit_tests import (
        MonotoneCheck,
        UnitTestReport,
        UnitTestResult,
        bag_auc,
        check_monotone_in_instances,
        fit_bag_classifier,
        run_mil_unit_tests,
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
    from rivals.diagnose.viable import (
        ViableRange,
        viable_range_linear,
    )
    from rivals.diagnose.viable_gradient import (
        GradientRange,
        viable_range_gradient,
    )
    from rivals.diagnose.watch import (
        ScoreHistory,
        ScoreView,
        Watch,
    )

__all__ = [
    "AccuracyLink",
    "BagSplit",
    "Bags",
    "CollapseReport",
    "ComputeLaw",
    "ConditionItem",
    "ConditionItems",
    "ConditionReport",
    "ContrastItem",
    "ContrastReport",
    "CurvatureSurface",
    "Dirichlet",
    "EditedItems",
    "EditedPassage",
    "EpistemicDecay",
    "Forecast",
    "GradientRange",
    "Ideal",
    "JudgeConsistency",
    "LeaveOneOut",
    "LossLaw",
    "MonotoneCheck",
    "Monotonicity",
    "MultiplicityReport",
    "NgramLM",
    "ObjectiveLoss",
    "PairedPreference",
    "PreferenceRanking",
    "PropernessReport",
    "RashomonSample",
    "RashomonSet",
    "Samples",
    "ScalingLadder",
    "ScoreHistory",
    "ScoreView",
    "SeparationGap",
    "SetEffect",
    "SingleStepLaw",
    "TrajectoryRecorder",
    "TrajectorySurface",
    "Transitions",
    "Uncertainty",
    "UnitTestReport",
    "UnitTestResult",
    "Variance",
    "ViableRange",
    "Watch",
    "WinRate",
    "bag_auc",
    "break_ties",
    "center_by_class",
    "chain_monotonicity",
    "check_epistemic_decay",
    "check_monotone_in_instances",
    "check_second_order_properness",
    "collapse_report",
    "condition_items",
    "condition_report",
    "contrast_consistency",
    "contrast_pairs",
    "contrast_report",
    "contrast_triples",
    "curvature_surface",
    "direction_cosine",
    "direction_free_margin",
    "direction_free_triplet",
    "dirichlet_kl",
    "energy_score",
    "fit_accuracy_link",
    "fit_bag_classifier",
    "fit_compute_law",
    "fit_loss_law",
    "fit_single_step",
    "fuse_scores",
    "graded_lists",
    "hessian_extremes",
    "huber_objective",
    "interpolate_models",
    "judge_consistency",
    "leave_one_out",
    "loss_curve",
    "loss_surface",
    "mean_above_quantile",
    "mil_unit_test",
    "min_over_directions",
    "model_difference",
    "model_preference_ranking",
    "moving_average",
    "negation_items",
    "normalize_direction",
    "oracle_direction",
    "order_flip_rate",
    "ordinal_consistency",
    "pair_win_rate",
    "paired_preference",
    "pairwise_wins",
    "preference_ranking",
    "project_displacement",
    "random_direction",
    "rank_agreement",
    "rank_ambiguity",
    "rank_outputs",
    "rashomon_capacity",
    "rashomon_ensembles",
    "rashomon_of_models",
    "run_mil_unit_tests",
    "sample_rashomon",
    "score_pairs",
    "second_order_loss",
    "select_least_multiple",
    "sharpness",
    "system_ranking",
    "trajectory_plane",
    "trajectory_surface",
    "triplet_separation_gap",
    "uncertainty",
    "viable_range_gradient",
    "viable_range_linear",
]

#: Module -> its public names.
_HOMES = {
    "bags": "BagSplit Bags mil_unit_test",
    "collapse": "CollapseReport SeparationGap collapse_report triplet_separation_gap",
    "condition_sets": "ConditionItem ConditionItems condition_items graded_lists",
    "conditions": "ConditionReport Monotonicity WinRate chain_monotonicity condition_report order_flip_rate "
    "pair_win_rate score_pairs",
    "curvature": "CurvatureSurface curvature_surface hessian_extremes project_displacement trajectory_plane",
    "exploration": "RashomonSample rashomon_ensembles rashomon_of_models sample_rashomon select_least_multiple",
    "judges": "JudgeConsistency break_ties fuse_scores judge_consistency pairwise_wins",
    "landscape": "direction_cosine interpolate_models loss_curve loss_surface model_difference normalize_direction "
    "random_direction sharpness",
    "multiplicity": "MultiplicityReport RashomonSet mean_above_quantile rank_ambiguity rashomon_capacity",
    "negation": "ContrastItem ContrastReport EditedItems EditedPassage PairedPreference contrast_pairs "
    "contrast_report contrast_triples negation_items paired_preference",
    "ngrams": "NgramLM rank_agreement rank_outputs system_ranking",
    "preference": "Ideal PreferenceRanking Transitions model_preference_ranking preference_ranking",
    "properness": "EpistemicDecay PropernessReport check_epistemic_decay check_second_order_properness",
    "scaling": "AccuracyLink Forecast LossLaw ScalingLadder Variance fit_accuracy_link fit_loss_law huber_objective "
    "moving_average",
    "scaling_alternatives": "ComputeLaw SingleStepLaw fit_compute_law fit_single_step",
    "second_order": "Dirichlet Samples Uncertainty dirichlet_kl energy_score second_order_loss uncertainty",
    "trained": "ObjectiveLoss TrajectoryRecorder TrajectorySurface trajectory_surface",
    "training_sets": "LeaveOneOut SetEffect leave_one_out",
    "unit_tests": "MonotoneCheck UnitTestReport UnitTestResult bag_auc check_monotone_in_instances fit_bag_classifier "
    "run_mil_unit_tests",
    "unsupervised": "center_by_class contrast_consistency direction_free_margin direction_free_triplet "
    "min_over_directions oracle_direction ordinal_consistency",
    "viable": "ViableRange viable_range_linear",
    "viable_gradient": "GradientRange viable_range_gradient",
    "watch": "ScoreHistory ScoreView Watch",
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names.split()), None)
    if home is None:
        raise AttributeError(f"module 'rivals.diagnose' has no attribute '{name}'")
    return getattr(import_module(f"rivals.diagnose.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
