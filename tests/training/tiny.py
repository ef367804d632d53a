"""Small things to train: a net over random pairs, and an encoder over words of the embedded sample."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.losses import in_batch_info_nce_loss


class Pairs:
    """In-batch InfoNCE of a net with dropout over noisy copies of random vectors; may break off at the n-th loss."""

    def __init__(self, *, count: int = 26, batch: int = 4, break_at: int = 0) -> None:
        generator = torch.Generator().manual_seed(3)
        self.left = torch.randn(count, 6, generator=generator)
        self.right = self.left + 0.3 * torch.randn(count, 6, generator=generator)
        self.batch, self.break_at, self.calls = batch, break_at, 0
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.model: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 5))

    def batches(self, epoch: int) -> list[Tensor]:
        order = torch.randperm(len(self.left), generator=torch.Generator().manual_seed(epoch))
        return [rows for rows in order.split(self.batch) if len(rows)]

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        if self.calls == self.break_at:
            raise KeyboardInterrupt
        noise = 0.1 * torch.randn(self.left[batch].shape, generator=generator)
        left, right = self.model(self.left[batch] + noise), self.model(self.right[batch])
        return in_batch_info_nce_loss(left, right, temperature=0.2)

    def evaluate(self) -> float:
        with torch.no_grad():
            return -float(in_batch_info_nce_loss(self.model(self.left), self.model(self.right), temperature=0.2))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_weights(one: Any, other: Any) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), f"{name} differs by {(one[name] - other[name]).abs().max()}"


def write_word_bert(folder: Path, texts: list[str], *, words: int = 2000, seed: int = 0, prompts: Any = None) -> Path:
    """Write a two-layer BERT of width 32 whose vocabulary is the commonest words of `texts`."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from rivals.models._transformer import quiet_transformers

    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word for word, _ in counts.most_common(words))]
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=64)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = BertModel(config)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small_sample(train: int, dev: int) -> tuple[Any, Any]:
    """The first train and dev questions of the embedded sample over their own answers and as many others."""
    from rivals.data import Collection, Dataset
    from rivals.data.sample import load_sample

    sample = load_sample()
    rows = np.concatenate([sample.splits["train"][:train], sample.splits["dev"][:dev]])
    part = sample.take(rows)
    known = part.judgements
    documents = np.unique(np.concatenate([known.document, np.arange(0, len(sample.documents), 7)]))
    kept = Collection.from_table(sample.documents.take(documents).table.select(["id", "text"]))
    triples = zip(
        part.queries.ids[known.query], sample.documents.ids[known.document], known.relevance.tolist(), strict=True
    )
    data = Dataset.from_pairs(part.queries, kept, triples)
    return data.take(np.arange(train)), data.take(np.arange(train, len(rows)))
