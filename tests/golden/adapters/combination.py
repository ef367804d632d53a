"""Adapters of the papers on loss weighting and gradient combination."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
