"""Adapters of the papers on calibration, regression and survival losses."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
