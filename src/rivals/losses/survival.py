"""Losses over times to an event, some of them censored."""

from __future__ import annotations

__all__: list[str] = []
