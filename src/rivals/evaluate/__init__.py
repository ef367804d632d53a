"""Compare systems on a data set: tables with intervals, paired tests, tie groups. Names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.evaluate.compare import Comparison, compact_letters, compare_pairs, compare_with_baselines
    from rivals.evaluate.evaluation import Evaluation, evaluate

__all__ = ["Comparison", "Evaluation", "compact_letters", "compare_pairs", "compare_with_baselines", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rivals.evaluate' has no attribute '{name}'")
    home = "evaluation" if name in ("Evaluation", "evaluate") else "compare"
    return getattr(import_module(f"rivals.evaluate.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
