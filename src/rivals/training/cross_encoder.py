"""Training a cross-encoder as second stage: list-wise, from the trained encoder's transformer, on the first stage's candidates."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.losses import softmax_loss
from rivals.models.cross_encoder import CrossEncoder
from rivals.models.encoder import Encoder
from rivals.models.rerank import CrossEncoderReranker
from rivals.training.loop import LoopConfig, fit
from rivals.training.scorers import PairScorer
from rivals.training.second_stage import dev_score

_WEIGHTS = tuple(round(0.1 * i, 1) for i in range(1, 11))
_LISTS = 8  # lists in a batch
_EVALUATIONS = 3  # in an epoch
_PATIENCE = 2
_RATE = 4e-5


@dataclass(frozen=True)
class PairLists:
    """Rows of one batch of lists: pairs `query[n]`, `document[n]`; list i is `offsets[i]:offsets[i + 1]`, its positive first."""

    query: NDArray[np.int64]
    document: NDArray[np.int64]
    offsets: NDArray[np.int64]


class CrossEncoderObjective:
    """The softmax loss of a cross-encoder over lists of one positive and sampled candidates.

    Formula: L = - log( exp s(q, p) / sum over the list of exp s(q, d) ), mean over the lists of a batch.

    Args:
        model: trained in place. train_run: the first stage's candidates of the training queries; those it marked, the known
            positives and texts equal to one of them are never drawn as negatives.
        dev_run: the first stage's candidates of the dev queries, mixed with the model's scores by `evaluate`.
        negatives: drawn anew for every list in every epoch, uniformly and without repeats; fewer where there are fewer.

    Source: the softmax loss over a list, Zhuang et al. (2022), RankT5 (paper 6), with localised negatives, Gao et al. (2021).
    Raises: RivalsError if no training query has both a positive and a candidate that may be a negative.
    """

    def __init__(
        self,
        model: CrossEncoder,
        train_run: Run,
        train: Dataset,
        dev_run: Run,
        dev: Dataset,
        *,
        depth: int,
        negatives: int,
        max_length: int,
        seed: int,
    ) -> None:
        self.model, self.train, self.dev_run, self.dev = model, train, dev_run, dev
        self.depth, self.negatives, self.max_length, self.seed = depth, negatives, max_length, seed
        self.options = {"depth": depth, "negatives": negatives, "max_length": max_length}
        self._known = train.judgements.positives
        text = np.unique(train.documents.text_hashes, return_inverse=True)[1]
        same = lists.find_pairs(
            self._known.offsets, text[self._known.document], train_run.query, text[train_run.document]
        )
        usable = train_run.keep & (same < 0)
        self._offsets = lists.keep_values(usable, train_run.offsets)
        self._candidate = train_run.document[usable]
        self._trainable = np.flatnonzero((np.diff(self._known.offsets) > 0) & (np.diff(self._offsets) > 0))
        if not len(self._trainable):
            raise RivalsError(
                "no training query has both a relevant document and a candidate that is not; a cross-encoder cannot "
                "learn from that"
            )
        self._head = dev_run.top(depth)
        self.scorer = PairScorer(model, train.queries, train.documents, max_length=max_length)
        self._chosen: tuple[float, float] | None = None
        self.batches = lru_cache(maxsize=2)(self._batches)

    def _batches(self, epoch: int) -> list[PairLists]:
        rng = np.random.default_rng([self.seed, 29, epoch])
        order = rng.permutation(self._trainable)
        return [self._draw(order[start : start + _LISTS], rng) for start in range(0, len(order), _LISTS)]

    def _draw(self, queries: NDArray[np.int64], rng: np.random.Generator) -> PairLists:
        drawn = []
        for row in queries:
            positives = self._known.document[self._known.offsets[row] : self._known.offsets[row + 1]]
            candidates = self._candidate[self._offsets[row] : self._offsets[row + 1]]
            count = min(self.negatives, len(candidates))
            drawn.append(np.append(rng.choice(positives), rng.choice(candidates, count, replace=False)))
        lengths = [len(documents) for documents in drawn]
        return PairLists(np.repeat(queries, lengths), np.concatenate(drawn), lists.offsets_from_lengths(lengths))

    def loss(self, batch: PairLists, generator: torch.Generator) -> Tensor:
        """Return the mean loss of a batch's lists."""
        scores = self.scorer.pairs(batch.query, batch.document)
        mask = torch.from_numpy(lists.pad_mask(batch.offsets)).to(scores.device)
        padded = scores.new_zeros(mask.shape).masked_scatter(mask, scores)
        relevance = torch.zeros_like(padded)
        relevance[:, 0] = 1
        return softmax_loss(padded, relevance, mask)

    def evaluate(self) -> float:
        """Return nDCG@10 on dev of the best mixture with the first stage."""
        self._chosen = self._choose()
        return self._chosen[0]

    def weight_for(self, score: float) -> float:
        """Return the mixing weight that gave `score` at an evaluation; after a resumed run it may have to be found again."""
        if self._chosen is None or self._chosen[0] != score:
            self._chosen = self._choose()
        return self._chosen[1]

    def _choose(self) -> tuple[float, float]:
        scored = _Scored(CrossEncoderReranker(self.model, 1.0, self.depth, self.max_length).logits(self._head))
        best = (-1.0, 0.0)
        for weight in _WEIGHTS:
            stage = CrossEncoderReranker(scored, weight, self.depth, self.max_length)  # type: ignore[arg-type]
            best = max(best, (dev_score(stage(self.dev_run), self.dev), weight))
        return best


