"""Models: encoders, cross-encoders, and the folder format they share with sentence-transformers.

Names are loaded when first used, so importing this room loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.models.batching import Tokens, token_batches
    from rivals.models.cache import VectorCache
    from rivals.models.cross_encoder import CrossEncoder
    from rivals.models.encoder import Encoder, TokenVectors
    from rivals.models.folder import resolve_model

_HOME = {
    "CrossEncoder": "cross_encoder",
    "Encoder": "encoder",
    "TokenVectors": "encoder",
    "Tokens": "batching",
    "VectorCache": "cache",
    "resolve_model": "folder",
    "token_batches": "batching",
}

__all__ = ["CrossEncoder", "Encoder", "TokenVectors", "Tokens", "VectorCache", "resolve_model", "token_batches"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.models' has no attribute {name!r}")
    return getattr(import_module(f"rivals.models.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
