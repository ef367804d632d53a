"""Batchers: examples put together so that each step's in-batch negatives are hard, true, balanced or all of one's own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.negatives.batching.batch import Batch
    from rivals.negatives.batching.batchers import (
        Batcher,
        Grouped,
        NoDuplicates,
        Plan,
        Planned,
        QuerySharing,
        Shuffled,
    )
    from rivals.negatives.batching.clustered import Clustered
    from rivals.negatives.batching.clusters import PartitionReport, partition
    from rivals.negatives.batching.examples import Examples
    from rivals.negatives.batching.graph import (
        build_hard_graph,
        cut_edges,
        edges_within,
        hardness_share,
        ranked_targets,
        rival_graph,
    )
    from rivals.negatives.batching.groups import grouped_order, rival_queries
    from rivals.negatives.batching.shared import BatchShared
    from rivals.negatives.batching.tasks import TaskBalanced

_HOME = {
    "Batch": "batch",
    "BatchShared": "shared",
    "Batcher": "batchers",
    "Clustered": "clustered",
    "Examples": "examples",
    "Grouped": "batchers",
    "NoDuplicates": "batchers",
    "PartitionReport": "clusters",
    "Plan": "batchers",
    "Planned": "batchers",
    "QuerySharing": "batchers",
    "Shuffled": "batchers",
    "TaskBalanced": "tasks",
    "build_hard_graph": "graph",
    "cut_edges": "graph",
    "edges_within": "graph",
    "grouped_order": "groups",
    "hardness_share": "graph",
    "partition": "clusters",
    "ranked_targets": "graph",
    "rival_graph": "graph",
    "rival_queries": "groups",
}

__all__ = [
    "Batch",
    "BatchShared",
    "Batcher",
    "Clustered",
    "Examples",
    "Grouped",
    "NoDuplicates",
    "PartitionReport",
    "Plan",
    "Planned",
    "QuerySharing",
    "Shuffled",
    "TaskBalanced",
    "build_hard_graph",
    "cut_edges",
    "edges_within",
    "grouped_order",
    "hardness_share",
    "partition",
    "ranked_targets",
    "rival_graph",
    "rival_queries",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"rivals.negatives.batching.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rivals.negatives.batching' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
