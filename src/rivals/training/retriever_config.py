"""Options of training a retriever."""

from __future__ import annotations

from dataclasses import dataclass, field

from rivals.errors import RivalsError
from rivals.training.loop import LoopConfig


@dataclass(frozen=True)
class RetrieverConfig:
    """Options of retriever training.

    Args:
        batch_size: queries per batch over all processes; every other query's documents are its negatives.
        negatives: hard negatives that every query is sure to meet (0 = whatever the batch holds). Rivals in its batch count; mined
            documents fill up what is missing.
        group_size: queries that are each other's rivals (one's positive is among the other's mined negatives) and go into the
            same batch, where they are hard negatives at no cost; 1 = random batches.
        temperature: of the softmax over cosines.
        late_interaction: weight of the same loss over MaxSim of token vectors (0 = off). The token vectors come from the same
            forward pass, so it costs little, and it makes them fit for re-ranking.
        teacher_weight: weight of the divergence of the encoder's softmax over each query's own positive and drawn negatives from the
            teacher's (0 = off). The teacher is whoever scored the mined run: a cross-encoder in `source >> reranker`, or a judge.
        teacher_temperature: of the teacher's scores (the encoder's is `temperature`).
        dropout: probability of every dropout layer while training; None = the model's own. Off by default: one pass over mined
            negatives does not overfit, and on a CPU dropout costs as much time as the whole forward pass.
        max_query_tokens, max_document_tokens: texts are cut there while training (encoding afterwards uses the model's length).
        chunk_tokens: padded tokens per forward pass; a batch is split by length so that little is padding.
        loop: see `LoopConfig`.
    """

    batch_size: int = 32
    negatives: int = 1
    group_size: int = 8
    temperature: float = 0.05
    late_interaction: float = 1.0
    teacher_weight: float = 0.0
    teacher_temperature: float = 1.0
    dropout: float | None = 0.0
    max_query_tokens: int = 64
    max_document_tokens: int = 128
    chunk_tokens: int = 4096
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 2),
            ("negatives", 0),
            ("group_size", 1),
            ("max_query_tokens", 4),
            ("max_document_tokens", 4),
            ("chunk_tokens", 64),
        ):
            if getattr(self, name) < least:
                raise RivalsError(f"training option {name}={getattr(self, name)} is below {least}")
        if self.temperature <= 0 or self.late_interaction < 0:
            raise RivalsError("temperature must be above 0 and late_interaction at least 0")
        if self.teacher_weight < 0 or self.teacher_temperature <= 0:
            raise RivalsError("teacher_weight must be at least 0 and teacher_temperature above 0")
        if self.teacher_weight and (self.group_size > 1 or self.negatives < 1):
            raise RivalsError(
                "a teacher weighs each query's own list: with teacher_weight set negatives to 1 or more and group_size to 1"
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise RivalsError(f"dropout {self.dropout} must be in [0, 1), or None for the model's own")
