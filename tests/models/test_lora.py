"""Adapters: nothing changes at first, only they learn, small files that come back, merging, exact resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rivals.errors import ModelError, RivalsError
from rivals.models._int8 import supports_int8
from rivals.models.encoder import Encoder
from rivals.models.lora import add_lora, load_lora, merge_lora, save_lora
from rivals.training import CachedGradients, LoopConfig, RetrieverConfig, RetrieverObjective, fit
from tests.training.test_retriever import toy
from tests.training.tiny import assert_same_weights, weights

TEXTS = ["the cat sat on a mat", "flu", "fever cause of flu"]


def load(folder: Path, **options: Any) -> Encoder:
    encoder = Encoder.load(folder, device="cpu", dtype="float32")
    if options:
        add_lora(encoder, **options)
    return encoder


def stirred(encoder: Encoder) -> Encoder:
    """With adapters that change the vectors."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for name, parameter in encoder.named_parameters():
            if ".lora_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder


def test_adapters_change_nothing_at_first_and_alone_learn(tiny: Path) -> None:
    plain = load(tiny)
    expected = plain.encode(TEXTS, progress=False)
    names = add_lora(plain, rank=2, targets=["query", "value"])
    assert len(names) == 2 * 2 * 2
    np.testing.assert_array_equal(plain.encode(TEXTS, progress=False), expected)
    assert [n for n, p in plain.named_parameters() if p.requires_grad] == names
    assert not supports_int8(plain.backbone)  # its kernels would pass the adapters over
    assert [n for n, _ in load(tiny, rank=2, seed=3).named_parameters()] != []
    with pytest.raises(RivalsError, match="merge them before"):
        add_lora(plain)


@pytest.mark.parametrize("executor", [None, CachedGradients()])
def test_training_moves_adapters_only_and_resumes_exactly(tiny: Path, tmp_path: Path, executor: Any) -> None:
    data, _ = toy()
    loop = LoopConfig(epochs=4, learning_rate=0.02, evaluations=2, checkpoint_seconds=0, precision="float32")
    config = RetrieverConfig(batch_size=3, negatives=0, group_size=1, dropout=0.1, chunk_tokens=64, loop=loop)

    class Killed(RetrieverObjective):
        calls = 0

        def joined(self, *given: Any) -> torch.Tensor:
            self.calls += 1
            if self.calls == 6:
                raise KeyboardInterrupt
            return super().joined(*given)

    def made(kind: type[RetrieverObjective] = RetrieverObjective) -> RetrieverObjective:
        return kind(load(tiny, rank=2, dropout=0.1, targets="all-linear"), data, config, dev=data)

    whole = made()
    before = weights(whole.model)
    result = fit(whole, loop, executor=executor)
    assert result.losses[-1][1] < result.losses[0][1]
    for name, value in weights(whole.model).items():
        assert torch.equal(value, before[name]) != (".lora_" in name), name
    with pytest.raises(KeyboardInterrupt):
        fit(made(Killed), loop, executor=executor, folder=tmp_path / "run")
    held = load_file(next((tmp_path / "run").glob("step-*")) / "weights.safetensors")
    assert held
    assert all(".lora_" in name for name in held)
    assert all(".lora_" in name for name in load_file(tmp_path / "run" / "best.safetensors"))
    resumed = made()
    fit(resumed, loop, executor=executor, folder=tmp_path / "run", resume=True)
    assert_same_weights(weights(whole.model), weights(resumed.model))


def test_adapters_are_saved_alone_and_come_back(tiny: Path, tmp_path: Path) -> None:
    encoder = stirred(load(tiny, rank=2, targets=["query", "value"]))
    expected = encoder.encode(TEXTS, progress=False)
    save_lora(encoder, tmp_path / "adapters")
    assert (tmp_path / "adapters" / "adapter_model.safetensors").stat().st_size < 10_000
    back = load(tiny)
    assert np.abs(back.encode(TEXTS, progress=False) - expected).max() > 1e-3
    load_lora(back, tmp_path / "adapters")
    np.testing.assert_allclose(back.encode(TEXTS, progress=False), expected, atol=1e-6)
    config = tmp_path / "adapters" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 2', '"r": 3'))
    with pytest.raises(ModelError, match="do not fit"):
        load_lora(load(tiny), tmp_path / "adapters")
    with pytest.raises(ModelError, match="this file is missing"):
        load_lora(load(tiny), tmp_path)


def test_peft_reads_our_adapters(tiny: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    encoder = stirred(load(tiny, rank=2, targets=["query", "value"]))
    save_lora(encoder, tmp_path / "adapters")
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny), str(tmp_path / "adapters")).eval()
    ids, mask = encoder.tokenize(TEXTS).pad(np.arange(3))
    with torch.no_grad():
        found = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(encoder.token_vectors(ids, mask), found, atol=1e-5, rtol=1e-4)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    back = load(tiny)
    load_lora(back, tmp_path / "theirs")
    np.testing.assert_allclose(back.encode(TEXTS, progress=False), encoder.encode(TEXTS, progress=False), atol=1e-6)


def test_merged_adapters_leave_a_plain_encoder(tiny: Path, tmp_path: Path) -> None:
    encoder = stirred(load(tiny, rank=2))
    expected = encoder.encode(TEXTS, progress=False)
    merge_lora(encoder)
    np.testing.assert_allclose(encoder.encode(TEXTS, progress=False), expected, atol=1e-5)
    assert not any(".lora_" in name for name in encoder.state_dict())
    assert all(p.requires_grad for p in encoder.parameters())
    encoder.save(tmp_path / "merged")
    back = Encoder.load(tmp_path / "merged", device="cpu", dtype="float32")
    np.testing.assert_allclose(back.encode(TEXTS, progress=False), expected, atol=1e-5)
    with pytest.raises(RivalsError, match="no adapters"):
        merge_lora(encoder)
    add_lora(encoder, rank=2)  # and again


def test_mistakes_are_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(tiny)
    with pytest.raises(RivalsError, match="rank must be"):
        add_lora(encoder, rank=0)
    with pytest.raises(RivalsError, match="found no layer"):
        add_lora(encoder, targets=["nothing"])
    with pytest.raises(RivalsError, match="no adapters"):
        save_lora(encoder, "nowhere")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RivalsError, match=r"pip install 'rivals\[lora\]'"):
        add_lora(load(tiny))
