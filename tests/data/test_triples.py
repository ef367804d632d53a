"""Knowledge graphs: their link prediction as a dataset, the folders they are read from, and what is wrong with some."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Collection
from rivals.data.formats.tables import write_table
from rivals.data.formats.triples import load_triples
from rivals.data.triples import Triples, asked
from rivals.errors import DataError, RivalsError


@pytest.fixture
def graph():
    entities = Collection(["ann", "bob", "cy"], ["Ann A.", "Bob B.", "Cy C."])
    relations = Collection(["knows", "likes"], ["knows whom", "likes what"], name="relation")
    parts = {"train": np.array([[0, 0, 1], [0, 0, 2], [1, 1, 0], [0, 0, 1]]), "test": np.array([[2, 0, 1]])}
    return Triples(entities, relations, parts, {"test": np.array([[2, 0, 0]])}, "friends")


def test_pairs_of_entity_and_relation_are_queries(graph):
    dataset = graph.dataset()
    assert dataset.queries.ids.tolist() == ["(ann, knows, ?)", "(bob, likes, ?)"]
    assert dataset.queries.texts == ["Ann A. knows whom", "Bob B. likes what"]
    assert dataset.judgements.document.tolist() == [1, 2, 0]
    assert dataset.documents is graph.entities
    both = graph.dataset("test", side="both")
    assert both.queries.ids.tolist() == ["(cy, knows, ?)", "(?, knows, ann)", "(?, knows, bob)"]
    assert both.judgements.relevance.tolist() == [0, 1, 0, 1]  # the false triple is judged and not relevant
    question = asked(both.queries)
    assert question.entity.tolist() == [2, 0, 1]
    assert question.asks_head.tolist() == [False, True, True]
    assert asked(both.queries.take([2])).relation.tolist() == [0]


def test_parts_are_joined_without_repeats(graph):
    assert graph.part().tolist() == [[0, 0, 1], [0, 0, 2], [1, 1, 0], [2, 0, 1]]
    assert graph.part("train").tolist() == [[0, 0, 1], [0, 0, 2], [1, 1, 0]]
    with pytest.raises(RivalsError, match="no part 'dev'; they have train, test"):
        graph.part("dev")
    with pytest.raises(RivalsError, match="side must be"):
        graph.dataset(side="relation")
    with pytest.raises(RivalsError, match="no column entity, relation, asks_head"):
        asked(Collection(["q"]))


@pytest.mark.parametrize(
    ("parts", "false", "said"),
    [
        ({"train": np.zeros((2, 2), int)}, {}, r"must be whole numbers \[n, 3\]"),
        ({"train": np.zeros((1, 3))}, {}, "must be whole numbers"),
        ({"train": np.array([[0, 0, 3]])}, {}, "names entity row 3, but there are 3"),
        ({"train": np.array([[0, 5, 1]])}, {}, "names relation row 5, but there are 2"),
        ({"train": np.array([[-1, 0, 1]])}, {}, "names entity row -1"),
        ({"train": np.array([[0, 0, 1]])}, {"dev": np.array([[0, 0, 1]])}, "'dev', which has no true ones"),
    ],
)
def test_rows_that_are_not_there(graph, parts, false, said):
    with pytest.raises(DataError, match=said):
        Triples(graph.entities, graph.relations, parts, false)


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("name", "entities", "relations", "train", "parts"),
    [
        ("nations", 14, 55, 1592, 3),
        ("kinships", 104, 25, 8544, 3),
        ("umls", 135, 46, 5216, 3),
        ("codex_s", 2034, 42, 32888, 3),
        ("fb15k237", 14541, 237, 272115, 3),
    ],
)
def test_the_shared_graphs(shared_data, name, entities, relations, train, parts):
    graph = load_triples(shared_data / name)
    assert (len(graph.entities), len(graph.relations), len(graph.parts["train"])) == (entities, relations, train)
    assert (len(graph.parts), graph.name) == (parts, name)
    if name == "codex_s":
        assert {part: len(rows) for part, rows in graph.false.items()} == {"valid": 1827, "test": 1828}
        judgements = graph.dataset("test").judgements
        assert (judgements.relevance > 0).sum() == (judgements.relevance == 0).sum() == 1828
    if name == "nations":
        dataset = graph.dataset("valid", side="head")
        back = dataset.judgements
        question = asked(dataset.queries)
        rows = np.stack([back.document, question.relation[back.query], question.entity[back.query]], axis=1)
        assert sorted(map(tuple, rows)) == sorted(map(tuple, graph.parts["valid"]))
    if name == "fb15k237":
        assert graph.entities.has_texts


def test_named_triples_in_text_and_tables(tmp_path):
    (tmp_path / "train.txt").write_text("b\tlikes\ta\n\na\tknows\tb\n")
    (tmp_path / "valid.tsv").write_text("c\tlikes\ta\n")
    write_table({"head": ["a"], "relation": ["likes"], "tail": ["c"]}, tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text("about")
    graph = load_triples(tmp_path, name="letters")
    assert graph.entities.ids.tolist() == ["a", "b", "c"]
    assert graph.relations.ids.tolist() == ["knows", "likes"]
    assert {part: rows.tolist() for part, rows in graph.parts.items()} == {
        "test": [[0, 1, 2]],
        "train": [[1, 1, 0], [0, 0, 1]],
        "valid": [[2, 1, 0]],
    }


def test_damaged_folders_are_named_with_their_line(tmp_path):
    with pytest.raises(DataError, match=r"neither triples.npz nor files"):
        load_triples(tmp_path)
    with pytest.raises(DataError, match="this is no folder"):
        load_triples(tmp_path / "nothing")
    (tmp_path / "train.txt").write_text("a\tlikes\tb\na likes b\n")
    with pytest.raises(DataError, match=r"train.txt, line 2: three names separated by tabs"):
        load_triples(tmp_path)
    (tmp_path / "train.txt").write_text("\n\n")
    with pytest.raises(DataError, match="holds no triples"):
        load_triples(tmp_path)
    (tmp_path / "train.txt").write_text("a\tlikes\tb\n")
    (tmp_path / "train.tsv").write_text("a\tlikes\tb\n")
    with pytest.raises(DataError, match="could each be the part train"):
        load_triples(tmp_path)


def test_damaged_archives_and_tables(tmp_path):
    (tmp_path / "triples.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(DataError, match="one table called entities is wanted, there are 0"):
        load_triples(tmp_path)
    write_table({"id": [0, 1], "entity": ["a", "b"]}, tmp_path / "entities.parquet")
    write_table({"id": [0], "relation": ["likes"]}, tmp_path / "relations.csv")
    with pytest.raises(DataError, match="archive of triples cannot be read"):
        load_triples(tmp_path)
    np.savez(tmp_path / "triples.npz", train=np.array([[0, 0, 1]], np.int32))
    assert load_triples(tmp_path).relations.ids.tolist() == ["likes"]
    np.savez(tmp_path / "triples.npz", train=np.array([[0, 0, 2]], np.int32))
    with pytest.raises(DataError, match=r"triples.npz.*names entity row 2"):
        load_triples(tmp_path)
    write_table({"id": [0, 1]}, tmp_path / "entities.parquet")
    with pytest.raises(DataError, match=r"entities.parquet.*no column holds names"):
        load_triples(tmp_path)
    (tmp_path / "triples.npz").unlink()
    write_table({"head": ["a"], "relation": ["r"]}, tmp_path / "train.csv")
    with pytest.raises(DataError, match="no column tail"):
        load_triples(tmp_path)
    write_table({"head": ["a"], "relation": ["r"], "tail": [None]}, tmp_path / "train.jsonl")
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DataError, match="this triple has no tail"):
        load_triples(tmp_path)
