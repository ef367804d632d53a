"""Low-rank adapters: an encoder learns through a few small matrices, which are kept, merged or passed on by themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models._transformer import read_weights
from rivals.models.encoder import Encoder
from rivals.models.folder import first_line, read_json

_CONFIG, _WEIGHTS, _PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."


def add_lora(
    encoder: Encoder,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] | str | None = None,
    seed: int = 0,
) -> list[str]:
    """Put low-rank adapters beside an encoder's linear layers and freeze all else; return the names of what learns.

    Formula: W x + (alpha / rank) B A x, A [rank, in] drawn, B [out, rank] zero, so the vectors stay as they are at first.

    Args:
        rank: of the adapters. alpha: their scale times rank. dropout: before them. seed: of A.
        targets: names of linear layers such as "query" and "value", or "all-linear"; None = those peft has for this architecture.

    Train the encoder as ever: through `fit`, any objective and executor. Checkpoints then hold the adapters alone. Needs peft
    (`pip install 'rivals[lora]'`).

    Source: Hu et al. (2022), LoRA; beside the gradient cache of paper 52.

    Raises:
        RivalsError: peft missing, an encoder that has adapters already, rank below 1, dropout outside [0, 1), targets not found.

    >>> encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")
    >>> len(add_lora(encoder, rank=4))
    24
    """
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise RivalsError(
            f"rank must be 1 or more, alpha above 0 and dropout in [0, 1); got {rank}, {alpha}, {dropout}"
        )
    peft = _peft()
    wanted = list(targets) if targets is not None and not isinstance(targets, str) else targets
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=wanted, bias="none")
    return _inject(encoder, config, seed)


def merge_lora(encoder: Encoder) -> None:
    """Add the adapters to the weights they stand beside and remove them: a plain encoder again, as fast as before.

    Raises:
        RivalsError: there are none.
    """
    for parent, name, layer in _adapted(encoder):
        layer.merge(safe_merge=True)
        setattr(parent, name, layer.get_base_layer())
    for parameter in encoder.parameters():
        parameter.requires_grad_(True)
        parameter.__dict__.pop("constant", None)
    encoder.backbone.__dict__.pop("peft_config", None)
    encoder.invalidate_fingerprint()


def save_lora(encoder: Encoder, folder: str | os.PathLike[str]) -> Path:
    """Write the adapters alone, in peft's format, whole or not at all.

    Raises:
        RivalsError: there are none.
    """
    from safetensors.torch import save_file

    _adapted(encoder)
    name = next(iter(encoder.backbone.peft_config))
    weights = {
        _PREFIX + key.replace(f".{name}.", "."): value.detach().cpu().clone().contiguous()
        for key, value in encoder.backbone.state_dict().items()
        if ".lora_" in key
    }
    with atomic_folder(Path(folder)) as out:
        save_file(weights, out / _WEIGHTS, metadata={"format": "pt"})
        config = encoder.backbone.peft_config[name].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        (out / _CONFIG).write_text(json.dumps(plain, indent=2, default=str), encoding="utf-8")
    return Path(folder)


def load_lora(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Put the adapters of a folder, ours or peft's, on an encoder without any.

    Raises:
        ModelError: files missing or damaged, or adapters of another architecture.
    """
    path = Path(folder)
    stated, weights = read_json(path / _CONFIG), read_weights(path / _WEIGHTS)
    peft = _peft()
    try:
        known = {
            key: stated[key] for key in ("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora")
        }
        config = peft.LoraConfig(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path / _CONFIG}: not the configuration of LoRA adapters ({first_line(error)})") from None
    _inject(encoder, config, 0)
    own = {name: value for name, value in encoder.backbone.named_parameters() if ".lora_" in name}
    given = {_named(key): value for key, value in weights.items()}
    wrong = own.keys() ^ given.keys() or {key for key in own if own[key].shape != given[key].shape}
    if wrong:
        raise ModelError(
            f"{path}: the adapters do not fit this encoder ({min(wrong)}); load them on the one they were made for"
        )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(given[key])


def _named(key: str) -> str:
    """A name in peft's files as a name in the model."""
    start, _, last = key.removeprefix(_PREFIX).rpartition(".")
    return f"{start}.default.{last}"


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise RivalsError(f"adapters need peft ({first_line(error)}); pip install 'rivals[lora]'") from None
    return peft


def _inject(encoder: Encoder, config: Any, seed: int) -> list[str]:
    if hasattr(encoder.backbone, "peft_config"):
        raise RivalsError("this encoder has adapters; merge them before others are added")
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _peft().inject_adapter_in_model(config, encoder.backbone)
    except ValueError as error:
        raise RivalsError(
            f"the adapters found no layer to stand beside ({first_line(error)}); name some in targets"
        ) from None
    learning = []
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if ".lora_" in name:
            learning.append(name)
        else:
            parameter.constant = True  # type: ignore[attr-defined]  # checkpoints leave it out
    encoder.invalidate_fingerprint()
    return learning


def _adapted(encoder: Encoder) -> list[tuple[nn.Module, str, Any]]:
    """Return (parent, name, layer) of every layer with an adapter."""

    def walk(parent: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
        for name, child in parent.named_children():
            if hasattr(child, "lora_A"):
                yield parent, name, child
            else:
                yield from walk(child)

    found = list(walk(encoder.backbone))
    if not found:
        raise RivalsError("this encoder has no adapters; add them with add_lora")
    return found


__all__ = ["add_lora", "load_lora", "merge_lora", "save_lora"]
