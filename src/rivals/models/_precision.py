"""Where to compute and in which precision, and hashes of weights."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import torch
from torch import nn

from rivals.errors import RivalsError
from rivals.models._int8 import Int8Bert, int8_pays, supports_int8

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def choose_device(device: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise RivalsError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:0") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RivalsError(f"device {device!r} was asked for but no GPU can be used here; use auto or cpu")
    return chosen


def bfloat16_pays(device: torch.device) -> bool:
    """Say whether bfloat16 is faster than float32 there.

    On CPUs only AMX tiles make it so (5 to 7 times); with AVX512-BF16 alone it measured half the speed of float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(device.type == "cpu" and probe is not None and probe())


def choose_dtype(dtype: str, device: torch.device, module: nn.Module | None = None) -> torch.dtype:
    """Return the dtype of a name.

    "auto" is bfloat16 where it pays, else float32; "fast" takes int8 before float32 where the machine multiplies it
    fast and the module is of the kind it is made for (cosine with float32 about 0.998).

    Raises: RivalsError for a name not known, or int8 for a module or device it is not made for.
    """
    if dtype not in (*_DTYPES, "auto", "fast"):
        raise RivalsError(f"dtype {dtype!r} is not known; use auto, fast, float32, bfloat16 or int8")
    if dtype in ("auto", "fast") and bfloat16_pays(device):
        return torch.bfloat16
    if dtype == "auto":
        return torch.float32
    int8_fits = device.type == "cpu" and module is not None and supports_int8(module) and int8_pays()
    if dtype == "fast":
        return torch.int8 if int8_fits else torch.float32
    if dtype == "int8" and not int8_fits:
        raise RivalsError(
            "dtype 'int8' is for BERT encoders with gelu on a CPU with VNNI, with numba installed; use auto or float32"
        )
    return _DTYPES[dtype]


def weights_version(module: nn.Module) -> tuple[int, int, bytes]:
    """A value that changes whenever weights are written or replaced.

    In-place writes count up torch's version counters, but fused optimisers and `.data` bypass them, so 32 values of
    every tensor, spread over it, are part of the value as well.
    """
    tensors = [t.detach() for t in (*module.parameters(), *module.buffers())]
    versions = sum(t._version for t in tensors if not t.is_inference())
    places = hash(tuple(t.data_ptr() for t in tensors))
    flat = (t.reshape(-1) for t in tensors if t.numel())
    probes = [t[:: max(t.numel() // 32, 1)].double() for t in flat]
    probe = torch.cat(probes).cpu().numpy().tobytes() if probes else b""
    return versions, places, hashlib.blake2b(probe, digest_size=16).digest()


def config_text(config: Any) -> str:
    """A transformers configuration as text, without what says nothing about its vectors (names, versions, dtype)."""
    idle: tuple[str, ...] = (
        "_name_or_path",
        "architectures",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "id2label",
    )
    idle += ("label2id", "sentence_transformers", "sbert_ce_default_activation_function", "gradient_checkpointing")
    kept = {name: value for name, value in config.to_dict().items() if name not in idle}
    return json.dumps(kept, sort_keys=True, default=str)


def weights_digest(module: nn.Module, about: str) -> str:
    """Hash parameters, buffers and `about`, in the order of their names."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Frozen:
    """A copy of a module in another dtype (`Int8Bert` for int8), for inference, made anew when weights change."""

    def __init__(self) -> None:
        self._copy: nn.Module | None = None
        self._key: Any = None

    def get(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return the module itself for float32, else the copy."""
        if dtype == torch.float32:
            return module
        key = (weights_version(module), dtype)
        if self._copy is None or self._key != key:
            self._copy = None
            self._copy = Int8Bert(module) if dtype == torch.int8 else copy.deepcopy(module).to(dtype)
            self._copy.eval().requires_grad_(False)
            self._key = key
        return self._copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return Frozen()
