"""Training: one short loop; objectives turn batches into losses, executors losses into gradients, regimes own time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.training.executor import CachedGradients, GradientCache, Plain, cached_backward
    from rivals.training.loop import LoopConfig, Objective, TrainingResult, fit
    from rivals.training.multi_task import CombinedGradients, MultiTaskObjective, SharingReport, sharing_report
    from rivals.training.negatives import Negatives
    from rivals.training.refresh import Refresh
    from rivals.training.regime import Regime, Together
    from rivals.training.retriever import RetrieverObjective, train_retriever
    from rivals.training.retriever_config import RetrieverConfig
    from rivals.training.supervised import SupervisedObjective

_HOME = {
    "CachedGradients": "executor",
    "GradientCache": "executor",
    "Plain": "executor",
    "cached_backward": "executor",
    "LoopConfig": "loop",
    "Objective": "loop",
    "TrainingResult": "loop",
    "fit": "loop",
    "CombinedGradients": "multi_task",
    "MultiTaskObjective": "multi_task",
    "SharingReport": "multi_task",
    "sharing_report": "multi_task",
    "Negatives": "negatives",
    "Refresh": "refresh",
    "Regime": "regime",
    "Together": "regime",
    "RetrieverConfig": "retriever_config",
    "RetrieverObjective": "retriever",
    "train_retriever": "retriever",
    "SupervisedObjective": "supervised",
}

__all__ = [
    "CachedGradients",
    "CombinedGradients",
    "GradientCache",
    "LoopConfig",
    "MultiTaskObjective",
    "Negatives",
    "Objective",
    "Plain",
    "Refresh",
    "Regime",
    "RetrieverConfig",
    "RetrieverObjective",
    "SharingReport",
    "SupervisedObjective",
    "Together",
    "TrainingResult",
    "cached_backward",
    "fit",
    "sharing_report",
    "train_retriever",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.training' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"rivals.training.{_HOME[name]}"), name)
