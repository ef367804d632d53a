"""Items of many conditions out of documents: what is broken and what is not, scorers that must win and lose, bad input."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rivals.data import Collection, load_sample
from rivals.diagnose.condition_sets import ConditionItem, condition_items, graded_lists
from rivals.diagnose.conditions import condition_report, score_pairs
from rivals.diagnose.robustness import text_scorer
from rivals.diagnose.robustness.edits import sentences_of, words_of
from rivals.errors import RivalsError
from rivals.retrieve import BM25


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real answers, 250 of them."""
    return load_sample().documents.texts[:250]


def different(sentences: list[str]) -> list[str]:
    """The sentences that have words, each list of words once."""
    keys = [tuple(words_of(sentence.lower())) for sentence in sentences]
    return [sentence for row, sentence in enumerate(sentences) if keys[row] and keys[row] not in keys[:row]]


def put_in(text: str, parts: list[str], place: int) -> str:
    """What stands in place of one sentence, all others being as they were."""
    head, tail = "".join(f"{part} " for part in parts[:place]), "".join(f" {part}" for part in parts[place + 1 :])
    assert text.startswith(head)
    assert text.endswith(tail)
    return text[len(head) : len(text) - len(tail)]


def test_items_break_one_condition_at_a_time(texts: list[str]) -> None:
    made = condition_items(texts, conditions=4, items=30, ids=[f"d{row}" for row in range(len(texts))], seed=2)
    assert len(made.items) == 30
    assert made.too_short == sum(len(different(sentences_of(text))) < 4 for text in texts)
    for item in made.items:
        source = texts[int(item.identifier[1:])]
        own = sentences_of(source)
        assert item.conditions == tuple(different(own))[:4]
        assert item.chain[0] == " ".join(own)
        assert sorted(item.broken) == [0, 1, 2, 3]
        parts = list(own)
        for j, number in enumerate(item.broken):
            donor = put_in(item.chain[j + 1], parts, parts.index(item.conditions[number]))
            assert words_of(donor.lower()) not in [words_of(sentence.lower()) for sentence in own]
            parts[parts.index(item.conditions[number])] = donor
            assert item.rival_broken[j] <= j
            assert put_in(item.rivals[j], own, own.index(item.conditions[item.rival_broken[j]])) not in own
        for k in range(4):
            assert item.running[k] == " ".join(item.conditions[: k + 1])
            assert all(sentence in item.chain[0] for sentence in item.conditions[: k + 1])
            assert item.queries[k].startswith("1. ")
    assert len({item.broken for item in made.items}) > 5  # which condition breaks is drawn


def test_seeds_and_donors(texts: list[str]) -> None:
    one, two, other = (condition_items(texts, conditions=3, items=10, seed=seed).items for seed in (1, 1, 2))
    assert one == two != other
    longest = condition_items(
        texts[:40], conditions=2, items=5, donors=lambda sentence, pool: [float(len(other)) for other in pool]
    )
    whole = sorted({sentence for text in texts[:40] for sentence in sentences_of(text)}, key=len)
    assert any(whole[-1] in item.chain[-1] for item in longest.items)


def test_a_careful_reader_wins_everything() -> None:
    written = [" ".join(f"Page {n} has fact {n * 7 + j} to tell." for j in range(5)) for n in range(40)]
    items = condition_items(written, conditions=4, items=25, seed=1).items

    def met(queries: list[str], documents: list[str]) -> np.ndarray:
        """How many of the query's conditions the document states, word for word."""
        asked = {
            q: c
            for item in items
            for form in (item.queries, item.running)
            for q, c in zip(form, parts(item), strict=True)
        }
        return np.array([sum(c in d for c in asked[q]) for q, d in zip(queries, documents, strict=True)], float)

    def parts(item: ConditionItem) -> list[tuple[str, ...]]:
        return [item.conditions[: k + 1] for k in range(4)]

    report = condition_report(items, met)
    assert report.win_rate == (1, 1, 1, 1)
    assert report.gap == (1, 1, 1, 1)
    assert report.steps == (1, 1, 1, 1)
    assert (report.chain_rate, report.kendall, report.flip_rate, report.ties) == (1, 1, 0, 0)
    assert tuple(report.drop) == (0, 0, 0)
    assert "25 items; wins with 1 to 4 conditions: 1.000" in str(report)


