"""A loss of rivals inside the trainer of sentence-transformers: a module of ten lines hands it the embeddings.

    python examples/sentence_transformers_loss.py  # two steps; needs the extra "sentence-transformers" and datasets

The columns of the data set are the anchors, their positives and, if there is a third, one mined negative each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from rivals.losses import in_batch_info_nce_loss
from rivals.models import resolve_model


class InBatch(torch.nn.Module):
    """Every query against all documents of the batch, with hidden duplicates, margins or weights one option away."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch; the trainer tokenises the columns."""
        queries, *documents = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return in_batch_info_nce_loss(queries, torch.cat(documents), temperature=0.05, margin=0.1)


PAIRS = {
    "query": ["cause of flu", "how to treat fever", "red cat", "blue dog"],
    "document": ["the virus is a cause of flu", "treat fever", "the red cat sat on the mat", "a dog, blue"],
}


def main(model: str = "all-MiniLM-L6-v2", pairs: dict[str, list[str]] = PAIRS, steps: int = 2) -> list[Any]:
    """Train for a few steps and return the trainer's log."""
    encoder = SentenceTransformer(str(resolve_model(model)))
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to=[]
        )
        trainer = SentenceTransformerTrainer(encoder, arguments, Dataset.from_dict(pairs), loss=InBatch(encoder))
        trainer.train()
    return list(trainer.state.log_history)


if __name__ == "__main__":
    print(*main(), sep="\n")
