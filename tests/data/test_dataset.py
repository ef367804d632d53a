"""How data sets and judgements show themselves."""

from __future__ import annotations

from rivals.data import Judgements


def test_judgements_print_in_one_line() -> None:
    judged = Judgements.build([0, 0, 2], [0, 1, 1], [1, 0, 2], queries=4, documents=2)
    assert repr(judged) == "Judgements(3 of 2 of 4 queries, 2 relevant)"
