"""Preference and unlearning losses over log-probabilities."""

from __future__ import annotations

__all__: list[str] = []
