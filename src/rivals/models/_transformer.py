"""Weights, configuration and tokenizer of a transformers folder, with every fault told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rivals.errors import ModelError
from rivals.models.folder import first_line, read_json


def read_weights(path: Path) -> dict[str, Any]:
    """Read one safetensors file; ModelError names it when it is missing or damaged, or when only a pickle is there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        _explain_missing_weights(path.parent)
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the weights are damaged or cut short ({str(error).splitlines()[0]}); copy them again"
        ) from None


def _explain_missing_weights(folder: Path) -> None:
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder}: only pytorch_model.bin is here, a pickle, which can run code and is not read; convert it once "
            "with transformers: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )
    raise ModelError(f"{folder}: no model.safetensors here; the model folder is incomplete")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the loading bars and load reports of transformers inside the block; errors still raise."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_transformer(folder: Path, *, kind: str = "AutoModel") -> Any:
    """Load a transformers model in float32 from safetensors, `kind` being the name of the auto class.

    Raises: ModelError for missing, damaged or mis-shaped weights; only an unused pooler may be absent.
    """
    model, missing = load_transformer_with_report(folder, kind=kind)
    missing = [name for name in missing if "pooler." not in name]
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing ({', '.join(missing[:3])}, ...); restore the file"
        )
    return model


def load_transformer_with_report(folder: Path, *, kind: str, num_labels: int | None = None) -> tuple[Any, list[str]]:
    """Load a transformers model and return it with the names of the weights the folder lacks."""
    import torch
    import transformers

    config = load_config(folder)
    if num_labels is not None:
        config.num_labels = num_labels
    index = folder / "model.safetensors.index.json"
    shards = sorted(set(read_json(index).get("weight_map", {}).values())) if index.exists() else ["model.safetensors"]
    for shard in shards:
        check_weights(folder / shard)
    try:
        with (
            quiet_transformers(),
            torch.random.fork_rng(),
        ):  # what is missing is drawn, but not from the caller's stream
            model, report = getattr(transformers, kind).from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(f"{folder}: transformers cannot load this model: {first_line(error)}") from None
    wrong = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} weights have another shape than config.json says ({wrong[0]}); restore the files"
        )
    return model.eval(), sorted(report["missing_keys"])


def check_weights(path: Path) -> None:
    """Read the header of one safetensors file, so a damaged one is met with one clear line."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        _explain_missing_weights(path.parent)
    try:
        with safe_open(str(path), framework="pt") as weights:
            weights.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the weights are damaged or cut short ({str(error).splitlines()[0]}); copy them again"
        ) from None


def load_config(folder: Path) -> Any:
    """Read a transformers config.json."""
    import transformers

    read_json(folder / "config.json")
    try:
        with quiet_transformers():
            return transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"{folder / 'config.json'}: not a model configuration transformers knows: {reason}") from None


def load_tokenizer(folder: Path, *, lower_case: bool = False) -> Any:
    """Load the tokenizer that lies in a model folder."""
    import transformers

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            read_json(folder / name)
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {reason}") from None
    if lower_case and tokenizer.is_fast and '"type":"Lowercase"' not in tokenizer.backend_tokenizer.to_str():
        from tokenizers import normalizers

        old = tokenizer.backend_tokenizer.normalizer
        parts = [normalizers.Lowercase()] + ([] if old is None else [old])
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(parts)
    return tokenizer


def longest_input(folder: Path, config: Any, tokenizer: Any, stated: int | None) -> int:
    """Longest input in tokens: what the folder states, else the tokenizer's limit, within the model's positions."""
    limits = [stated if stated is not None else int(min(tokenizer.model_max_length, 1 << 30))]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        if config.model_type in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"):
            positions -= (config.pad_token_id or 0) + 1  # these count positions from the padding id on
        limits.append(positions)
    longest = min(limits)
    if longest >= 1 << 30:
        raise ModelError(f"{folder}: nothing says how many tokens the model reads; pass max_length")
    return longest


def save_transformer(folder: Path, model: Any, tokenizer: Any, *, also: dict[str, Any], max_length: int) -> None:
    """Write a transformers model and its tokenizer; `also` holds weights that the model in memory lacks."""
    with quiet_transformers():
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        model.save_pretrained(str(folder), state_dict=state | also)
        tokenizer.model_max_length = max_length
        tokenizer.save_pretrained(str(folder))


def make_readable(folder: Path) -> None:
    """Give the files of a folder the usual mode: safetensors writes its own for the owner alone."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
