"""Token stores and encoded blocks: small errors, files that are whole or told damaged, and resuming bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.errors import ModelError
from rivals.models import Encoder, blocks
from rivals.models.blocks import cached_block, encode_in_blocks
from rivals.models.token_store import TokenStore, encode_store, fit_projection
from tests.models.tiny import TEXTS, WORDS, write_tiny_bert

FILES = ("vectors.npy", "scales.npy", "offsets.npy", "ids.npy")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_tiny_bert(tmp_path_factory.mktemp("m") / "tiny"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return ["", *(" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 20, 22))]


def store_of(
    encoder: Encoder, texts: list[str], dimension: int = 16, folder: Path | None = None
) -> tuple[Any, TokenStore]:
    projection = fit_projection(encoder, texts, dimension)
    return encode_store(encoder, texts, projection, role="document", folder=folder, description="")


@pytest.mark.parametrize("dimension", [4, 16, 32])
def test_quantisation_error_is_at_most_half_a_step(encoder: Encoder, texts: list[str], dimension: int) -> None:
    projection = fit_projection(encoder, texts, dimension)
    pooled, store = store_of(encoder, texts, dimension)
    tokens = encoder.encode_tokens(texts, role="document", storage="float32", drop_special=True, progress=False)
    exact = tokens.vectors @ projection
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    error = np.abs(store.vectors * store.scales[:, None] - exact)
    assert (error <= 0.5 * store.scales[:, None] + 1e-5).all()
    assert (store.scales <= 1 / 127 + 1e-6).all()
    assert np.abs(store.vectors.astype(int)).max(1).min() == 127  # the whole range is used
    assert np.array_equal(store.ids, tokens.ids)
    assert np.array_equal(store.offsets, tokens.offsets)
    assert store.vectors.dtype == np.int8
    assert len(store) == len(texts)
    assert store.offsets[1] == 0  # the empty text has no token
    np.testing.assert_allclose(
        pooled, encoder.encode(texts, role="document", progress=False, normalize=True), atol=1e-5
    )


def test_the_projection_is_orthonormal_and_keeps_inner_products(encoder: Encoder, texts: list[str]) -> None:
    projection = fit_projection(encoder, texts, 24)
    np.testing.assert_allclose(projection.T @ projection, np.eye(24), atol=1e-5)
    assert np.array_equal(projection, fit_projection(encoder, texts, 24))
    np.testing.assert_array_equal(projection[:, :8], fit_projection(encoder, texts, 8))
    vectors = encoder.encode_tokens(
        texts, role="document", storage="float32", drop_special=True, progress=False
    ).vectors
    kept = np.linalg.norm(vectors @ projection) / np.linalg.norm(vectors)
    random = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 24)))[0]
    assert kept > np.linalg.norm(vectors @ random) / np.linalg.norm(vectors)


def test_save_and_load(encoder: Encoder, texts: list[str], tmp_path: Path) -> None:
    _, store = store_of(encoder, texts)
    loaded = TokenStore.load(tmp_path, store.save(tmp_path))
    for name in ("vectors", "scales", "offsets", "ids"):
        one, other = getattr(store, name), getattr(loaded, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@pytest.mark.parametrize("of", [[], [""], ["", "[SEP]"]])
def test_texts_without_tokens(encoder: Encoder, of: list[str], tmp_path: Path) -> None:
    projection = np.eye(32, 4, dtype=np.float32)
    pooled, store = encode_store(encoder, of, projection, role="document", folder=None, description="")
    assert len(store) == len(pooled) == len(of)
    loaded = TokenStore.load(tmp_path, store.save(tmp_path))
    assert loaded.vectors.shape == store.vectors.shape
    assert loaded.vectors.shape[1] == 4


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "unlisted"])
def test_a_damaged_file_is_told(encoder: Encoder, texts: list[str], tmp_path: Path, file: str, damage: str) -> None:
    checksums = store_of(encoder, texts)[1].save(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    if damage == "truncated":
        (tmp_path / file).write_bytes(content[:-5])
    elif damage == "one bit":
        content[-1] ^= 1
        (tmp_path / file).write_bytes(content)
    elif damage == "missing":
        (tmp_path / file).unlink()
    else:
        del checksums[file]
    with pytest.raises(ModelError, match=file) as caught:
        TokenStore.load(tmp_path, checksums)
    assert "\n" not in str(caught.value)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 5)


class Broken(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("at", range(5))
@pytest.mark.usefixtures("small_blocks")
def test_resumed_encoding_is_the_uninterrupted_one(
    encoder: Encoder, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = encode_in_blocks(encoder, texts, role="document", folder=None)
    real, calls = Encoder.encode, []

    def encode(self: Encoder, chunk: Any, **options: Any) -> Any:
        calls.append(len(chunk))
        if len(calls) == at + 1:
            raise Broken
        return real(self, chunk, **options)

    monkeypatch.setattr(Encoder, "encode", encode)
    with pytest.raises(Broken):
        encode_in_blocks(encoder, texts, role="document", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == at
    resumed = encode_in_blocks(encoder, texts, role="document", folder=tmp_path)
    assert np.array_equal(resumed, whole)
    assert len(calls) == at + 1 + 5 - at  # what was there is not computed again
    assert np.array_equal(encode_in_blocks(encoder, texts, role="document", folder=tmp_path), whole)
    assert len(calls) == 6


@pytest.mark.usefixtures("small_blocks")
def test_resumed_stores_are_the_uninterrupted_ones(encoder: Encoder, texts: list[str], tmp_path: Path) -> None:
    pooled, store = store_of(encoder, texts)
    store_of(encoder, texts, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    files[1].unlink()
    files[3].write_bytes(files[3].read_bytes()[:200])
    again, resumed = store_of(encoder, texts, folder=tmp_path)
    assert np.array_equal(pooled, again)
    for name in ("vectors", "scales", "offsets", "ids"):
        assert np.array_equal(getattr(store, name), getattr(resumed, name))


def test_blocks_of_another_projection_are_not_taken(encoder: Encoder, texts: list[str], tmp_path: Path) -> None:
    """The same texts first, but a collection that grew has other principal directions."""
    few, all_of_them = texts[:6], texts
    one, other = fit_projection(encoder, few, 8), fit_projection(encoder, all_of_them, 8)
    assert not np.array_equal(one, other)
    options: Any = {"role": "document", "description": ""}
    encode_store(encoder, few, one, folder=tmp_path, **options)
    _, found = encode_store(encoder, few, other, folder=tmp_path, **options)
    _, fresh = encode_store(encoder, few, other, folder=None, **options)
    assert np.array_equal(found.vectors, fresh.vectors)


def test_keys_see_all_that_decides(encoder: Encoder, tmp_path: Path) -> None:
    compute = lambda chunk: {"pooled": np.zeros((len(chunk), 1), np.float32)}  # noqa: E731
    cached_block(encoder, ["a", "b"], "query", tmp_path, "pooled", compute)
    for chunk, role, salt in (
        (["ab", ""], "query", "pooled"),
        (["b", "a"], "query", "pooled"),
        (["a", "b"], "document", "pooled"),
        (["a", "b"], "query", "tokens"),
    ):
        before = len(list(tmp_path.iterdir()))
        cached_block(encoder, chunk, role, tmp_path, salt, compute)  # type: ignore[arg-type]
        assert len(list(tmp_path.iterdir())) == before + 1


def test_no_flipped_bit_in_a_block_gets_through(encoder: Encoder, tmp_path: Path) -> None:
    expected = {"pooled": np.arange(6, dtype=np.float32).reshape(2, 3)}
    cached_block(encoder, TEXTS[:2], "query", tmp_path, "pooled", lambda _: expected)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    for position in range(0, len(sound), 3):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        found = cached_block(encoder, TEXTS[:2], "query", tmp_path, "pooled", lambda _: expected)
        assert np.array_equal(found["pooled"], expected["pooled"]), f"byte {position}"
        assert found["pooled"].dtype == np.float32
    for cut in (0, 1, 50, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:cut])
        found = cached_block(encoder, TEXTS[:2], "query", tmp_path, "pooled", lambda _: expected)
        assert np.array_equal(found["pooled"], expected["pooled"])
        assert path.read_bytes() == sound
