"""Training: one short loop; objectives turn batches into losses, executors losses into gradients, regimes own time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.training.adversarial import AdversarialObjective
    from rivals.training.coupled import CoupledObjective
    from rivals.training.curriculum import CurriculumObjective
    from rivals.training.dual_head import AlignedGradients, DualHeadObjective
    from rivals.training.exchange import Follow, generate_negatives, newest_negatives, publish_negatives
    from rivals.training.executor import CachedGradients, GradientCache, Plain, cached_backward, cached_loss
    from rivals.training.forking import Merge, TaskMixture, fork_merge, rank_auxiliaries, task_mixtures
    from rivals.training.late_interaction import (
        LateInteractionObjective,
        MultiGranularObjective,
        train_late_interaction,
    )
    from rivals.training.live_query import LiveQuery, LiveQueryObjective
    from rivals.training.loop import LoopConfig, Objective, TrainingResult, fit
    from rivals.training.multi_task import CombinedGradients, MultiTaskObjective, SharingReport, sharing_report
    from rivals.training.negatives import Negatives
    from rivals.training.phased import Phased
    from rivals.training.query_batches import QueryBatches
    from rivals.training.ranker import ListObjective, ScorerObjective, TaughtObjective
    from rivals.training.refresh import Refresh
    from rivals.training.regime import Regime, Together
    from rivals.training.retriever import RetrieverObjective, train_retriever
    from rivals.training.retriever_config import RetrieverConfig
    from rivals.training.safe_sharing import fit_safe
    from rivals.training.schedules import Alternate, Curriculum, Phases, Progressive, Stage, Stages
    from rivals.training.scorers import FeatureScorer, PairScorer, Scorer
    from rivals.training.soup import Soup, train_soup
    from rivals.training.staleness import Staleness
    from rivals.training.supervised import SupervisedObjective
    from rivals.training.vector_scorers import EncodedTexts, MappedVectors, VectorScorer

_HOME = {
    "AdversarialObjective": "adversarial",
    "AlignedGradients": "dual_head",
    "Alternate": "schedules",
    "CachedGradients": "executor",
    "CombinedGradients": "multi_task",
    "CoupledObjective": "coupled",
    "Curriculum": "schedules",
    "CurriculumObjective": "curriculum",
    "DualHeadObjective": "dual_head",
    "EncodedTexts": "vector_scorers",
    "FeatureScorer": "scorers",
    "Follow": "exchange",
    "GradientCache": "executor",
    "LateInteractionObjective": "late_interaction",
    "ListObjective": "ranker",
    "LiveQuery": "live_query",
    "LiveQueryObjective": "live_query",
    "LoopConfig": "loop",
    "MappedVectors": "vector_scorers",
    "Merge": "forking",
    "MultiGranularObjective": "late_interaction",
    "MultiTaskObjective": "multi_task",
    "Negatives": "negatives",
    "Objective": "loop",
    "PairScorer": "scorers",
    "Phased": "phased",
    "Phases": "schedules",
    "Plain": "executor",
    "Progressive": "schedules",
    "QueryBatches": "query_batches",
    "Refresh": "refresh",
    "Regime": "regime",
    "RetrieverConfig": "retriever_config",
    "RetrieverObjective": "retriever",
    "Scorer": "scorers",
    "ScorerObjective": "ranker",
    "SharingReport": "multi_task",
    "Soup": "soup",
    "Stage": "schedules",
    "Stages": "schedules",
    "Staleness": "staleness",
    "SupervisedObjective": "supervised",
    "TaskMixture": "forking",
    "TaughtObjective": "ranker",
    "Together": "regime",
    "TrainingResult": "loop",
    "VectorScorer": "vector_scorers",
    "cached_backward": "executor",
    "cached_loss": "executor",
    "fit": "loop",
    "fit_safe": "safe_sharing",
    "fork_merge": "forking",
    "generate_negatives": "exchange",
    "newest_negatives": "exchange",
    "publish_negatives": "exchange",
    "rank_auxiliaries": "forking",
    "sharing_report": "multi_task",
    "task_mixtures": "forking",
    "train_late_interaction": "late_interaction",
    "train_retriever": "retriever",
    "train_soup": "soup",
}

__all__ = [
    "AdversarialObjective",
    "AlignedGradients",
    "Alternate",
    "CachedGradients",
    "CombinedGradients",
    "CoupledObjective",
    "Curriculum",
    "CurriculumObjective",
    "DualHeadObjective",
    "EncodedTexts",
    "FeatureScorer",
    "Follow",
    "GradientCache",
    "LateInteractionObjective",
    "ListObjective",
    "LiveQuery",
    "LiveQueryObjective",
    "LoopConfig",
    "MappedVectors",
    "Merge",
    "MultiGranularObjective",
    "MultiTaskObjective",
    "Negatives",
    "Objective",
    "PairScorer",
    "Phased",
    "Phases",
    "Plain",
    "Progressive",
    "QueryBatches",
    "Refresh",
    "Regime",
    "RetrieverConfig",
    "RetrieverObjective",
    "Scorer",
    "ScorerObjective",
    "SharingReport",
    "Soup",
    "Stage",
    "Stages",
    "Staleness",
    "SupervisedObjective",
    "TaskMixture",
    "TaughtObjective",
    "Together",
    "TrainingResult",
    "VectorScorer",
    "cached_backward",
    "cached_loss",
    "fit",
    "fit_safe",
    "fork_merge",
    "generate_negatives",
    "newest_negatives",
    "publish_negatives",
    "rank_auxiliaries",
    "sharing_report",
    "task_mixtures",
    "train_late_interaction",
    "train_retriever",
    "train_soup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.training' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"rivals.training.{_HOME[name]}"), name)
