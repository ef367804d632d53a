"""Ready-made negatives: every format gives the same table, scores and order are kept, faults name file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection
from rivals.data.formats.negative_files import ReadyNegatives, load_negatives
from rivals.errors import DataError

QUERIES = Collection(["q1", "q2"], ["who?", "what?"], name="query")
DOCUMENTS = Collection(["d1", "d2", "d3", "d4"], ["me", "you", "they", "us"])


def write(path: Path, content: Any) -> Path:
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


def told(found: ReadyNegatives, *, by: str = "ids") -> dict[str, tuple[list[str], list[str]]]:
    """Return query -> (positives, candidates), by id or text."""
    queries, documents = (getattr(side, by) for side in (found.run.queries, found.run.documents))
    run = found.run
    return {
        queries[row]: (
            [documents[i] for i in run.positive[run.positive_offsets[row] : run.positive_offsets[row + 1]]],
            [documents[i] for i in run.document[run.offsets[row] : run.offsets[row + 1]]],
        )
        for row in range(len(queries))
    }


EXPECTED = {"who?": (["me"], ["they", "you"]), "what?": (["you"], ["us", "me", "they"])}
BY_ID = {"q1": (["d1"], ["d3", "d2"]), "q2": (["d2"], ["d4", "d1", "d3"])}

FORMATS: dict[str, tuple[str, Any]] = {
    "ance": ("ann_training_data_3", "q1\td1\td3,d2\nq2\td2\td4,d1,d3\n"),
    "ance.gz": ("mined.tsv.gz", "q1\td1\td3,d2\n\nq2\td2\td4,d1,d3\n"),
    "simans": ("train.tsv", "q1\twho?\td1 0.9\td3 0.8,d2 0.7\nq2\twhat?\td2 5\td4 3,d1 2,d3 -1.5\n"),
    "dpr": (
        "dpr.json",
        json.dumps(
            [
                {
                    "question": "who?",
                    "answers": ["me"],
                    "positive_ctxs": [{"title": "", "text": "me", "score": 1000, "passage_id": "d1"}],
                    "negative_ctxs": [{"title": "", "text": "you", "score": 0, "passage_id": "d2"}],
                    "hard_negative_ctxs": [{"title": "", "text": "they", "score": 12.5, "passage_id": "d3"}],
                },
                {
                    "question": "what?",
                    "answers": [],
                    "positive_ctxs": [{"text": "you", "psg_id": "d2"}],
                    "negative_ctxs": [],
                    "hard_negative_ctxs": [{"text": text, "score": 9 - i} for i, text in enumerate(["us", "me", "they"])],
                },
            ]
        ),
    ),
    "triplets": (
        "bica.jsonl",
        [
            {"query": "who?", "positive": "me", "negatives": ["they", "you"]},
            {"query": "what?", "positive": "you", "negatives": ["us", "me", "they"]},
        ],
    ),
    "triplets by id": (
        "ids.jsonl",
        [
            {"query_id": "q1", "query": "who?", "positive_id": "d1", "positive": "me", "negative_ids": ["d3", "d2"],
             "negatives": ["they", "you"]},
            {"query_id": "q2", "query": "what?", "positive_id": "d2", "positive": "you",
             "negative_ids": ["d4", "d1", "d3"], "negatives": ["us", "me", "they"]},
        ],
    ),
    "one negative a row": (
        "triplets.csv",
        "anchor,positive,negative\nwho?,me,they\nwho?,me,you\nwhat?,you,us\nwhat?,you,me\nwhat?,you,they\n",
    ),
    "n-tuples": (
        "tuples.csv",
        "anchor,positive,negative_1,negative_2,negative_3,scores\n"
        'who?,me,they,you,,"[0.9, 0.8, 0.7]"\nwhat?,you,us,me,they,"[0.9, 0.8, 0.7, 0.6]"\n',
    ),
    "lists": (
        "lists.jsonl",
        [
            {"query": "who?", "documents": ["me", "they", "you"], "labels": [1, 0, 0], "scores": [0.9, 0.5, 0.25]},
            {"query": "what?", "documents": ["us", "you", "me", "they"], "labels": [0, 2, 0, 0],
             "scores": [0.5, None, 0.25, 0.0]},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_table(kind: str, tmp_path: Path) -> None:
    name, content = FORMATS[kind]
    found = load_negatives(write(tmp_path / name, content), queries=QUERIES, documents=DOCUMENTS)
    assert told(found) == BY_ID
    assert found.run.queries is QUERIES
    assert found.dataset.documents is DOCUMENTS


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if "ance" not in kind and kind != "simans"])
def test_texts_make_the_collections(kind: str, tmp_path: Path) -> None:
    name, content = FORMATS[kind]
    found = load_negatives(write(tmp_path / name, content))
    assert told(found, by="texts") == EXPECTED


@pytest.mark.parametrize(
    ("kind", "scores", "positive"),
    [
        ("ance", [0, -1, 0, -1, -2], [np.nan, np.nan]),
        ("simans", [0.8, 0.7, 3, 2, -1.5], [0.9, 5]),
        ("dpr", [12.5, 0, 9, 8, 7], [1000, np.nan]),
        ("triplets", [0, -1, 0, -1, -2], [np.nan, np.nan]),
        ("n-tuples", [0.8, 0.7, 0.8, 0.7, 0.6], [0.9, 0.9]),
        ("lists", [0.5, 0.25, 0.5, 0.25, 0], [0.9, np.nan]),
    ],
)
def test_scores_are_the_files(kind: str, scores: list[float], positive: list[float], tmp_path: Path) -> None:
    name, content = FORMATS[kind]
    run = load_negatives(write(tmp_path / name, content), queries=QUERIES, documents=DOCUMENTS).run
    np.testing.assert_array_equal(run.score, np.array(scores, np.float32))
    np.testing.assert_array_equal(run.positive_score, np.array(positive, np.float32))


def test_the_graded_labels_of_lists_are_kept(tmp_path: Path) -> None:
    found = load_negatives(write(tmp_path / "x.jsonl", FORMATS["lists"][1]), queries=QUERIES, documents=DOCUMENTS)
    assert found.dataset.judgements.relevance.tolist() == [1, 2]


def test_scores_that_only_some_have_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"question": "who?", "positive_ctxs": [{"text": "me"}], "hard_negative_ctxs": [{"text": "you", "score": 1}]},
        {
            "question": "what?",
            "positive_ctxs": [{"text": "me"}],
            "hard_negative_ctxs": [{"text": "us"}, {"text": "you"}],
        },
    ]
    found = load_negatives(write(tmp_path / "dpr.jsonl", rows))
    assert found.run.score.tolist() == [0, 0, -1]
    assert found.dataset.report["negatives noted: scores not used, since others have none"] == 1


def test_titles_make_a_column_and_are_found_in_front_of_the_text(tmp_path: Path) -> None:
    rows = [
        {
            "question": "who?",
            "positive_ctxs": [{"text": "me", "title": "I"}],
            "hard_negative_ctxs": [{"text": "you", "title": ""}],
        }
    ]
    found = load_negatives(write(tmp_path / "dpr.jsonl", rows))
    assert found.run.documents.full_texts == ["I. me", "you"]
    rows = [{"query": "who?", "positive": "I. me", "negatives": ["you"]}]
    again = load_negatives(write(tmp_path / "x.jsonl", rows), documents=found.run.documents)
    assert again.run.documents.ids[again.run.positive].tolist() == found.run.documents.ids[found.run.positive].tolist()


def test_repeats_merge_and_positives_among_the_negatives_stay_and_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "ann", "q1\td1\td3,d2,d3\nq1\td4\td1,d3\nq1\td1\t\n")
    found = load_negatives(path, queries=QUERIES, documents=DOCUMENTS)
    assert told(found)["q1"] == (["d1", "d4"], ["d3", "d2", "d1"])
    assert dict(found.dataset.report) == {
        "rows read": 3,
        "negatives read": 5,
        "negatives merged: listed again for the same query": 2,
        "negatives noted: listed for a query whose positive they are": 1,
        "positives read": 3,
        "positives merged: named again for the same query": 1,
    }


def test_what_is_unknown_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "ann", "q1\td1\td3,x,d2\nq9\td1\td3\nq2\td2\td1\n")
    found = load_negatives(path, queries=QUERIES, documents=DOCUMENTS, on_unknown="drop")
    assert told(found) == {"q1": (["d1"], ["d3", "d2"]), "q2": (["d2"], ["d1"])}
    assert found.dataset.report["queries dropped: unknown query"] == 1
    assert found.dataset.report["documents dropped: unknown document"] == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ann", "q1\td1\td2\nq1\td1\n", r"ann, line 2: 2 tab-separated fields, not 3"),
        ("ann", "q1\td1\td2\n\nq7\td1\td2\n", r"ann, line 3: this row names the query 'q7', which is not among the 2"),
        ("ann", "q1\td1\td2,zz\n", r"ann, line 1: this row names the document 'zz'"),
        ("s.tsv", "q1\twho?\td1 0.9\td2\n", r"line 1: 'd2' is not an id, a blank and a score"),
        ("s.tsv", "q1\twho?\td1 0.9\td2 high\n", r"line 1: the score or label 'high' is not a finite number"),
        ("s.tsv", "a\tb\tc\td\te\n", "line 1: 5 tab-separated fields; ANCE files have 3"),
        ("d.json", '[{"question": "who?", "positive_ctxs": [3], "negative_ctxs": []}]', "element 1: a context is 3"),
        ("d.json", '[{"question": "who?", "positive_ctxs": []}]', "no field hard_negative_ctxs or negative_ctxs"),
        ("x.jsonl", [{"query": "who?", "positive": "me"}], "no field with negatives"),
        ("x.jsonl", [{"query": "who?", "negatives": ["me"]}], "a query and a positive are wanted"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": ["you"], "scores": [1, 2, 3]}],
         "line 1: 3 scores for 1 positives and 1 negatives"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": ["you"], "scores": [1, None]}],
         "line 1: the score or label None is not a finite number"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": ["you", ""]}], "line 1: this row names no document"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": [4]}], "line 1: the document is 4, not a text"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": {"a": 1}}], "where a list is wanted"),
        ("x.jsonl", [{"query": "who?", "positive": "me", "negatives": ["you"], "negative_ids": ["a", "b"]}],
         "line 1: 2 ids for 1 texts"),
        ("l.jsonl", [{"query": "who?", "documents": ["me"], "labels": [1, 0]}], "1 documents, 2 labels and 1 scores"),
        ("l.jsonl", [{"query": "who?", "labels": [1]}], "a query, documents and labels are wanted"),
    ],
)  # fmt: skip
def test_faults_name_file_and_line(name: str, content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_negatives(write(tmp_path / name, content), queries=QUERIES, documents=DOCUMENTS)
    assert name in str(caught.value)


def test_ids_alone_need_the_collections(tmp_path: Path) -> None:
    path = write(tmp_path / "ann", "q1\td1\td2\n")
    with pytest.raises(
        DataError, match="line 1: query 'q1' stands here by its id alone; give the collection, queries="
    ):
        load_negatives(path)
    with pytest.raises(DataError, match="document 'd1' stands here by its id alone"):
        load_negatives(path, queries=QUERIES)


def test_options_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "ann", "q1\td1\td2\n")
    with pytest.raises(DataError, match="no format 'xml'; there are auto, ance"):
        load_negatives(path, format="xml")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="on_unknown must be"):
        load_negatives(path, on_unknown="skip")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not one row could be used"):
        load_negatives(path, queries=QUERIES.take([1]), documents=DOCUMENTS, on_unknown="drop")
