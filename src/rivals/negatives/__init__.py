"""Negatives: sources propose, filters mark, samplers draw from the rest; mining does it all and reports what happened.

Judges and what language models write live in `judging` and `generating`, batches in `batching`, clusters of machines in `engines`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.negatives._examples import Example
    from rivals.negatives._score_statistics import ScoreSummary
    from rivals.negatives.adapter import (
        AdapterLoss,
        RetrieverAdapter,
        TrainedAdapter,
        adapter_loss,
        line_penalty,
        train_adapter,
    )
    from rivals.negatives.adapter_transforms import AdapterFilter, AdapterReranker, adapter_scores
    from rivals.negatives.ambiguous import Ambiguous, ambiguous_probabilities
    from rivals.negatives.answer_match import AnswerMatch
    from rivals.negatives.audit import MiningAudit, Reason
    from rivals.negatives.centers import Clusters, k_means
    from rivals.negatives.closer_than_positive import CloserThanPositive, closer_than_positive_mask
    from rivals.negatives.clusters import ClusterSource, ClusterWeight, SameCluster
    from rivals.negatives.complementary import Complementary
    from rivals.negatives.corrupted_triples import CorruptedTriples, tail_shares
    from rivals.negatives.ensemble import EnsembleEncoder, EnsembleSource
    from rivals.negatives.entity_graph import EntityGraph
    from rivals.negatives.export import Exported, drawn_of, mark_drawn, write_lists, write_triples, write_tuples
    from rivals.negatives.false_negatives import FalseNegatives, estimate_false_negatives
    from rivals.negatives.filters import (
        Duplicates,
        KnownPositives,
        PositiveAware,
        positive_aware_mask,
        top_k_abs,
        top_k_margin_pos,
        top_k_perc_pos,
    )
    from rivals.negatives.graph import GraphDistance, GraphSuspects, Lift, graph_suspects, missing_answers
    from rivals.negatives.joint import Joint, found_by, pool_overlap
    from rivals.negatives.known_triples import KnownTriples
    from rivals.negatives.label_noise import NoiseTable, characterise_noise, out_of_fold_predictions
    from rivals.negatives.listed_sources import FunctionSource, ReadyMade
    from rivals.negatives.mine import Mined, mine_hard_negatives
    from rivals.negatives.neighbour_filter import NeighbourNoise
    from rivals.negatives.neighbour_noise import CleanedLabels, NeighbourCleaner, Suspects
    from rivals.negatives.partial_labels import (
        AsymmetricPseudoLabels,
        CorrectedLabels,
        LargeLoss,
        large_loss_judgements,
    )
    from rivals.negatives.principal import PrincipalAxes, fit_principal_axes
    from rivals.negatives.rescore import PairScorer, Rescore
    from rivals.negatives.review import add_reviews, apply_reviews, load_reviews, reviewed_judgements, suspect_rows
    from rivals.negatives.roles import swap_roles
    from rivals.negatives.samplers import Draw, Sampler, Softmax, Top, Uniform
    from rivals.negatives.samplers_hardness import Mixture, Resample, SelfAdversarial
    from rivals.negatives.samplers_schedule import Rotate, Scheduled, SlidingWindow
    from rivals.negatives.selection import Selected, neighbour_reciprocal_rank, select_negatives
    from rivals.negatives.selection_weight import CandidateScorer, SelectionWeight, candidate_scores
    from rivals.negatives.sources import InBatchSource, RandomSource
    from rivals.negatives.staleness import DynamicNegatives, is_stale
    from rivals.negatives.strided import Strided
    from rivals.negatives.text_clusters import Corrupted, TextClusterNegatives, degree_weight
    from rivals.negatives.vector_batch import ScoredLists, VectorBatch, VectorGenerator
    from rivals.negatives.vector_generators import Adversarial, CentroidNegatives, MixedFeatures, NoiseNegatives
    from rivals.negatives.vector_source import VectorSource
    from rivals.negatives.walks import LinkSource, Walk, neighbourhood, semantic_walk

_HOME = {
    "AnswerMatch": "answer_match",
    "AdapterFilter": "adapter_transforms",
    "AdapterLoss": "adapter",
    "AdapterReranker": "adapter_transforms",
    "Adversarial": "vector_generators",
    "Ambiguous": "ambiguous",
    "AsymmetricPseudoLabels": "partial_labels",
    "CandidateScorer": "selection_weight",
    "CentroidNegatives": "vector_generators",
    "CleanedLabels": "neighbour_noise",
    "CloserThanPositive": "closer_than_positive",
    "ClusterSource": "clusters",
    "ClusterWeight": "clusters",
    "Clusters": "centers",
    "Complementary": "complementary",
    "CorrectedLabels": "partial_labels",
    "Corrupted": "text_clusters",
    "CorruptedTriples": "corrupted_triples",
    "Draw": "samplers",
    "Duplicates": "filters",
    "DynamicNegatives": "staleness",
    "EnsembleEncoder": "ensemble",
    "EnsembleSource": "ensemble",
    "EntityGraph": "entity_graph",
    "Example": "_examples",
    "Exported": "export",
    "FalseNegatives": "false_negatives",
    "FunctionSource": "listed_sources",
    "GraphDistance": "graph",
    "GraphSuspects": "graph",
    "InBatchSource": "sources",
    "Joint": "joint",
    "KnownPositives": "filters",
    "KnownTriples": "known_triples",
    "LargeLoss": "partial_labels",
    "Lift": "graph",
    "LinkSource": "walks",
    "Mined": "mine",
    "MiningAudit": "audit",
    "MixedFeatures": "vector_generators",
    "Mixture": "samplers_hardness",
    "NeighbourCleaner": "neighbour_noise",
    "NeighbourNoise": "neighbour_filter",
    "NoiseNegatives": "vector_generators",
    "NoiseTable": "label_noise",
    "PairScorer": "rescore",
    "PositiveAware": "filters",
    "PrincipalAxes": "principal",
    "RandomSource": "sources",
    "ReadyMade": "listed_sources",
    "Reason": "audit",
    "Resample": "samplers_hardness",
    "Rescore": "rescore",
    "RetrieverAdapter": "adapter",
    "Rotate": "samplers_schedule",
    "SameCluster": "clusters",
    "Sampler": "samplers",
    "Scheduled": "samplers_schedule",
    "ScoreSummary": "_score_statistics",
    "ScoredLists": "vector_batch",
    "Selected": "selection",
    "SelectionWeight": "selection_weight",
    "SelfAdversarial": "samplers_hardness",
    "SlidingWindow": "samplers_schedule",
    "Softmax": "samplers",
    "Strided": "strided",
    "Suspects": "neighbour_noise",
    "TextClusterNegatives": "text_clusters",
    "Top": "samplers",
    "TrainedAdapter": "adapter",
    "Uniform": "samplers",
    "VectorBatch": "vector_batch",
    "VectorGenerator": "vector_batch",
    "VectorSource": "vector_source",
    "Walk": "walks",
    "adapter_loss": "adapter",
    "adapter_scores": "adapter_transforms",
    "add_reviews": "review",
    "ambiguous_probabilities": "ambiguous",
    "apply_reviews": "review",
    "candidate_scores": "selection_weight",
    "characterise_noise": "label_noise",
    "closer_than_positive_mask": "closer_than_positive",
    "degree_weight": "text_clusters",
    "drawn_of": "export",
    "estimate_false_negatives": "false_negatives",
    "fit_principal_axes": "principal",
    "found_by": "joint",
    "graph_suspects": "graph",
    "is_stale": "staleness",
    "k_means": "centers",
    "large_loss_judgements": "partial_labels",
    "line_penalty": "adapter",
    "load_reviews": "review",
    "mark_drawn": "export",
    "mine_hard_negatives": "mine",
    "missing_answers": "graph",
    "neighbour_reciprocal_rank": "selection",
    "neighbourhood": "walks",
    "out_of_fold_predictions": "label_noise",
    "pool_overlap": "joint",
    "positive_aware_mask": "filters",
    "reviewed_judgements": "review",
    "select_negatives": "selection",
    "semantic_walk": "walks",
    "suspect_rows": "review",
    "swap_roles": "roles",
    "tail_shares": "corrupted_triples",
    "top_k_abs": "filters",
    "top_k_margin_pos": "filters",
    "top_k_perc_pos": "filters",
    "train_adapter": "adapter",
    "write_lists": "export",
    "write_triples": "export",
    "write_tuples": "export",
}

__all__ = [
    "AdapterFilter",
    "AdapterLoss",
    "AdapterReranker",
    "Adversarial",
    "Ambiguous",
    "AnswerMatch",
    "AsymmetricPseudoLabels",
    "CandidateScorer",
    "CentroidNegatives",
    "CleanedLabels",
    "CloserThanPositive",
    "ClusterSource",
    "ClusterWeight",
    "Clusters",
    "Complementary",
    "CorrectedLabels",
    "Corrupted",
    "CorruptedTriples",
    "Draw",
    "Duplicates",
    "DynamicNegatives",
    "EnsembleEncoder",
    "EnsembleSource",
    "EntityGraph",
    "Example",
    "Exported",
    "FalseNegatives",
    "FunctionSource",
    "GraphDistance",
    "GraphSuspects",
    "InBatchSource",
    "Joint",
    "KnownPositives",
    "KnownTriples",
    "LargeLoss",
    "Lift",
    "LinkSource",
    "Mined",
    "MiningAudit",
    "MixedFeatures",
    "Mixture",
    "NeighbourCleaner",
    "NeighbourNoise",
    "NoiseNegatives",
    "NoiseTable",
    "PairScorer",
    "PositiveAware",
    "PrincipalAxes",
    "RandomSource",
    "ReadyMade",
    "Reason",
    "Resample",
    "Rescore",
    "RetrieverAdapter",
    "Rotate",
    "SameCluster",
    "Sampler",
    "Scheduled",
    "ScoreSummary",
    "ScoredLists",
    "Selected",
    "SelectionWeight",
    "SelfAdversarial",
    "SlidingWindow",
    "Softmax",
    "Strided",
    "Suspects",
    "TextClusterNegatives",
    "Top",
    "TrainedAdapter",
    "Uniform",
    "VectorBatch",
    "VectorGenerator",
    "VectorSource",
    "Walk",
    "adapter_loss",
    "adapter_scores",
    "add_reviews",
    "ambiguous_probabilities",
    "apply_reviews",
    "candidate_scores",
    "characterise_noise",
    "closer_than_positive_mask",
    "degree_weight",
    "drawn_of",
    "estimate_false_negatives",
    "fit_principal_axes",
    "found_by",
    "graph_suspects",
    "is_stale",
    "k_means",
    "large_loss_judgements",
    "line_penalty",
    "load_reviews",
    "mark_drawn",
    "mine_hard_negatives",
    "missing_answers",
    "neighbour_reciprocal_rank",
    "neighbourhood",
    "out_of_fold_predictions",
    "pool_overlap",
    "positive_aware_mask",
    "reviewed_judgements",
    "select_negatives",
    "semantic_walk",
    "suspect_rows",
    "swap_roles",
    "tail_shares",
    "top_k_abs",
    "top_k_margin_pos",
    "top_k_perc_pos",
    "train_adapter",
    "write_lists",
    "write_triples",
    "write_tuples",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"rivals.negatives.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rivals.negatives' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
