"""Adapters of the papers on list-wise and smooth losses."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
