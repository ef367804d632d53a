"""The int8 copy of BERT: close to float32, the same whatever the threads, never used where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.models import Encoder
from rivals.models._int8 import Int8Bert, in_threads, int8_pays, supports_int8
from rivals.models._precision import Frozen, choose_dtype

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not int8_pays(), reason="this processor has no int8 dot products")
WORDS = ["liver", "disease", "causes", "fever", "and", "treatment", "of", "influenza", "in", "rare", "disorder"]
MIXED = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + (i * 7) % 60)) for i in range(60)]


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    return Encoder.load(tiny, device="cpu", dtype="float32")


@needs_int8
def test_minilm_vectors_stay_close(minilm: Encoder) -> None:
    exact = minilm.encode(MIXED, progress=False)
    fast = minilm.encode(MIXED, dtype="int8", progress=False)
    cosines = (exact * fast).sum(1)
    assert cosines.min() >= 0.993  # measured 0.9949 on these texts
    assert np.abs(exact - fast).max() > 0


@needs_int8
def test_threads_change_no_bit(minilm: Encoder) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = minilm.encode(MIXED, dtype="int8", max_tokens=256, progress=False)
        torch.set_num_threads(2)
        two = minilm.encode(MIXED, dtype="int8", max_tokens=256, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert one.tobytes() == two.tobytes()


@needs_int8
def test_padding_is_no_part_of_the_result(encoder: Encoder) -> None:
    bert = Int8Bert(encoder.backbone)
    tokens = encoder.tokenize(["the cat sat on a mat", "dog"])
    ids, mask = tokens.pad(np.array([0, 1]))
    both = bert(ids, mask).last_hidden_state
    alone = bert(*tokens.pad(np.array([1]))).last_hidden_state
    torch.testing.assert_close(both[1:, : alone.shape[1]], alone, rtol=0, atol=1e-5)
    assert not both[1, alone.shape[1] :].any()
    with torch.no_grad():
        exact = encoder.token_vectors(ids, mask)[mask.bool()]
    assert torch.nn.functional.cosine_similarity(exact, both[mask.bool()]).min() > 0.995
    nothing = bert(ids, torch.zeros_like(mask)).last_hidden_state
    assert not nothing.any()


@needs_int8
def test_the_copy_follows_the_weights(encoder: Encoder) -> None:
    frozen = Frozen()
    first = frozen.get(encoder.backbone, torch.int8)
    assert isinstance(first, Int8Bert)
    assert frozen.get(encoder.backbone, torch.int8) is first
    before = encoder.encode(MIXED[:3], dtype="int8", progress=False)
    with torch.no_grad():
        encoder.backbone.encoder.layer[0].output.dense.weight.mul_(3.0)
    assert frozen.get(encoder.backbone, torch.int8) is not first
    assert np.abs(encoder.encode(MIXED[:3], dtype="int8", progress=False) - before).max() > 1e-2


@needs_int8
@pytest.mark.parametrize("part", ["embeddings.LayerNorm.weight", "encoder.layer.0.output.dense.weight"])
def test_damaged_weights_are_told(encoder: Encoder, part: str) -> None:
    with torch.no_grad():
        encoder.backbone.get_parameter(part).fill_(float("nan"))
    for call in (encoder.encode, encoder.encode_tokens):
        with pytest.raises(RivalsError, match="not finite"):
            call(["cat", "dog"], dtype="int8", progress=False)


@needs_int8
def test_token_vectors_stay_close(encoder: Encoder) -> None:
    exact = encoder.encode_tokens(MIXED, storage="float32", progress=False)
    fast = encoder.encode_tokens(MIXED, storage="float32", dtype="int8", progress=False)
    assert np.array_equal(exact.offsets, fast.offsets)
    assert (exact.vectors * fast.vectors).sum(1).min() > 0.99


def test_int8_is_chosen_only_where_it_fits(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr("rivals.models._precision.int8_pays", lambda: True)
    assert supports_int8(encoder.backbone)
    assert choose_dtype("int8", CPU, encoder.backbone) == torch.int8
    assert choose_dtype("auto", CPU, encoder.backbone) == torch.float32
    assert choose_dtype("fast", CPU, encoder.backbone) == torch.int8
    assert choose_dtype("float32", CPU, encoder.backbone) == torch.float32
    other = torch.nn.Linear(3, 3)
    assert choose_dtype("fast", CPU, other) == torch.float32
    with pytest.raises(RivalsError, match="'int8' is for"):
        choose_dtype("int8", CPU, other)
    encoder.backbone.config.hidden_act = "relu"
    assert not supports_int8(encoder.backbone)
    encoder.backbone.config.hidden_act = "gelu"
    monkeypatch.setattr("rivals.models._precision.int8_pays", lambda: False)
    assert choose_dtype("fast", CPU, encoder.backbone) == torch.float32
    with pytest.raises(RivalsError, match="VNNI"):
        choose_dtype("int8", CPU, encoder.backbone)


@pytest.mark.parametrize("threads", [1, 2])
def test_work_in_threads_keeps_the_order_and_the_setting(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        seen = list(in_threads(lambda i: (i, torch.get_num_threads()), range(20)))
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            list(in_threads(lambda i: 1 // i, [1, 2, 0, 3]))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert [i for i, _ in seen] == list(range(20))
    assert {n for _, n in seen} == {1}


@needs_int8
@pytest.mark.parametrize("longest", [7, 8, 60])
def test_first_tokens_alone_are_those_of_all_tokens_and_nearer_to_float32(encoder: Encoder, longest: int) -> None:
    bert = Int8Bert(encoder.backbone)
    generator = torch.Generator().manual_seed(longest)
    ids = torch.randint(5, 60, (9, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (9,), generator=generator)
    lengths[0] = longest
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    kinds = (torch.arange(longest)[None] > 2).long() * mask
    with torch.no_grad():
        exact = encoder.backbone(input_ids=ids, attention_mask=mask, token_type_ids=kinds).last_hidden_state[:, 0]
    every, first = bert(ids, mask, kinds).last_hidden_state[:, 0], bert.first(ids, mask, kinds)
    assert torch.nn.functional.cosine_similarity(first, exact).min() > 0.998
    assert (first - exact).square().mean() < (every - exact).square().mean()
    mask[3] = 0
    again = bert.first(ids, mask, kinds)
    assert not again[3].any()
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    torch.testing.assert_close(again[others], first[others], rtol=0, atol=1e-5)
    assert not bert.first(ids, torch.zeros_like(mask)).any()
