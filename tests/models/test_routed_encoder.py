"""Routed encoders: paper 3's checks on conversion, isolation of domains, gradients, folders and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.errors import ModelError, RivalsError
from rivals.losses import in_batch_info_nce_loss
from rivals.models.encoder import Encoder
from rivals.models.routed_encoder import RoutedEncoder
from rivals.training import CachedGradients, LoopConfig, SupervisedObjective, fit

TEXTS = ["the cat sat on a mat", "flu", "fever cause of flu", "red zebra"]
ROUTE = np.array([0, 2, 1, 2])


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    return Encoder.load(tiny, device="cpu", dtype="float32")


def distinct(encoder: Encoder, **options: Any) -> RoutedEncoder:
    model = RoutedEncoder(encoder, 3, **options)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("layers", ["all", [1]])
def test_right_after_conversion_nothing_changed(encoder: Encoder, layers: Any) -> None:
    tokens = encoder.tokenize(TEXTS)
    ids, mask = tokens.pad(np.arange(4))
    expected, vectors = encoder(ids, mask), encoder.encode(TEXTS, progress=False)
    model = RoutedEncoder(encoder, 3, layers=layers)
    for domain in range(3):
        assert torch.equal(model(ids, mask, torch.full((4,), domain)), expected)
    torch.testing.assert_close(model(ids, mask, torch.from_numpy(ROUTE)), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(model.encode(TEXTS, ROUTE), vectors, atol=1e-6)


def test_a_text_s_route_is_its_own_and_experts_without_text_learn_nothing(encoder: Encoder) -> None:
    model = distinct(encoder)
    ids, mask = encoder.tokenize(TEXTS).pad(np.arange(4))
    before = model(ids, mask, torch.tensor([0, 2, 2, 2]))
    after = model(ids, mask, torch.tensor([2, 2, 2, 2]))
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    torch.testing.assert_close(before[1:], after[1:], atol=1e-5, rtol=0)
    before.sum().backward()
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            assert (parameter.grad is None) == (".experts.1." in name)
    np.testing.assert_allclose(model.encode(TEXTS, np.array([0, 2, 2, 2])), before.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("tokens", [(), ("[bio]", "[law]", "[art]")])
def test_folders_come_back(encoder: Encoder, tmp_path: Path, tokens: tuple[str, ...]) -> None:
    model = distinct(encoder, layers=[0], domain_tokens=tokens)
    vectors = model.encode(TEXTS, ROUTE)
    model.save(tmp_path / "routed")
    np.testing.assert_array_equal(model.encode(TEXTS, ROUTE), vectors)  # saving leaves the model as it was
    back = RoutedEncoder.load(tmp_path / "routed", device="cpu", dtype="float32")
    np.testing.assert_allclose(back.encode(TEXTS, ROUTE), vectors, atol=1e-6)
    plain = Encoder.load(tmp_path / "routed" / "encoder", device="cpu", dtype="float32")
    if not tokens:
        np.testing.assert_allclose(plain.encode(TEXTS, progress=False), back.encode(TEXTS, ROUTE * 0), atol=1e-6)
    np.testing.assert_allclose(back.encode(TEXTS, ROUTE, dtype="bfloat16"), vectors, atol=0.1)
    (tmp_path / "routed" / "rivals_routed.json").write_text('{"experts": 4, "layers": [0], "domain_tokens": []}')
    with pytest.raises(ModelError, match="do not fit"):
        RoutedEncoder.load(tmp_path / "routed")


def test_domain_tokens_stand_in_the_place_of_cls_and_start_as_it(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS, progress=False)
    model = RoutedEncoder(encoder, 2, domain_tokens=["[bio]", "[law]"])
    route = np.array([0, 1, 0, 1])
    np.testing.assert_allclose(model.encode(TEXTS, route), expected, atol=1e-6)
    weight = encoder.backbone.get_input_embeddings().weight
    with torch.no_grad():
        weight[-1] = weight[7]
    changed = np.abs(model.encode(TEXTS, route) - expected).max(1) > 1e-3
    assert changed.tolist() == [False, True, False, True]
    ids, mask = encoder.tokenize(TEXTS).pad(np.arange(4))
    kept = ids.clone()
    model(ids, mask, torch.from_numpy(route)).sum().backward()
    assert torch.equal(ids, kept)
    assert encoder.tokenizer.cls_token_id not in torch.nonzero(weight.grad.abs().sum(1)).flatten().tolist()


def test_it_trains_in_one_piece_and_in_chunks(tiny: Path) -> None:
    found = []
    for executor in (None, CachedGradients()):
        model = RoutedEncoder(Encoder.load(tiny, device="cpu", dtype="float32"), 3, layers=[1])
        for module in model.modules():  # chunks draw other masks than the whole batch
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        ids, mask = model.encoder.tokenize(TEXTS * 4).pad(np.arange(16))
        labels = torch.arange(16) % 4
        route = torch.from_numpy(np.tile(ROUTE, 4))

        def loss(vectors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            return in_batch_info_nce_loss(vectors[:4], vectors[4:8], temperature=0.5)

        objective = SupervisedObjective(model, [ids, mask, route], [labels], loss, batch_size=8, chunk=3)
        result = fit(objective, LoopConfig(epochs=2, evaluations=0, precision="float32"), executor=executor)
        found.append([value for _, value in result.losses])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_mistakes_are_told(encoder: Encoder) -> None:
    for options, message in (
        ({"experts": 0}, "at least 1"),
        ({"experts": 2, "layers": [2]}, "layers 0..1"),
        ({"experts": 2, "domain_tokens": ["[a]"]}, "as many different domain tokens"),
    ):
        with pytest.raises(RivalsError, match=message):
            RoutedEncoder(encoder, **options)  # type: ignore[arg-type]
    model = RoutedEncoder(encoder, 2)
    ids, mask = encoder.tokenize(TEXTS).pad(np.arange(4))
    with pytest.raises(RivalsError, match=r"0\.\.1; found 0\.\.2"):
        model(ids, mask, torch.from_numpy(ROUTE))
    with pytest.raises(RivalsError, match="one entry per text"):
        model(ids, mask, torch.tensor([0]))
    with pytest.raises(TypeError, match="integers"):
        model(ids, mask, torch.zeros(4))
    with pytest.raises(RivalsError, match="one entry per text"):
        model.encode(TEXTS, np.array([0]))
    with pytest.raises(RivalsError, match="route is missing"):
        encoder(ids, mask)
    with pytest.raises(RivalsError, match="float32 or bfloat16"):
        model.encode(TEXTS, ROUTE * 0, dtype="int8")  # type: ignore[arg-type]
