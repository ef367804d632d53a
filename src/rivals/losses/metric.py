"""Metric learning: losses over labelled embeddings."""

from __future__ import annotations

__all__: list[str] = []
