"""Adapters of the papers on classification and multi-label losses."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
