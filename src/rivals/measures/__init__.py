"""How good a ranking is, how sure we are of it, and whether two differ.

- `ranking`: nDCG, reciprocal rank, recall, precision, ... as functions `measure(scores, relevance, mask=None, *, ...)`.
- `names`: the same by name (`parse_measure("nDCG@10")`), several with one sort (`measure_all`), and the table
  `MEASURES`.
- `intervals`: bootstrap intervals of means over queries. `significance`: paired randomisation tests, corrections,
  effect sizes.

Names are loaded when first used: intervals and tests need numpy alone, ranking measures need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "Interval",
    "Measure",
    "average_precision",
    "benjamini_hochberg",
    "bootstrap_interval",
    "dcg",
    "effect_size",
    "holm",
    "judged",
    "known_measures",
    "measure_all",
    "minimal_detectable_difference",
    "ndcg",
    "parse_measure",
    "precision",
    "r_precision",
    "randomisation_test",
    "recall",
    "reciprocal_rank",
    "success",
]

_HOMES = {
    "intervals": ("Interval", "bootstrap_interval"),
    "names": ("ALIASES", "MEASURES", "Measure", "known_measures", "measure_all", "parse_measure"),
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
