"""Training: one short loop, objectives that turn batches into losses, checkpoints that survive a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.training.loop import LoopConfig, Objective, TrainingResult, fit
    from rivals.training.retriever import RetrieverConfig, RetrieverObjective, train_retriever

__all__ = [
    "LoopConfig",
    "Objective",
    "RetrieverConfig",
    "RetrieverObjective",
    "TrainingResult",
    "fit",
    "train_retriever",
]

_HOME = {
    "LoopConfig": "loop",
    "Objective": "loop",
    "TrainingResult": "loop",
    "fit": "loop",
    "RetrieverConfig": "retriever",
    "RetrieverObjective": "retriever",
    "train_retriever": "retriever",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.training' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"rivals.training.{_HOME[name]}"), name)
