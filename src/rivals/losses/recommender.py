"""Losses of recommenders: one positive item against sampled items."""

from __future__ import annotations

__all__: list[str] = []
