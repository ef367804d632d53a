"""Sentences of the STS benchmark and a small encoder of bags of words, for the scripts on sentence embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.common.data import folder, generator
from papers.common.training import batches, fit


class Pairs(NamedTuple):
    """Pairs of sentences and how alike people find them, 0 to 5."""

    first: list[str]
    second: list[str]
    grades: Tensor


@functools.lru_cache(maxsize=1)
def sentence_pairs() -> dict[str, Pairs]:
    """Return the English pairs of the STS benchmark: train, validation and test."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder("stsb_multi") / "pairs.parquet", filters=[("lang", "=", "en")])
    rows = table.to_pylist()
    found = {}
    for split in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == split]
        grades = torch.tensor([row["score"] for row in chosen])
        found[split] = Pairs([row["sentence1"] for row in chosen], [row["sentence2"] for row in chosen], grades)
    return found


@functools.lru_cache(maxsize=1)
def _words() -> tuple[Callable[[list[str]], list[list[int]]], Tensor]:
    """Return MiniLM's tokenizer (without special tokens) and its frozen input vectors of tokens."""
    from rivals.models import Encoder

    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32")
    vectors = encoder.backbone.get_input_embeddings().weight.detach()

    def tokens(texts: list[str]) -> list[list[int]]:
        found = encoder.tokenize(texts)
        return [part[1:-1].tolist() or [100] for part in np.split(found.ids, found.offsets[1:-1])]

    return tokens, F.normalize(vectors)


def word_bags(texts: Sequence[str], longest: int = 48) -> Tensor:
    """Return token numbers int64[N, T] of texts, 0 where there is none."""
    found = [torch.tensor(ids[:longest]) for ids in _words()[0](list(texts))]
    return nn.utils.rnn.pad_sequence(found, batch_first=True)


class BagEncoder(nn.Module):
    """Frozen token vectors, weighted by learnt token weights and averaged, then a perceptron: ids [N, T] -> [N, out]."""

    def __init__(self, *, seed: int, out: int = 128, dropout: float = 0.15) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(_words()[1], freeze=True)
        self.weights = nn.Parameter(torch.zeros(len(_words()[1])))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Linear(384, 256), nn.ReLU(), nn.Linear(256, out))
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Return one vector a row."""
        weight = self.dropout((ids > 0) * self.weights[ids].exp())
        mean = F.embedding_bag(ids, self.words.weight, mode="sum", per_sample_weights=weight)
        out: Tensor = self.head(self.dropout(F.normalize(mean) * 384**0.5))
        return out


def spearman(encoder: nn.Module, first: Tensor, second: Tensor, grades: Tensor) -> float:
    """Return the rank correlation of cosines with grades."""
    from scipy.stats import spearmanr

    encoder.eval()
    with torch.no_grad():
        return float(spearmanr(F.cosine_similarity(encoder(first), encoder(second)), grades).statistic)


class SentenceTask(NamedTuple):
    """Unlabelled training sentences and their token numbers; graded pairs of token numbers to choose and to test on."""

    texts: list[str]
    train: Tensor
    validation: tuple[Tensor, Tensor, Tensor]
    test: tuple[Tensor, Tensor, Tensor]


@functools.lru_cache(maxsize=1)
def sentence_task(count: int = 1500) -> SentenceTask:
    """Take both sentences of the first training pairs as unlabelled texts: near-duplicates meet in batches."""
    pairs = sentence_pairs()
    texts = pairs["train"].first[:count] + pairs["train"].second[:count]
    graded = {name: (word_bags(p.first), word_bags(p.second), p.grades) for name, p in pairs.items() if name != "train"}
    return SentenceTask(texts, word_bags(texts), graded["validation"], graded["test"])


def unsupervised_encoder(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], task: SentenceTask, *, seed: int, steps: int, rate: float
) -> tuple[float, BagEncoder]:
    """Train on `loss(view, other view, rows)`, two dropout views of 128 sentences; return (validation, encoder)."""
    encoder = BagEncoder(seed=seed)
    rows = batches(len(task.train), 128, seed=seed)
    fit(
        encoder,
        lambda r: loss(encoder(task.train[r]), encoder(task.train[r]), r),
        rows,
        steps=steps,
        learning_rate=rate,
        seed=seed,
    )
    return spearman(encoder, *task.validation), encoder


def draws(seed: int) -> torch.Generator:
    """Return a generator for a loss's own draws, apart from that of batches and weights."""
    return generator(seed + 1000)
