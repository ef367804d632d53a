"""Batches larger than memory inside the trainer of sentence-transformers: any loss of rivals over cached gradients.

    python examples/sentence_transformers_cached.py  # two steps; needs the extra "sentence-transformers" and datasets

The trainer calls `backward` on what the module returns; only then are the texts encoded again, chunk by chunk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor

from rivals.losses import in_batch_info_nce_loss
from rivals.models import resolve_model
from rivals.training import cached_loss
from rivals.training.executor import split_rows


class Cached(torch.nn.Module):
    """A loss of (queries, documents) over a batch of any size, in the memory of `chunk` texts."""

    def __init__(self, model: SentenceTransformer, loss: Callable[[Tensor, Tensor], Tensor], chunk: int = 32) -> None:
        super().__init__()
        self.model, self.loss, self.chunk = model, loss, chunk

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the loss of one batch; the trainer tokenises the columns: anchors, positives, and one negative each if any."""
        columns = [{k: v for k, v in c.items() if isinstance(v, Tensor)} for c in sentence_features]
        pieces = [split_rows(column, self.chunk) for column in columns]
        parts = [lambda p=p: (self.model(dict(p))["sentence_embedding"],) for column in pieces for p in column]

        def whole(vectors: list[tuple[Tensor, ...]]) -> Tensor:
            rows = torch.cat([chunk for (chunk,) in vectors]).split([len(next(iter(c.values()))) for c in columns])
            return self.loss(rows[0], torch.cat(rows[1:]))

        return cached_loss(parts, whole)


PAIRS = {
    "query": ["cause of flu", "how to treat fever", "red cat", "blue dog"],
    "document": ["the virus is a cause of flu", "treat fever", "the red cat sat on the mat", "a dog, blue"],
}


def main(model: str = "all-MiniLM-L6-v2", pairs: dict[str, list[str]] = PAIRS, steps: int = 2) -> list[Any]:
    """Train for a few steps and return the trainer's log."""
    encoder = SentenceTransformer(str(resolve_model(model)))
    loss = Cached(
        encoder, lambda queries, documents: in_batch_info_nce_loss(queries, documents, temperature=0.05), chunk=2
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to=[]
        )
        trainer = SentenceTransformerTrainer(encoder, arguments, Dataset.from_dict(pairs), loss=loss)
        trainer.train()
    return list(trainer.state.log_history)


if __name__ == "__main__":
    print(*main(), sep="\n")
