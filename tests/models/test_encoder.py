"""Encoding: order, batches, precision, cache, training state and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rivals.errors import ModelError, RivalsError
from rivals.models import Encoder, VectorCache
from tests.models.tiny import TEXTS

MANY = [f"{'cat ' * (i % 11)}dog {'sat ' * (i % 5)}{i}" for i in range(150)]


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    return Encoder.load(tiny, device="cpu", dtype="float32")


def test_encode_equals_forward_one_text_at_a_time(encoder: Encoder) -> None:
    got = encoder.encode(TEXTS, progress=False)
    assert got.dtype == np.float32
    assert got.shape == (len(TEXTS), encoder.dimension)
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        for row in range(len(TEXTS)):
            alone = encoder(*tokens.pad(np.array([row])))[0].numpy()
            np.testing.assert_allclose(got[row], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_the_batch_size_does_not_matter(encoder: Encoder, max_tokens: int) -> None:
    expected = encoder.encode(MANY, progress=False)
    got = encoder.encode(MANY, max_tokens=max_tokens, progress=False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_encode_is_deterministic_and_order_follows_the_texts(encoder: Encoder) -> None:
    first, second = (encoder.encode(MANY, progress=False) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    backwards = encoder.encode(MANY[::-1], progress=False)
    np.testing.assert_allclose(backwards[::-1], first, rtol=1e-4, atol=1e-5)


def test_no_text_and_empty_texts(encoder: Encoder) -> None:
    assert encoder.encode([], progress=False).shape == (0, encoder.dimension)
    two = encoder.encode(["", ""], progress=False)
    assert np.isfinite(two).all()
    assert np.array_equal(two[0], two[1])


def test_long_texts_are_cut_and_counted(encoder: Encoder) -> None:
    tokens = encoder.tokenize(["cat " * 500, "cat"])
    assert tokens.lengths.tolist() == [encoder.max_length, 3]
    assert tokens.truncated == 1


def test_a_shorter_length_can_be_asked_for(tiny: Path) -> None:
    short = Encoder.load(tiny, device="cpu", max_length=8)
    assert short.tokenize(["cat " * 30]).lengths.tolist() == [8]
    for bad in (0, 1000):
        with pytest.raises(ModelError, match="max_length"):
            Encoder.load(tiny, max_length=bad)


def test_normalize_divides_by_the_norm(encoder: Encoder) -> None:
    plain = encoder.encode(TEXTS, progress=False)
    unit = encoder.encode(TEXTS, normalize=True, progress=False)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-6)
    assert abs(np.linalg.norm(plain, axis=1) - 1).max() > 1e-3


def test_bfloat16_is_close_and_follows_the_weights(minilm: Encoder) -> None:
    texts = ["What are the symptoms of influenza?", "A cat sat on the mat.", "Liver disease " * 30]
    exact = minilm.encode(texts, progress=False)
    fast = minilm.encode(texts, dtype="bfloat16", progress=False)
    assert (exact * fast).sum(1).min() >= 0.998
    assert np.abs(np.linalg.norm(fast, axis=1) - 1).max() < 1e-5
    assert np.abs(exact - fast).max() > 0


def change_by_copy(encoder: Encoder) -> None:
    with torch.no_grad():
        next(encoder.backbone.parameters()).mul_(3.0)


def change_by_data(encoder: Encoder) -> None:
    next(encoder.backbone.parameters()).data.mul_(3.0)


def change_by_fused_step(encoder: Encoder) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=0.3, fused=True)
    encoder(*encoder.tokenize(TEXTS).pad(np.array([0, 3]))).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("change", [change_by_copy, change_by_data, change_by_fused_step])
def test_changed_weights_are_noticed(encoder: Encoder, change: Callable[[Encoder], None], tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "cache")
    before, name = encoder.encode(TEXTS, dtype="bfloat16", cache=cache, progress=False), encoder.fingerprint()
    assert encoder.fingerprint() == name
    change(encoder)
    assert encoder.fingerprint() != name
    after = encoder.encode(TEXTS, dtype="bfloat16", cache=cache, progress=False)
    assert np.abs(before - after).max() > 1e-2


def test_the_cache_saves_the_model_and_changes_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*MANY[:80], *MANY[:20]]
    plain = encoder.encode(texts, progress=False)
    cache = VectorCache(tmp_path / "cache")
    first = encoder.encode(texts, cache=cache, progress=False)
    np.testing.assert_allclose(first, plain, rtol=1e-4, atol=1e-5)
    assert np.array_equal(first[80:], first[:20])
    assert len(cache) == 80

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the model ran although every vector is known")

    monkeypatch.setattr(encoder.backbone, "forward", refuse)
    second = encoder.encode(texts, cache=VectorCache(tmp_path / "cache"), progress=False)
    assert second.tobytes() == first.tobytes()
    with pytest.raises(AssertionError, match="the model ran"):
        encoder.encode(texts, role="query", prompt="query: ", cache=cache, progress=False)


def test_few_new_vectors_write_no_file(encoder: Encoder, tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache") as cache:
        for text in TEXTS:
            encoder.encode([text], cache=cache, progress=False)
        assert list((tmp_path / "cache" / "segments").iterdir()) == []
    assert len(list((tmp_path / "cache" / "segments").iterdir())) == 1


def test_training_goes_on_after_encoding(encoder: Encoder) -> None:
    encoder.train()
    encoder.encode(TEXTS, progress=False)
    assert encoder.training
    assert encoder.backbone.training
    loss = encoder(*encoder.tokenize(TEXTS).pad(np.arange(3))).square().sum()
    loss.backward()
    missing = [name for name, value in encoder.named_parameters() if value.grad is None]
    assert missing == []


def test_a_broken_model_is_told_and_leaves_no_state_behind(encoder: Encoder) -> None:
    encoder.train()
    with torch.no_grad():
        encoder.backbone.embeddings.LayerNorm.weight.fill_(float("nan"))
    for call in (encoder.encode, encoder.encode_tokens):
        with pytest.raises(RivalsError, match="not finite") as caught:
            call(TEXTS, progress=False)
        assert not torch.is_inference_mode_enabled(), caught
        assert encoder.training


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["a", None], {}, "row 1 is NoneType"),
        (["a", 3.5], {}, "row 1 is float"),
        ("one", {}, "put it in a list"),
        (["a"], {"role": "user"}, "role is 'user'"),
        (["a"], {"dtype": "float8"}, "dtype 'float8' is not known"),
        (["a"], {"max_tokens": 0}, "max_tokens"),
    ],
)
def test_bad_input_is_told_in_one_line(encoder: Encoder, texts: list[str], options: dict[str, str], words: str) -> None:
    with pytest.raises(RivalsError, match=words):
        encoder.encode(texts, progress=False, **options)  # type: ignore[arg-type]


def test_token_vectors_are_those_of_the_transformer(encoder: Encoder) -> None:
    got = encoder.encode_tokens(MANY[:30], storage="float32", max_tokens=64, progress=False)
    tokens = encoder.tokenize(MANY[:30])
    assert np.array_equal(got.offsets, tokens.offsets)
    assert np.array_equal(got.ids, tokens.ids)
    with torch.no_grad():
        for row in (0, 7, 29):
            hidden = encoder.token_vectors(*tokens.pad(np.array([row])))[0]
            expected = torch.nn.functional.normalize(hidden, dim=-1).numpy()
            mine = got.vectors[got.offsets[row] : got.offsets[row + 1]]
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)
    half = encoder.encode_tokens(MANY[:30], progress=False)
    assert half.vectors.dtype == np.float16
    np.testing.assert_allclose(half.vectors, got.vectors, atol=1e-3)


def test_special_tokens_and_punctuation_can_be_left_out(encoder: Encoder) -> None:
    texts = ["the cat , sat .", "", "! ."]
    full = encoder.encode_tokens(texts, storage="float32", progress=False)
    bare = encoder.encode_tokens(texts, storage="float32", drop_special=True, drop_punctuation=True, progress=False)
    assert len(bare) == 3
    assert np.diff(full.offsets).tolist() == [7, 2, 4]
    assert np.diff(bare.offsets).tolist() == [3, 0, 0]
    np.testing.assert_array_equal(bare.vectors, full.vectors[[1, 2, 4]])
    words = [encoder.fast_tokenizer.text_of(int(i)) for i in bare.ids]
    assert words == ["the", "cat", "sat"]


def test_a_copy_is_independent(encoder: Encoder) -> None:
    twin = copy.deepcopy(encoder)
    before = encoder.encode(TEXTS, progress=False)
    change_by_copy(twin)
    assert np.array_equal(encoder.encode(TEXTS, progress=False), before)
    assert np.abs(twin.encode(TEXTS, progress=False) - before).max() > 1e-3


def test_an_unknown_device_is_refused(tiny: Path) -> None:
    for device in ("abacus", "cuda:99" if not torch.cuda.is_available() else "tpu"):
        with pytest.raises(RivalsError, match="device"):
            Encoder.load(tiny, device=device)
