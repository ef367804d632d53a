"""Cross-encoders: scores equal the reference, only documents are cut, new heads follow their seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rivals.errors import ModelError, RivalsError
from rivals.models import CrossEncoder, Encoder
from rivals.models._int8 import int8_pays

QUERIES = ["what cause of flu", "the cat", "", "fever", "red zebra"]
DOCUMENTS = ["flu : virus , fever .", "a dog sat on the mat", "cat", "", "blue " * 20]


@pytest.fixture
def model(make_tiny: Callable[..., Path]) -> CrossEncoder:
    return CrossEncoder.load(make_tiny("cross", cross=True), device="cpu", dtype="float32")


def reference(folder: Path) -> Any:
    pytest.importorskip("sentence_transformers", reason="the reference is not installed")
    from sentence_transformers import CrossEncoder as Reference

    return Reference(str(folder), device="cpu")


def test_scores_equal_the_reference_before_and_after_saving(model: CrossEncoder, tmp_path: Path) -> None:
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    ours = model.score(QUERIES, DOCUMENTS, progress=False)
    assert ((ours > 0) & (ours < 1)).all()  # a folder that names no activation has a sigmoid, as in the reference
    np.testing.assert_allclose(ours, reference(tmp_path / "cross").predict(pairs), atol=1e-4)
    saved = model.save(tmp_path / "saved")
    np.testing.assert_allclose(reference(saved).predict(pairs), ours, atol=1e-4)
    again = CrossEncoder.load(saved, device="cpu", dtype="float32")
    assert again.score(QUERIES, DOCUMENTS, progress=False).tobytes() == ours.tobytes()
    assert again.fingerprint() == model.fingerprint()


def test_a_folder_the_reference_wrote_is_read(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = reference(tiny)
    theirs.save(str(tmp_path / "theirs"))
    ours = CrossEncoder.load(tmp_path / "theirs", device="cpu", dtype="float32")
    expected = theirs.predict(list(zip(QUERIES, DOCUMENTS, strict=True)))
    np.testing.assert_allclose(ours.score(QUERIES, DOCUMENTS, progress=False), expected, atol=1e-4)


def test_minilm_with_a_new_head_equals_the_reference(tmp_path: Path) -> None:
    queries = ["what is flu?", "what is flu?", "how to treat fever"]
    documents = ["Influenza is a viral disease.", "A cat sat on the mat.", "Rest and drink."]
    model = CrossEncoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32", seed=1)
    assert model.max_length == 256
    ours = model.score(queries, documents, progress=False)
    pairs = list(zip(queries, documents, strict=True))
    saved = model.save(tmp_path / "saved")
    theirs = reference(saved)
    np.testing.assert_allclose(theirs.predict(pairs), ours, atol=1e-4)
    fast = model.score(queries, documents, dtype="bfloat16", progress=False)
    assert np.abs(fast - ours).max() < 0.02


def test_a_new_head_follows_its_seed_and_keeps_the_encoder(tiny: Path) -> None:
    one, same, other = (CrossEncoder.load(tiny, device="cpu", dtype="float32", seed=seed) for seed in (5, 5, 6))
    state = torch.random.get_rng_state()
    CrossEncoder.load(tiny, device="cpu", seed=7)
    a, b, c = (m.score(QUERIES, DOCUMENTS, progress=False) for m in (one, same, other))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(one.model.classifier.bias, torch.zeros(1))
    assert float(one.model.classifier.weight.detach().std()) == pytest.approx(0.2, rel=0.5)
    body = Encoder.load(tiny, device="cpu").backbone.state_dict()
    assert all(value.equal(body[name]) for name, value in one.model.bert.state_dict().items() if name in body)
    assert torch.equal(state, torch.random.get_rng_state())


def test_pairs_equal_those_of_the_tokenizer(model: CrossEncoder) -> None:
    pairs = model.tokenize_pairs(QUERIES, DOCUMENTS)
    ids, mask, types = pairs.pad(np.arange(len(QUERIES)), pad_id=0)
    expected = model.tokenizer(QUERIES, DOCUMENTS, padding=True, return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"])
    assert types is not None
    assert torch.equal(types, expected["token_type_ids"])
    assert (pairs.truncated, pairs.queries_cut) == (0, 0)


WORDS = st.lists(st.sampled_from(["cat", "dog", "mat", "."]), max_size=60).map(" ".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6), st.integers(8, 64))
def test_only_the_document_is_cut(model: CrossEncoder, rows: list[tuple[str, str]], longest: int) -> None:
    queries, documents = zip(*rows, strict=True)
    pairs = model.tokenize_pairs(queries, documents, longest)
    cls, sep = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    plain = model.tokenizer(list(queries + documents), add_special_tokens=False)["input_ids"]
    left, right = plain[: len(rows)], plain[len(rows) :]
    room = longest - 3
    cut = 0
    for i, (query, document) in enumerate(zip(left, right, strict=True)):
        query = query[: room * 3 // 4]
        document = document[: room - len(query)]
        cut += len(document) < len(right[i])
        got = pairs.tokens.ids[pairs.tokens.offsets[i] : pairs.tokens.offsets[i + 1]].tolist()
        assert got == [cls, *query, sep, *document, sep]
        assert pairs.second[i] == len(query) + 2
    assert pairs.lengths.max() <= longest
    assert pairs.truncated >= cut


def test_the_batch_size_does_not_matter(model: CrossEncoder) -> None:
    queries, documents = QUERIES * 6, [text for text in DOCUMENTS for _ in range(6)]
    expected = model.score(queries, documents, progress=False)
    for budget in (1, 50):
        got = model.score(queries, documents, max_tokens=budget, progress=False)
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert model.score([], [], progress=False).shape == (0,)


@pytest.mark.skipif(not int8_pays(), reason="this processor has no int8 dot products")
def test_int8_scores_stay_close_in_any_batch_and_follow_the_weights(model: CrossEncoder) -> None:
    queries, documents = QUERIES * 5, [text for text in DOCUMENTS for _ in range(5)]
    exact = model.score(queries, documents, progress=False)
    fast = model.score(queries, documents, dtype="int8", progress=False)
    assert 0 < np.abs(fast - exact).max() < 0.02
    np.testing.assert_allclose(
        model.score(queries, documents, dtype="int8", max_tokens=40, progress=False), fast, atol=1e-5
    )
    with torch.no_grad():
        model.model.bert.encoder.layer[0].output.dense.weight.mul_(2.0)
        model.model.classifier.bias.add_(1.0)
    changed = model.score(queries, documents, progress=False)
    assert np.abs(changed - exact).max() > 0.05
    assert np.abs(model.score(queries, documents, dtype="int8", progress=False) - changed).max() < 0.03
    with torch.no_grad():
        model.model.bert.encoder.layer[1].attention.self.key.weight.fill_(float("nan"))
    with pytest.raises(RivalsError, match="not finite"):
        model.score(["cat"], ["dog"], dtype="int8", progress=False)


def test_many_pairs_are_scored_stretch_by_stretch(model: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = QUERIES * 6, [text for text in DOCUMENTS for _ in range(6)]
    expected = model.score(queries, documents, progress=False)
    monkeypatch.setattr("rivals.models.cross_encoder._PAIRS", 7)
    np.testing.assert_allclose(model.score(queries, documents, progress=False), expected, atol=1e-5)


def test_forward_gives_raw_scores_with_gradients(model: CrossEncoder) -> None:
    model.train()
    ids, mask, types = model.tokenize_pairs(QUERIES, DOCUMENTS).pad(np.arange(5))
    model(ids, mask, types).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    model.eval()
    with torch.no_grad():
        raw = model(ids, mask, types)
    np.testing.assert_allclose(raw.sigmoid().numpy(), model.score(QUERIES, DOCUMENTS, progress=False), atol=1e-5)


def test_what_cannot_be_is_refused(model: CrossEncoder, make_tiny: Callable[..., Path]) -> None:
    with pytest.raises(RivalsError, match="2 queries but 1 documents"):
        model.score(["a", "b"], ["c"])
    with pytest.raises(RivalsError, match="document in row 1 is int"):
        model.score(["a", "b"], ["c", 4])  # type: ignore[list-item]
    with pytest.raises(RivalsError, match="max_length 65"):
        model.score(["a"], ["b"], max_length=65)
    with pytest.raises(RivalsError, match="max_length 4"):
        model.score(["a"], ["b"], max_length=4)
    with pytest.raises(ModelError, match="has 3 outputs"):
        CrossEncoder.load(make_tiny("three", cross=True, labels=3))
    with pytest.raises(ModelError, match="max_length 4000"):
        CrossEncoder.load(make_tiny("two", cross=True), max_length=4000)


def test_scores_that_are_not_finite_are_told(model: CrossEncoder) -> None:
    with torch.no_grad():
        model.model.classifier.bias.fill_(float("inf"))
        model.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(RivalsError, match="not finite"):
        model.score(QUERIES, DOCUMENTS, progress=False)
