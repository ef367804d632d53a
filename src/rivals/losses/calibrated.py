"""Classification losses made for calibration, noise and imbalance."""

from __future__ import annotations

__all__: list[str] = []
