"""The main job, end to end: documents and pairs in, a measured two-stage search out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.workflow.config import ExperimentConfig, load_config, to_toml
    from rivals.workflow.experiment import run_experiment
    from rivals.workflow.run_folder import RunFolder

__all__ = ["ExperimentConfig", "RunFolder", "load_config", "run_experiment", "to_toml"]

_HOME = {
    "ExperimentConfig": "config",
    "load_config": "config",
    "to_toml": "config",
    "run_experiment": "experiment",
    "RunFolder": "run_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.workflow' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"rivals.workflow.{_HOME[name]}"), name)