@dataclass
class _Scored:
    """A model whose scores of one list of pairs are there already."""

    logits: NDArray[np.float32]

    def score(self, queries: Sequence[str], documents: Sequence[str], **options: Any) -> NDArray[np.float32]:
        return self.logits


def fit_cross_encoder(
    encoder: Encoder,
    train_run: Run,
    train: Dataset,
    dev_run: Run,
    dev: Dataset,
    *,
    epochs: int = 1,
    seed: int = 0,
    depth: int = 20,
    negatives: int = 7,
    max_length: int = 192,
    folder: Path | None = None,
) -> CrossEncoderReranker:
    """Train a cross-encoder on the first stage's candidates and mix it with the first stage as dev likes best.

    Args:
        encoder: the trained retriever; its transformer is where the cross-encoder starts, under a new head.
        train_run, dev_run: the first stage's candidates of the queries of `train` and `dev`.
        epochs: passes over the training queries, cut short when dev no longer improves.
        depth: candidates re-scored per query. negatives: per training list. max_length: tokens per pair (the model's, if less).
        folder: where checkpoints go; a run that was cut off there goes on. None keeps everything in memory.

    Source: Nogueira and Cho (2019); the list-wise softmax of paper 6.
    Raises: RivalsError for nothing to learn from, dev without judged queries, options out of range.
    """
    for name, value in (("depth", depth), ("negatives", negatives), ("epochs", epochs)):
        if value < 1:
            raise RivalsError(f"cross-encoder option {name}={value} must be at least 1")
    with tempfile.TemporaryDirectory() as place:
        start = encoder.save(Path(place) / "encoder")
        dtype = "auto" if encoder.dtype in ("int8", "fast") else encoder.dtype
        model = CrossEncoder.load(start, device=str(encoder.device), dtype=dtype, seed=seed)
    max_length = min(max_length, model.max_length)
    objective = CrossEncoderObjective(
        model, train_run, train, dev_run, dev, depth=depth, negatives=negatives, max_length=max_length, seed=seed
    )
    config = LoopConfig(
        epochs=epochs, learning_rate=_RATE, evaluations=_EVALUATIONS * epochs, patience=_PATIENCE, seed=seed
    )
    description = "Training the cross-encoder"
    result = fit(objective, config, folder=folder, resume=folder is not None, description=description)
    return CrossEncoderReranker(model, objective.weight_for(result.best_score), depth, max_length)


__all__ = ["CrossEncoderObjective", "PairLists", "fit_cross_encoder"]
