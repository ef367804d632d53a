"""rivals: train, clean, evaluate and serve anything that ranks, by learning from negatives.

The names here are loaded when first used; `import rivals` itself loads neither torch nor any other heavy package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Collection": "rivals.data",
    "Dataset": "rivals.data",
    "Judgements": "rivals.data",
    "Run": "rivals.data",
    "load_dataset": "rivals.data",
    "load_sample": "rivals.data",
    "BM25": "rivals.retrieve",
    "Dense": "rivals.retrieve",
    "ReciprocalRankFusion": "rivals.retrieve",
    "WeightedFusion": "rivals.retrieve",
    "Encoder": "rivals.models",
    "CrossEncoder": "rivals.models",
    "PositiveAware": "rivals.negatives",
    "Softmax": "rivals.negatives",
    "Top": "rivals.negatives",
    "Uniform": "rivals.negatives",
    "mine_hard_negatives": "rivals.negatives",
    "Negatives": "rivals.training",
    "RetrieverConfig": "rivals.training",
    "train_retriever": "rivals.training",
    "ExperimentConfig": "rivals.workflow",
    "run_experiment": "rivals.workflow",
    "load_engine": "rivals.serve",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from rivals.data import Collection, Dataset, Judgements, Run, load_dataset, load_sample
    from rivals.models import CrossEncoder, Encoder
    from rivals.negatives import PositiveAware, Softmax, Top, Uniform, mine_hard_negatives
    from rivals.retrieve import BM25, Dense, ReciprocalRankFusion, WeightedFusion
    from rivals.serve import load_engine
    from rivals.training import Negatives, RetrieverConfig, train_retriever
    from rivals.workflow import ExperimentConfig, run_experiment


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
