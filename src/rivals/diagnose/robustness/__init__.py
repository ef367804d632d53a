"""Robustness of any system on the user's own data: what perturbed queries, documents and candidates cost it.

- `suite`: `robustness_report`, the one call. `report`: what it returns.
- `queries`, `documents`, `attack`, `systems`: the perturbations. `edits`: what they do to a text. `synonyms`: words for words.
- `stability`: spread over queries, drops between conditions, and how far rankings move.
"""

from rivals.diagnose.robustness.attack import SearchSubstitutions
from rivals.diagnose.robustness.documents import (
    ChangedDocuments,
    ChangeRelevant,
    DocumentChange,
    NearDuplicates,
    PadPassages,
    StuffKeywords,
    SubstituteWords,
)
from rivals.diagnose.robustness.edits import perturb
from rivals.diagnose.robustness.queries import (
    ChangeCase,
    ChangePunctuation,
    DropWords,
    Generated,
    Negate,
    ReplaceSynonyms,
    Reword,
    TextChange,
    Typos,
    WordOrder,
    paraphrases,
)
from rivals.diagnose.robustness.report import PerturbationResult, RobustnessReport, WorstCase
from rivals.diagnose.robustness.stability import (
    QuerySpread,
    Ranking,
    RoundStability,
    Shift,
    drop_rate,
    kendall_distance,
    normalised_variance,
    query_spread,
    ranking_overlap,
    round_stability,
    run_overlap,
    shift,
    top_change,
    worst_fraction_mean,
)
from rivals.diagnose.robustness.suite import Perturbation, default_perturbations, robustness_report
from rivals.diagnose.robustness.synonyms import corpus_synonyms
from rivals.diagnose.robustness.systems import CandidateOrder, System, rebuilt, text_scorer

__all__ = [
    "CandidateOrder",
    "ChangeCase",
    "ChangePunctuation",
    "ChangeRelevant",
    "ChangedDocuments",
    "DocumentChange",
    "DropWords",
    "Generated",
    "NearDuplicates",
    "Negate",
    "PadPassages",
    "Perturbation",
    "PerturbationResult",
    "QuerySpread",
    "Ranking",
    "ReplaceSynonyms",
    "Reword",
    "RobustnessReport",
    "RoundStability",
    "SearchSubstitutions",
    "Shift",
    "StuffKeywords",
    "SubstituteWords",
    "System",
    "TextChange",
    "Typos",
    "WordOrder",
    "WorstCase",
    "corpus_synonyms",
    "default_perturbations",
    "drop_rate",
    "kendall_distance",
    "normalised_variance",
    "paraphrases",
    "perturb",
    "query_spread",
    "ranking_overlap",
    "rebuilt",
    "robustness_report",
    "round_stability",
    "run_overlap",
    "shift",
    "text_scorer",
    "top_change",
    "worst_fraction_mean",
]
