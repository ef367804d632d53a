"""`leakage_report`: finds what it should, exactly as comparing all pairs would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, leakage_report, load_sample
from rivals.data.leakage import _near
from rivals.errors import RivalsError

SETS = st.lists(st.sets(st.integers(0, 12).map(str), min_size=1, max_size=9), max_size=8)


@settings(max_examples=150, deadline=None)
@given(SETS, SETS, st.sampled_from([0.2, 0.5, 0.6, 0.8, 1.0]))
def test_near_is_the_join_of_all_pairs(left: list[set[str]], right: list[set[str]], threshold: float) -> None:
    found = _near(left, right, threshold)
    for row, one in enumerate(right):
        best = max((len(one & other) / len(one | other) for other in left), default=0.0)
        if best >= threshold:
            here, score = found[row]
            assert score == pytest.approx(best)
            assert len(one & left[here]) / len(one | left[here]) == pytest.approx(best)
        else:
            assert row not in found


def test_shared_documents_and_near_queries() -> None:
    queries = Collection(
        ["t1", "t2", "e1", "e2"],
        [
            "What are the symptoms of diabetes?",
            "How is gout treated?",
            "What are the symptoms of diabetes ?",
            "Something else",
        ],
        name="query",
    )
    text = " ".join(f"word{i}" for i in range(60))
    documents = Collection(["a", "b", "c"], [text, "alone", text + " more"])
    judgements = Judgements.build([0, 1, 2, 3], [0, 1, 2, 1], [1, 1, 1, 1], queries=4, documents=3)
    report = leakage_report(
        Dataset(queries, documents, judgements, {"test": np.array([2, 3]), "train": np.array([0, 1])})
    )
    asked, read = report.overlaps
    assert (asked.first, asked.second, asked.total, asked.exact, asked.near) == ("train", "test", 2, 0, 1)
    assert asked.examples[0][:2] == ("t1", "e1")
    assert (read.total, read.exact, read.near) == (2, 1, 1)
    assert not report.clean
    assert "1 word for word, 1 nearly" in str(report)
    assert report.to_json()["overlaps"][0]["near"] == 1


def test_the_sample_shares_few_texts_between_splits() -> None:
    report = leakage_report(load_sample())
    figures = {(o.what, o.first, o.second): (o.exact, o.near, o.total) for o in report.overlaps}
    assert figures["queries", "train", "test"] == (0, 14, 850)
    assert figures["relevant documents", "train", "test"] == (5, 14, 1059)


def test_refusals() -> None:
    sample = load_sample()
    with pytest.raises(RivalsError, match="between splits"):
        leakage_report(sample.split("test"))
    with pytest.raises(RivalsError, match="threshold"):
        leakage_report(sample, threshold=0)
