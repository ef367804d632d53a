"""Tiny random models, made on the fly: no download, the same weights every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "fever", "cause", "of", "treat", "flu", "query", "passage", ":"]
WORDS += ["virus", "red", "blue", ",", ".", "!", "zebra"]


def write_tiny_bert(folder: Path, *, seed: int = 0, cross: bool = False, labels: int = 1, positions: int = 64) -> Path:
    """Write a two-layer BERT of width 32 with a word-piece tokenizer of a few words as a plain transformers folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(97, 123)] + [f"##{chr(c)}" for c in range(97, 123)]
    vocabulary = {word: number for number, word in enumerate([*specials, *dict.fromkeys([*WORDS, *letters])])}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=positions)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        num_labels=labels,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = BertForSequenceClassification(config) if cross else BertModel(config)
    from rivals.models._transformer import quiet_transformers

    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_modules(folder: Path, kinds: list[tuple[str, str, dict[str, Any] | None]], **extra: Any) -> None:
    """Write modules.json with (type, path, config) rows, and config_sentence_transformers.json from `extra`."""
    listing = []
    for index, (kind, path, config) in enumerate(kinds):
        listing.append({"idx": index, "name": str(index), "path": path, "type": kind})
        if config is not None:
            (folder / path).mkdir(exist_ok=True)
            (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(listing))
    if extra:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(extra))


TEXTS = ["the cat sat on a mat.", "", "flu", "fever cause of flu, treat red zebra!", "dog " * 40, "query: virus"]
