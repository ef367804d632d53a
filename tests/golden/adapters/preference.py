"""Adapters of the papers on preference and unlearning losses."""

from __future__ import annotations

from tests.golden.adapters.case import Adapter

ADAPTERS: dict[int, Adapter] = {}
