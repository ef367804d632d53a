"""Devices and precisions are chosen by what the machine has."""

from __future__ import annotations

import pytest
import torch

from rivals.errors import RivalsError
from rivals.models._precision import Frozen, bfloat16_pays, choose_device, choose_dtype, weights_version

CPU = torch.device("cpu")


@pytest.mark.parametrize(("tiles", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_tiles_of_the_cpu(tiles: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    assert choose_dtype("auto", CPU) == dtype
    assert choose_dtype("fast", CPU) == dtype
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


def test_a_torch_without_the_probe_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert not bfloat16_pays(CPU)


def test_names_are_checked() -> None:
    with pytest.raises(RivalsError, match="dtype 'half'"):
        choose_dtype("half", CPU)
    with pytest.raises(RivalsError, match="device 'gpu'"):
        choose_device("gpu")
    assert choose_device("cpu") == CPU


def test_the_frozen_copy_is_made_once_until_weights_change() -> None:
    layer, frozen = torch.nn.Linear(3, 3), Frozen()
    assert frozen.get(layer, torch.float32) is layer
    first = frozen.get(layer, torch.bfloat16)
    assert frozen.get(layer, torch.bfloat16) is first
    assert next(first.parameters()).dtype == torch.bfloat16
    before = weights_version(layer)
    with torch.no_grad():
        layer.weight.add_(1.0)
    assert weights_version(layer) != before
    assert frozen.get(layer, torch.bfloat16) is not first
    assert layer.weight.dtype == torch.float32
    assert layer.weight.requires_grad
