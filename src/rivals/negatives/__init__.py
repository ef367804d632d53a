"""Negatives: filters mark candidates, samplers draw from the rest, mining does both and reports what happened."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.negatives.ambiguous import Ambiguous, ambiguous_probabilities
    from rivals.negatives.audit import Example, MiningAudit, ScoreSummary
    from rivals.negatives.export import Exported, write_lists, write_triples, write_tuples
    from rivals.negatives.filters import (
        Duplicates,
        KnownPositives,
        PositiveAware,
        positive_aware_mask,
        top_k_abs,
        top_k_margin_pos,
        top_k_perc_pos,
    )
    from rivals.negatives.mine import Mined, mine_hard_negatives
    from rivals.negatives.roles import swap_roles
    from rivals.negatives.samplers import Draw, Sampler, Softmax, Top, Uniform
    from rivals.negatives.selection import Selected, neighbour_reciprocal_rank, select_negatives
    from rivals.negatives.strided import Strided
    from rivals.negatives.text_clusters import Corrupted, TextClusterNegatives, degree_weight
    from rivals.negatives.walks import LinkSource, Walk, neighbourhood, semantic_walk

_HOME = {
    "Ambiguous": "ambiguous",
    "ambiguous_probabilities": "ambiguous",
    "Example": "audit",
    "MiningAudit": "audit",
    "ScoreSummary": "audit",
    "Exported": "export",
    "write_lists": "export",
    "write_triples": "export",
    "write_tuples": "export",
    "Duplicates": "filters",
    "KnownPositives": "filters",
    "PositiveAware": "filters",
    "positive_aware_mask": "filters",
    "top_k_abs": "filters",
    "top_k_margin_pos": "filters",
    "top_k_perc_pos": "filters",
    "Mined": "mine",
    "mine_hard_negatives": "mine",
    "swap_roles": "roles",
    "Draw": "samplers",
    "Sampler": "samplers",
    "Softmax": "samplers",
    "Top": "samplers",
    "Uniform": "samplers",
    "Selected": "selection",
    "neighbour_reciprocal_rank": "selection",
    "select_negatives": "selection",
    "Strided": "strided",
    "Corrupted": "text_clusters",
    "TextClusterNegatives": "text_clusters",
    "degree_weight": "text_clusters",
    "LinkSource": "walks",
    "Walk": "walks",
    "neighbourhood": "walks",
    "semantic_walk": "walks",
}

__all__ = [
    "Ambiguous",
    "Corrupted",
    "Draw",
    "Duplicates",
    "Example",
    "Exported",
    "KnownPositives",
    "LinkSource",
    "Mined",
    "MiningAudit",
    "PositiveAware",
    "Sampler",
    "ScoreSummary",
    "Selected",
    "Softmax",
    "Strided",
    "TextClusterNegatives",
    "Top",
    "Uniform",
    "Walk",
    "ambiguous_probabilities",
    "degree_weight",
    "mine_hard_negatives",
    "neighbour_reciprocal_rank",
    "neighbourhood",
    "positive_aware_mask",
    "select_negatives",
    "semantic_walk",
    "swap_roles",
    "top_k_abs",
    "top_k_margin_pos",
    "top_k_perc_pos",
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
