"""Pair features: the compiled kernel against plain Python, and the round trip of what belongs to them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.errors import ModelError, RivalsError
from rivals.models import Encoder
from rivals.models._pair_kernel import match_features
from rivals.models.pair_features import FEATURES, HEAD, PairFeatures, token_weights
from rivals.models.token_store import TokenStore, encode_store
from tests.models.tiny import WORDS, write_tiny_bert


def random_store(rng: np.random.Generator, lengths: Any, vocabulary: int = 9, width: int = 6) -> TokenStore:
    total = int(np.sum(lengths))
    vectors = rng.normal(size=(total, width))
    vectors /= 1.01 * np.linalg.norm(vectors, axis=1, keepdims=True)  # rounding must not take a cosine below -1
    scales = np.abs(vectors).max(1, initial=0) / 127
    return TokenStore(
        np.rint(vectors / scales[:, None]).astype(np.int8),
        scales.astype(np.float32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rng.integers(0, vocabulary, total).astype(np.int32),
    )


def plain(query: Any, query_ids: Any, document: Any, document_ids: Any, weights: Any, head: int) -> list[float]:
    """One pair's features, from the words of `FEATURES`."""
    length = math.log(1 + len(document))
    if not len(query):
        return [0.0] * 7 + [length]
    w = [float(weights[i]) for i in query_ids]
    total = sum(w)
    best = [max((float(q @ d) for d in document), default=0.0) for q in query]
    best_head = [max((float(q @ d) for d in document[:head]), default=0.0) for q in query]
    there = [i in document_ids for i in query_ids]
    there_head = [i in document_ids[:head] for i in query_ids]
    return [
        sum(a * b for a, b in zip(w, best, strict=True)) / total,
        sum(best) / len(best),
        min(best),
        sum(a * b for a, b in zip(w, best_head, strict=True)) / total,
        sum(a for a, b in zip(w, there, strict=True) if b) / total,
        sum(a for a, b in zip(w, there_head, strict=True) if b) / total,
        max([a for a, b in zip(w, there, strict=True) if not b], default=0.0),
        length,
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("head", [1, 4, HEAD])
def test_kernel_against_plain_python(seed: int, head: int) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = random_store(rng, rng.integers(0, 6, 5)), random_store(rng, rng.integers(0, 12, 7))
    weights = rng.uniform(0.1, 5, 9).astype(np.float32)
    vectors = queries.vectors.astype(np.float32) * queries.scales[:, None]
    pairs = np.column_stack([rng.integers(0, 5, 20), rng.integers(0, 7, 20)]).astype(np.int64)
    out = np.full((20, len(FEATURES)), 0.0, np.float32)
    match_features(
        vectors,
        queries.offsets,
        queries.ids,
        documents.vectors,
        documents.scales,
        documents.offsets,
        documents.ids,
        weights,
        head,
        pairs,
        out,
    )
    for row, (q, d) in enumerate(pairs):
        a, b = slice(*queries.offsets[q : q + 2]), slice(*documents.offsets[d : d + 2])
        expected = plain(
            vectors[a],
            queries.ids[a],
            documents.vectors[b] * documents.scales[b, None],
            documents.ids[b],
            weights,
            head,
        )
        np.testing.assert_allclose(out[row], expected, rtol=2e-5, atol=1e-5)


def test_token_weights_by_hand() -> None:
    offsets, ids = np.array([0, 3, 4, 4]), np.array([1, 1, 2, 1], np.int32)
    store = TokenStore(np.zeros((4, 2), np.int8), np.ones(4, np.float32), offsets, ids)
    expected = [math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (0, 2, 1, 0)]  # token 1 is in two of three texts
    np.testing.assert_allclose(token_weights(store, 4), expected, rtol=1e-6)
    empty = TokenStore(np.zeros((0, 2), np.int8), np.ones(0, np.float32), np.zeros(2, np.int64), np.zeros(0, np.int32))
    np.testing.assert_allclose(token_weights(empty, 3), [math.log(1 + 1.5 / 0.5)] * 3, rtol=1e-6)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_tiny_bert(tmp_path_factory.mktemp("m") / "tiny"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def documents() -> Collection:
    rng = np.random.default_rng(0)
    return Collection(
        [f"d{i}" for i in range(12)], ["", *(" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 45, 11))]
    )


@pytest.fixture(scope="module")
def features(encoder: Encoder, documents: Collection) -> PairFeatures:
    return PairFeatures.build(encoder, documents)[0]


def run_over(documents: Collection, texts: list[str], seed: int = 0) -> Run:
    rng = np.random.default_rng(seed)
    document = np.concatenate([rng.permutation(len(documents))[:5] for _ in texts]) if texts else np.zeros(0, np.int64)
    queries = Collection([f"q{i}" for i in range(len(texts))], texts, name="query")
    return Run.build(queries, documents, np.arange(len(texts) + 1) * 5, document, rng.random(len(document)))


def test_features_of_a_run(encoder: Encoder, documents: Collection, features: PairFeatures) -> None:
    run = run_over(documents, ["cat sat", "", "fever of flu , red zebra"])
    found = features(run)
    assert found.dtype == np.float32
    _, queries = encode_store(
        encoder, run.queries.full_texts, features.projection, role="query", folder=None, description=""
    )
    store = features.documents
    for row, (q, d) in enumerate(zip(run.query, run.document, strict=True)):
        a, b = slice(*queries.offsets[q : q + 2]), slice(*store.offsets[d : d + 2])
        expected = plain(
            queries.vectors[a] * queries.scales[a, None],
            queries.ids[a],
            store.vectors[b] * store.scales[b, None],
            store.ids[b],
            features.weights,
            HEAD,
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
    only = run.take([2])
    np.testing.assert_allclose(features(only), found[run.query == 2], atol=1e-6)


def test_empty_runs(documents: Collection, features: PairFeatures) -> None:
    assert features(run_over(documents, [])).shape == (0, 8)
    nothing = Run.build(Collection(["q"], ["cat"], name="query"), documents, [0, 0], [], [])
    assert features(nothing).shape == (0, 8)


def test_several_threads_at_once(documents: Collection, features: PairFeatures) -> None:
    """A server scores in threads."""
    runs = [run_over(documents, ["cat sat on mat", "flu"], seed) for seed in range(8)]
    expected = [features(run) for run in runs]
    with ThreadPoolExecutor(4) as pool:
        for found, there in zip(pool.map(features, runs * 4), expected * 4, strict=True):
            np.testing.assert_allclose(found, there, atol=1e-5)


def test_other_documents_are_refused(features: PairFeatures, documents: Collection) -> None:
    other = Collection(documents.ids.tolist(), [*documents.texts[:-1], "changed"])
    with pytest.raises(RivalsError, match="other documents"):
        features(run_over(other, ["cat"]))


def test_write_and_read(features: PairFeatures, documents: Collection, encoder: Encoder, tmp_path: Path) -> None:
    about = features.write(tmp_path)
    again = PairFeatures.read(tmp_path, about, encoder)
    run = run_over(documents, ["cat sat", "red"])
    assert np.array_equal(again(run), features(run))
    with pytest.raises(ModelError, match="another encoder"):
        PairFeatures.read(tmp_path, {**about, "encoder": "x"}, encoder)
    sound = (tmp_path / "projection.npz").read_bytes()
    flipped = bytearray(sound)
    flipped[200] ^= 1
    for content in (b"", b"x", sound[:100], sound[:-30], bytes(flipped)):
        (tmp_path / "projection.npz").write_bytes(content)
        with pytest.raises(ModelError, match=r"projection\.npz cannot be read"):
            PairFeatures.read(tmp_path, about, encoder)


def test_the_same_features_over_other_documents(
    encoder: Encoder, documents: Collection, features: PairFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known texts keep their stored tokens, new ones are encoded once, whatever the order and the repetitions."""
    texts = documents.full_texts
    new = ["flu fever zebra", "red mat"]
    chosen = [texts[7], new[0], "", new[1], texts[3], new[0], texts[7]]
    others = Collection([f"n{i}" for i in range(len(chosen))], chosen)
    asked: list[str] = []
    encode = encoder.encode_with_tokens
    monkeypatch.setattr(encoder, "encode_with_tokens", lambda t, **o: (asked.extend(t), encode(t, **o))[1])
    moved = features.over(documents, others)
    assert asked == new
    _, fresh = encode_store(encoder, chosen, features.projection, role="document", folder=None, description="")
    np.testing.assert_array_equal(moved.documents.offsets, fresh.offsets)
    np.testing.assert_array_equal(moved.documents.ids, fresh.ids)
    np.testing.assert_allclose(moved.documents.scales, fresh.scales, rtol=1e-4)
    assert np.abs(moved.documents.vectors.astype(int) - fresh.vectors.astype(int)).max(initial=0) <= 1
    found = moved(run_over(others, ["cat sat", "fever of flu"]))
    assert np.isfinite(found).all()
    with pytest.raises(RivalsError, match="other documents than the ones said"):
        features.over(others, documents)
    with pytest.raises(RivalsError, match="built for other documents"):
        features(run_over(others, ["cat"]))
