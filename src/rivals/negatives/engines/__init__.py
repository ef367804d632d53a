"""Where mining runs besides this process: on a Ray cluster, in blocks of queries that are kept on disk until all are done."""

from __future__ import annotations

from rivals.negatives.engines.blocks import BlockFolder
from rivals.negatives.engines.over_ray import encode_with_ray, mine_with_ray

__all__ = ["BlockFolder", "encode_with_ray", "mine_with_ray"]
