"""Evaluation: what is sure about systems, and what is not.

- `evaluate`: systems on a data set, with intervals, paired tests, tie groups, slices, power and cautions; `plots` draws it.
- `full_ranking`, `link_ranking`: every item ranked for recommenders and graphs, filtered, without a users x items table.
- `passage_protocol`: graded passages. `select_subset`: a shortlist from several rankings, under constraints.
- `CriteriaReranker`: candidates ranked by several criteria of their texts, weighed or in turn.

Names are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.evaluate.biased_rankings import bias_rankings, constraint_benefit_curve, score_smoothness
    from rivals.evaluate.committees import committee_score, rank_weights, satisfaction, single_scores
    from rivals.evaluate.compare import Comparison, compact_letters, compare_pairs, compare_with_baselines
    from rivals.evaluate.condensed import condense
    from rivals.evaluate.criteria import CriteriaReranker, Reranked, combine_criteria
    from rivals.evaluate.evaluation import evaluate
    from rivals.evaluate.evaluation_negatives import EvaluationNegatives
    from rivals.evaluate.full import SampledRankingWarning, full_ranking, vector_scores
    from rivals.evaluate.link_prediction import known_answers, link_ranking
    from rivals.evaluate.power import power_sentence
    from rivals.evaluate.protocols import PassageReport, mean_recall, mean_reciprocal_rank, passage_protocol
    from rivals.evaluate.ranked_answers import RankedAnswers
    from rivals.evaluate.result import Evaluation
    from rivals.evaluate.shortlists import proportional_bounds, select_subset, shortlist_runs
    from rivals.evaluate.slices import SliceView, slice_queries, slice_views
    from rivals.evaluate.text_criteria import (
        DocumentCoverage,
        Fluency,
        LabelAgreement,
        MeanRouge,
        SentenceBleu,
        VectorSimilarity,
        semantic_weights,
    )

__all__ = [
    "Comparison",
    "CriteriaReranker",
    "DocumentCoverage",
    "Evaluation",
    "EvaluationNegatives",
    "Fluency",
    "LabelAgreement",
    "MeanRouge",
    "PassageReport",
    "RankedAnswers",
    "Reranked",
    "SampledRankingWarning",
    "SentenceBleu",
    "SliceView",
    "VectorSimilarity",
    "bias_rankings",
    "combine_criteria",
    "committee_score",
    "compact_letters",
    "compare_pairs",
    "compare_with_baselines",
    "condense",
    "constraint_benefit_curve",
    "evaluate",
    "full_ranking",
    "known_answers",
    "link_ranking",
    "mean_recall",
    "mean_reciprocal_rank",
    "passage_protocol",
    "power_sentence",
    "proportional_bounds",
    "rank_weights",
    "satisfaction",
    "score_smoothness",
    "select_subset",
    "semantic_weights",
    "shortlist_runs",
    "single_scores",
    "slice_queries",
    "slice_views",
    "vector_scores",
]

_HOMES = {
    "text_criteria": (
        "SentenceBleu",
        "MeanRouge",
        "VectorSimilarity",
        "DocumentCoverage",
        "Fluency",
        "LabelAgreement",
        "semantic_weights",
    ),
    "criteria": ("CriteriaReranker", "combine_criteria", "Reranked"),
    "biased_rankings": (
        "bias_rankings",
        "constraint_benefit_curve",
        "score_smoothness",
    ),
    "committees": (
        "committee_score",
        "rank_weights",
        "satisfaction",
        "single_scores",
    ),
    "compare": (
        "Comparison",
        "compact_letters",
        "compare_pairs",
        "compare_with_baselines",
    ),
    "condensed": ("condense",),
    "evaluation": ("evaluate",),
    "evaluation_negatives": ("EvaluationNegatives",),
    "full": (
        "SampledRankingWarning",
        "full_ranking",
        "vector_scores",
    ),
    "link_prediction": (
        "known_answers",
        "link_ranking",
    ),
    "power": ("power_sentence",),
    "protocols": (
        "PassageReport",
        "mean_recall",
        "mean_reciprocal_rank",
        "passage_protocol",
    ),
    "ranked_answers": ("RankedAnswers",),
    "result": ("Evaluation",),
    "shortlists": (
        "proportional_bounds",
        "select_subset",
        "shortlist_runs",
    ),
    "slices": (
        "SliceView",
        "slice_queries",
        "slice_views",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rivals.evaluate' has no attribute '{name}'")
    home = next(module for module, names in _HOMES.items() if name in names)
    return getattr(import_module(f"rivals.evaluate.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
