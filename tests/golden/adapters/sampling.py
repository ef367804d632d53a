"""Adapters of the papers on negative sampling, mining and training regimes."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
