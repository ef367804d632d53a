"""Several losses, one step: weighting tasks and combining their gradients."""

from __future__ import annotations

__all__: list[str] = []
