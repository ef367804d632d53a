"""Scorers: what turns query rows and lists of document rows into a differentiable matrix of scores, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.models._precision import bfloat16_pays
from rivals.models.batching import token_batches
from rivals.models.cross_encoder import CrossEncoder

Precision = Literal["auto", "bfloat16", "float32"]
Rows = NDArray[np.int64]


@runtime_checkable
class Scorer(Protocol):
    """Scores documents for queries of the collections it was made for."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters learn."""
        ...

    def __call__(self, query: Rows, document: Rows, mask: NDArray[np.bool_]) -> Tensor:
        """Return float[Q, W] for query rows [Q] and document rows [Q, W], or [W] where all share them; 0 where mask is False."""
        ...


class PairScorer:
    """Scores of a cross-encoder, which reads query and document together; only the cells that are there are computed.

    Args:
        max_length: tokens of a pair. chunk_tokens: padded tokens a pass. precision: "auto" is bfloat16 where it pays.

    >>> from rivals.models import CrossEncoder
    >>> model = CrossEncoder.load("all-MiniLM-L6-v2", device="cpu", seed=0)
    >>> scorer = PairScorer(model, Collection(["q"], ["a cat"]), Collection(["d"], ["cats purr"]))
    >>> scorer(np.array([0]), np.array([[0]]), np.ones((1, 1), bool)).shape
    torch.Size([1, 1])
    """

    def __init__(
        self,
        model: CrossEncoder,
        queries: Collection,
        documents: Collection,
        *,
        max_length: int = 192,
        chunk_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.max_length, self.chunk_tokens = model, min(max_length, model.max_length), chunk_tokens
        self._queries, self._documents = queries.full_texts, documents.full_texts
        self._autocast = autocast(model.device, precision)

    def __call__(self, query: Rows, document: Rows, mask: NDArray[np.bool_]) -> Tensor:
        """See `Scorer`."""
        asked, column = np.nonzero(mask)
        there = torch.from_numpy(mask).to(self.model.device)
        scores = self.pairs(query[asked], document[column] if document.ndim == 1 else document[mask])
        return scores.new_zeros(mask.shape).masked_scatter(there, scores)

    def pairs(self, query: Rows, document: Rows) -> Tensor:
        """Return the score of every pair of rows, float[n]."""
        texts = [self._queries[i] for i in query], [self._documents[i] for i in document]
        pairs = self.model.tokenize_pairs(*texts, self.max_length)
        chunks = token_batches(pairs.lengths, self.chunk_tokens)
        if not chunks:
            return sum((p.sum() for p in self.model.parameters()), torch.zeros(())).expand(0)
        parts = []
        for rows in chunks:
            padded = pairs.pad(rows, pad_id=self.model.fast_tokenizer.pad_id, device=self.model.device)
            with self._autocast:
                parts.append(self.model(*padded))
        back = np.argsort(np.concatenate(chunks))
        return torch.cat(parts)[torch.from_numpy(back).to(self.model.device)]


class FeatureScorer:
    """Scores of a ranker over features of query and document, by itself or in the context of the list.

    Args:
        model: has `score(features[Q, W, F], mask[Q, W]) -> [Q, W]`, as `ContextRanker`, or maps [Q, W, F] to [Q, W, 1].
        features: (query rows [Q], document rows [Q, W]) -> float[Q, W, F], an array or a tensor.

    >>> scorer = FeatureScorer(nn.Linear(1, 1), lambda query, document: document[..., None].astype(np.float32))
    >>> scorer(np.array([0]), np.array([4, 5]), np.array([[True, False]])).shape
    torch.Size([1, 2])
    """

    def __init__(self, model: nn.Module, features: Callable[[Rows, Rows], Any]) -> None:
        self.model, self.features = model, features

    def __call__(self, query: Rows, document: Rows, mask: NDArray[np.bool_]) -> Tensor:
        """See `Scorer`."""
        like = next(self.model.parameters())
        there = torch.from_numpy(mask).to(like.device)
        features = torch.as_tensor(self.features(query, np.broadcast_to(document, mask.shape))).to(like)
        score = getattr(self.model, "score", None)
        scores = self.model(features).squeeze(-1) if score is None else score(features, there)
        if scores.shape != mask.shape:
            raise RivalsError(f"the ranker gave scores of shape {tuple(scores.shape)} for lists {mask.shape}")
        return scores.masked_fill(~there, 0.0)


def pair_scores(scorer: Scorer, query: Rows, document: Rows, *, block: int = 256) -> NDArray[np.float32]:
    """Return the present model's score of every pair of rows, float32[m], without gradient and dropout.

    All documents of a query are scored as one list, `block` queries at a time.

    >>> scorer = FeatureScorer(layer := nn.Linear(1, 1, bias=False), lambda query, document: (10 * query[:, None] + document)[..., None])
    >>> _ = layer.weight.data.fill_(1)
    >>> pair_scores(scorer, np.array([2, 0, 2]), np.array([0, 5, 7])).tolist()
    [20.0, 5.0, 27.0]
    """
    order = np.argsort(query, kind="stable")
    asked, counts = np.unique(query, return_counts=True)
    offsets = lists.offsets_from_lengths(counts)
    found = np.empty(len(query), np.float32)
    with inference(scorer.model):
        for start in range(0, len(asked), block):
            part = offsets[start : start + block + 1]
            rows = order[part[0] : part[-1]]
            mask = lists.pad_mask(part - part[0])
            padded = lists.pad(document[rows], part - part[0], fill=0)
            found[rows] = scorer(asked[start : start + block], padded, mask).float().cpu().numpy()[mask]
    return found


def rescore(scorer: Scorer, run: Run, name: str = "model") -> Run:
    """Return the run under the scorer's present scores, sorted anew; its rows must be those of the scorer's collections."""
    positive = None
    if len(run.positive):
        positive = pair_scores(scorer, lists.segment_ids(run.positive_offsets), run.positive)
    return run.rescored(pair_scores(scorer, run.query, run.document), scorer=name, positive_score=positive)


@contextmanager
def inference(*models: nn.Module) -> Iterator[None]:
    """Compute without gradient and dropout while the block runs.

    >>> layer = nn.Linear(1, 1).train()
    >>> with inference(layer):
    ...     layer.training, torch.is_grad_enabled()
    (False, False)
    """
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return what runs a forward pass in bfloat16 if wanted ("auto": where it pays)."""
    if precision not in ("auto", "bfloat16", "float32"):
        raise RivalsError(f"precision is {precision!r}; use 'auto', 'bfloat16' or 'float32'")
    wanted = precision == "bfloat16" or (precision == "auto" and bfloat16_pays(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


__all__ = [
    "FeatureScorer",
    "PairScorer",
    "Scorer",
    "autocast",
    "inference",
    "pair_scores",
    "rescore",
]
