"""Losses over labels that may all be true at once, some of them unknown."""

from __future__ import annotations

__all__: list[str] = []
