"""Negation items out of edited passages, and scorers that see the negation or do not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rivals.diagnose.negation import ContrastItem, EditedPassage, contrast_report, negation_items, paired_preference
from rivals.errors import RivalsError

ORIGINAL = "Rain fell all day. The river did not rise. People waited."
VERSIONS = [
    EditedPassage("p", 0, ORIGINAL),
    EditedPassage("p", 1, "Rain fell all day. The river stayed as low as it was. People waited."),
    EditedPassage("p", 2, "Rain fell all day. The river did not rise on Monday. People waited."),
    EditedPassage("p", 3, "Rain fell all day. The river rose. People waited."),
]


def words_without_not(queries: list[str], documents: list[str]) -> list[float]:
    """A bag of words that drops the negation."""
    return [
        float(len((set(q.lower().split()) & set(d.lower().split())) - {"not", "no"}))
        for q, d in zip(queries, documents, strict=True)
    ]


def test_items_of_edited_passages() -> None:
    made = negation_items(VERSIONS)
    assert made.passages == ("p",)
    assert made.items == (
        ContrastItem((ORIGINAL, VERSIONS[3].text), ("The river stayed as low as it was.", "The river rose.")),
    )
    more = [
        EditedPassage("lacks", 0, "A b."),
        EditedPassage("same", 0, "A b."),
        EditedPassage("same", 1, "A b."),
        EditedPassage("same", 3, "C d."),
        EditedPassage("long", 0, "A b."),
        EditedPassage("long", 1, "C d. E f. G h."),
        EditedPassage("long", 3, "I j."),
    ]
    again = negation_items([*more, *VERSIONS])
    assert again.items == made.items
    assert again.left_out == 3
    assert len(negation_items([*more, *VERSIONS], most=3).items) == 2


def test_a_bag_of_words_that_drops_not_gets_nothing_right() -> None:
    items = [
        ContrastItem(("birds can fly", "birds can not fly"), ("can birds fly", "birds can not fly here")),
        ContrastItem(("it is safe", "it is not safe"), ("safe it is", "it is not safe to go")),
    ]
    report = contrast_report(items, words_without_not)
    assert report.accuracy.estimate == 0
    assert report.ties == 1


def test_both_sides_and_the_interval() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((400, 2, 2))
    items = [ContrastItem((f"{n} a", f"{n} b"), (f"{n} x", f"{n} y")) for n in range(400)]
    numbers = {"a": 0, "b": 1, "x": 0, "y": 1}

    def score(queries: list[str], documents: list[str]) -> np.ndarray:
        pairs = zip(queries, documents, strict=True)
        return np.array([scores[int(q.split()[0]), numbers[q[-1]], numbers[d[-1]]] for q, d in pairs])

    report, plain = contrast_report(items, score, batch_size=33), paired_preference(scores)
    assert report.accuracy.estimate == plain.pairwise_accuracy
    assert 0.2 < report.accuracy.low < plain.pairwise_accuracy < report.accuracy.high < 0.4
    assert (report.first + report.second) / 2 == pytest.approx(plain.query_accuracy)
    assert report.blind == plain.same_order_rate
    mirrored = [ContrastItem(item.documents[::-1], item.queries[::-1]) for item in items]
    turned = contrast_report(mirrored, score)
    assert (turned.accuracy, turned.first, turned.second) == (report.accuracy, report.second, report.first)
    assert "chance 0.250" in str(report)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: negation_items(VERSIONS * 2), "passage 'p' has version 0 twice"),
        (lambda: negation_items(VERSIONS, most=0), "most is 0"),
        (lambda: negation_items(VERSIONS[:2]), "none of 1 passages has the versions 0, 1 and 3"),
        (lambda: contrast_report([], words_without_not), "items holds no item"),
    ],
)
def test_bad_input(ask, said) -> None:
    with pytest.raises(RivalsError, match=re.escape(said)):
        ask()
