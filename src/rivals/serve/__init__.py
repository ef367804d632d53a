"""Serving: the search engine of a trained run, its HTTP interface and its page.

Names are loaded when first used, so importing this room loads neither torch nor FastAPI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.serve.app import create_app, serve
    from rivals.serve.engine import SearchEngine, load_engine
    from rivals.serve.restrict import Restricted
    from rivals.serve.result import Hit, QueryError, SearchResult, StageScore

_HOME = {
    "Hit": "result",
    "QueryError": "result",
    "Restricted": "restrict",
    "SearchEngine": "engine",
    "SearchResult": "result",
    "StageScore": "result",
    "create_app": "app",
    "load_engine": "engine",
    "serve": "app",
}

__all__ = [
    "Hit",
    "QueryError",
    "Restricted",
    "SearchEngine",
    "SearchResult",
    "StageScore",
    "create_app",
    "load_engine",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.serve' has no attribute {name!r}")
    return getattr(import_module(f"rivals.serve.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
