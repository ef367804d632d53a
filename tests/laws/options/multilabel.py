"""Declarations of the classification and multi-label losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {}
