"""The index folder: what is saved comes back, and every kind of damage is one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection
from rivals.errors import IndexDamaged, RivalsError
from rivals.retrieve.bm25 import BM25
from rivals.retrieve.index import Index
from rivals.retrieve.sealed import METADATA

DOCUMENTS = Collection(["a", "b", "c"], ["aab heart", "bcc attack", ""], {"title": ["One", "Two", "Three"]})
FILES = [
    "documents.parquet",
    "vectors.npy",
    *(f"bm25/{name}" for name in ("data.npy", "indices.npy", "indptr.npy", "absent.npy", "vocabulary.json")),
    METADATA,
]


@pytest.fixture
def folder(tmp_path: Path, letters: Any) -> Path:
    Index.build(DOCUMENTS, letters).save(tmp_path / "index")
    return tmp_path / "index"


def test_what_is_saved_comes_back(folder: Path, letters: Any) -> None:
    index = Index.load(folder, verify=True)
    asked = Collection(["q"], ["ab heart"], name="query")
    built = Index.build(DOCUMENTS, letters)
    assert index.documents.ids.tolist() == ["a", "b", "c"]
    assert index.documents.full_texts == DOCUMENTS.full_texts
    assert isinstance(index.vectors, np.memmap)
    for before, after in ((built.bm25, index.bm25), (built.dense(letters), index.dense(letters))):
        np.testing.assert_array_equal(after(asked, 3).document, before(asked, 3).document)
        np.testing.assert_array_equal(after(asked, 3).score, before(asked, 3).score)
    files = sorted(str(f.relative_to(folder).as_posix()) for f in folder.rglob("*") if f.is_file())
    assert files == sorted(FILES)
    assert [f.name for f in folder.parent.iterdir()] == ["index"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "empty", "delete", "folder"])
def test_damage_is_named(folder: Path, name: str, harm: str) -> None:
    file = folder / name
    body = file.read_bytes()
    spots = np.linspace(0, len(body) - 1, 7).astype(int).tolist() if harm == "flip" else [0]
    for spot in spots:
        file.unlink(missing_ok=True)
        if harm == "flip":
            file.write_bytes(body[:spot] + bytes([body[spot] ^ 0x01]) + body[spot + 1 :])
        elif harm == "folder":
            file.mkdir()
        elif harm != "delete":
            file.write_bytes({"cut": body[:-2], "grow": body + b"\n0", "empty": b""}[harm])
        if harm == "flip" and name == METADATA and json_equal(file, body):
            continue
        with pytest.raises(IndexDamaged) as caught:
            Index.load(folder)
        message = str(caught.value)
        assert name in message or (name == METADATA and "folder" in message)
        assert "rebuild it with Index.build" in message
        assert "\n" not in message


def json_equal(file: Path, body: bytes) -> bool:
    """Whether a changed byte was white space outside of values, which changes nothing."""
    try:
        return bool(json.loads(file.read_bytes()) == json.loads(body))
    except ValueError:
        return False


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the metadata and seal it anew, as another version of this code would have written it."""
    from rivals.retrieve.sealed import _text_checksum

    body = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    body["metadata"].update(changes)
    body["checksum"] = _text_checksum(json.dumps(body["metadata"], indent=2, ensure_ascii=False))
    (folder / METADATA).write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 99, a newer one"),
        ({"version": 0}, "version 0, an older one"),
        ({"kind": "cake"}, "this is a cake folder"),
        ({"documents": 7}, "cannot be read"),
        ({"dimensions": 9}, "vectors.npy cannot be read"),
        ({"bm25": {}}, "bm25 cannot be read"),
    ],
)
def test_other_versions_and_kinds_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(IndexDamaged, match=message):
        Index.load(folder)


def test_no_folder_and_no_metadata(tmp_path: Path) -> None:
    with pytest.raises(IndexDamaged, match="no such rivals index folder"):
        Index.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IndexDamaged, match=r"metadata\.json is missing"):
        Index.load(tmp_path / "empty")


def test_verification_can_be_left_out_but_sizes_count(folder: Path) -> None:
    file = folder / "vectors.npy"
    body = file.read_bytes()
    file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    assert len(Index.load(folder, verify=False).documents) == 3
    file.write_bytes(body[:-1])
    with pytest.raises(IndexDamaged, match=r"vectors\.npy has"):
        Index.load(folder, verify=False)


def test_saving_replaces_an_index_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    words = Collection(["z"], ["zebra"])
    Index(words, bm25=BM25(words)).save(folder)
    assert Index.load(folder).documents.ids.tolist() == ["z"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(RivalsError, match="is not a rivals index folder"):
        Index(words).save(other)
    with pytest.raises(RivalsError, match="is not a rivals index folder"):
        Index(words).save(other / "chapter.txt")
    assert (other / "chapter.txt").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shutil.copytree(folder, folder.parent / "copy")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(BM25, "write", fail)
    words = Collection(["z"], ["zebra"])
    with pytest.raises(OSError, match="disk full"):
        Index(words, bm25=BM25(words)).save(folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["copy", "index"]
    for name in FILES:
        assert (folder / name).read_bytes() == (before / name).read_bytes()


def test_parts_that_are_not_there_and_other_encoders(tmp_path: Path, letters: Any) -> None:
    Index(DOCUMENTS).save(tmp_path / "bare")
    bare = Index.load(tmp_path / "bare")
    with pytest.raises(RivalsError, match="no BM25 part"):
        _ = bare.bm25
    with pytest.raises(RivalsError, match="no vectors"):
        bare.dense(letters)
    index = Index.build(DOCUMENTS, letters, bm25=False)
    letters.mark = "retrained"
    with pytest.raises(RivalsError, match="another encoder"):
        index.dense(letters)
    with pytest.raises(RivalsError, match="go together"):
        Index(DOCUMENTS, vectors=np.ones((3, 2), np.float32))
    with pytest.raises(RivalsError, match="for 3 documents"):
        Index(DOCUMENTS, vectors=np.ones((2, 2), np.float32), encoder_fingerprint="x")
    other = Collection(["z"], ["zebra"])
    with pytest.raises(RivalsError, match="other documents"):
        Index(DOCUMENTS, bm25=BM25(other))
