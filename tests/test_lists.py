"""Ragged lists: pairs are found alike by both ways of looking."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals import lists


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 4), st.integers(0, 60), st.booleans())
def test_pairs_are_found_whatever_the_order(seed: int, count: int, longest: int, asked: int, ordered: bool) -> None:
    generator = np.random.default_rng(seed)
    offsets = lists.offsets_from_lengths(generator.integers(0, longest + 1, count))
    members = generator.integers(0, 5, offsets[-1])
    rows, wanted = generator.integers(0, count, asked), generator.integers(0, 6, asked)
    if ordered:
        rows = np.sort(rows)
    found = lists.find_pairs(offsets, members, rows, wanted)
    for place, row, value in zip(found.tolist(), rows, wanted, strict=True):
        inside = members[offsets[row] : offsets[row + 1]].tolist()
        assert place == (offsets[row] + inside.index(value) if value in inside else -1)
