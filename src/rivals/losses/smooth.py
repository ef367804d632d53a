"""Smooth stand-ins for sorting and for rank measures."""

from __future__ import annotations

__all__: list[str] = []
