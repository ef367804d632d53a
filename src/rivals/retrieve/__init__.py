"""Retrievers: BM25 over words, exact dense search over vectors, fusions of both, and the index folder on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.retrieve._topk import PreparedDocuments, exact_top_k
    from rivals.retrieve.bm25 import BM25
    from rivals.retrieve.dense import Dense, StoredVectors, TextEncoder
    from rivals.retrieve.fusion import (
        ReciprocalRankFusion,
        WeightedFusion,
        fit_weights,
        fuse_reciprocal_rank,
        fuse_weighted,
    )
    from rivals.retrieve.index import Index

_HOMES = {
    "BM25": "bm25",
    "Dense": "dense",
    "Index": "index",
    "StoredVectors": "dense",
    "PreparedDocuments": "_topk",
    "ReciprocalRankFusion": "fusion",
    "TextEncoder": "dense",
    "WeightedFusion": "fusion",
    "exact_top_k": "_topk",
    "fit_weights": "fusion",
    "fuse_reciprocal_rank": "fusion",
    "fuse_weighted": "fusion",
}

__all__ = [
    "BM25",
    "Dense",
    "Index",
    "PreparedDocuments",
    "ReciprocalRankFusion",
    "StoredVectors",
    "TextEncoder",
    "WeightedFusion",
    "exact_top_k",
    "fit_weights",
    "fuse_reciprocal_rank",
    "fuse_weighted",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