def test_a_blind_and_a_random_reader(texts: list[str]) -> None:
    items = condition_items(texts, conditions=3, items=60, seed=1).items
    blind = condition_report(items, lambda queries, documents: np.zeros(len(queries)))
    assert (blind.win_rate, blind.ties, blind.flip_rate) == ((0, 0, 0), 1, 0)
    rng = np.random.default_rng(0)
    chance = condition_report(items, lambda queries, documents: rng.standard_normal(len(queries)))
    assert np.mean(chance.win_rate) == pytest.approx(0.5, abs=0.12)
    assert chance.flip_rate == pytest.approx(0.5, abs=0.12)
    assert chance.drop.low < 0 < chance.drop.high


def test_bm25_over_the_whole_corpus(texts: list[str]) -> None:
    items = condition_items(texts, conditions=3, items=30, seed=1).items
    asked = [text for item in items for text in (*item.chain, *item.rivals)]
    bm25 = BM25(Collection([str(row) for row in range(len(texts))], texts), threads=1)
    report = condition_report(items, text_scorer(bm25, asked), batch_size=40)
    assert report == condition_report(items, text_scorer(bm25, asked), batch_size=7)
    assert report.win_rate[0] > 0.7  # chance is 0.5
    with pytest.raises(RivalsError, match="was not among the texts"):
        text_scorer(bm25, asked)(["x"], ["y"])
    with pytest.raises(RivalsError, match="a pipeline scores candidates"):
        text_scorer((bm25 | BM25(bm25.documents, name="other")) >> _Same(), asked)


def _Same():
    from rivals.data.pipeline import Chain

    return Chain([])


def test_graded_lists(texts: list[str]) -> None:
    items = condition_items(texts, conditions=3, items=4, seed=1).items
    for item, (query, documents, relevance) in zip(items, graded_lists(items), strict=True):
        assert query == item.queries[-1]
        assert documents == item.chain
        assert relevance == (3, 2, 1, 0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: condition_items(["One. Two."], conditions=0), "conditions is 0"),
        (lambda: condition_items(["One. Two."], conditions=2, items=0), "items 0"),
        (lambda: condition_items(["One."], conditions=2), "none of the 1 documents has 2 different sentences"),
        (lambda: condition_items(["One. Two."], conditions=2), "none of the 1 documents has 2"),
        (lambda: condition_items(["A. B.", "C. D."], conditions=2, ids=["x"]), "1 ids were given for 2 documents"),
        (
            lambda: condition_items(["A b. C d.", "E f. G h."], conditions=2, donors=lambda s, pool: [1.0]),
            "donors returned shape (1,)",
        ),
        (lambda: condition_items(["A b. C d. E f.", "A b. C d. G h."], conditions=2), "not enough sentences"),
        (lambda: condition_report([], len), "items holds no item"),
        (lambda: score_pairs(lambda q, d: [1.0], [("a", "b")] * 2, 2), "score returned shape (1,) for 2 pairs"),
        (lambda: score_pairs(lambda q, d: [1.0], [("a", "b")], 0), "batch_size is 0"),
    ],
)
def test_bad_input(ask, said) -> None:
    with pytest.raises(RivalsError, match=re.escape(said)):
        ask()


def test_items_of_different_sizes(texts: list[str]) -> None:
    one = condition_items(texts, conditions=2, items=1).items
    two = condition_items(texts, conditions=3, items=1).items
    with pytest.raises(RivalsError, match="different numbers of conditions"):
        condition_report([*one, *two], lambda queries, documents: np.zeros(len(queries)))
    with pytest.raises(RivalsError, match="NaN"):
        condition_report(one, lambda queries, documents: np.full(len(queries), np.nan))
