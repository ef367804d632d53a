"""Losses over pairs whose weights come from the ranking: LambdaRank and its kin."""

from __future__ import annotations

__all__: list[str] = []
