"""Diagnoses: what is wrong with a model, as reports that are values."""

from __future__ import annotations

from rivals.diagnose.collapse import CollapseReport, SeparationGap, collapse_report, triplet_separation_gap

__all__ = ["CollapseReport", "SeparationGap", "collapse_report", "triplet_separation_gap"]
