"""Losses that follow a teacher's scores."""

from __future__ import annotations

__all__: list[str] = []
