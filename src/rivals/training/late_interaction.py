"""Training late-interaction models: contrastive over MaxSim, and distilling what passages and their sentences are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
from rivals.losses import multi_granular_distillation_loss
from rivals.models._precision import bfloat16_pays
from rivals.models.batching import Tokens, token_batches
from rivals.models.encoder import Role
from rivals.models.late_interaction import max_sim, unit_max_sim
from rivals.models.late_interaction_model import LateInteraction
from rivals.models.scored_tokens import ScoredTokens, Span, unit_of_tokens
from rivals.training.distributed import World, gather
from rivals.training.executor import Executor, Vectors
from rivals.training.held_out import HeldOut, held_out_score
from rivals.training.loop import TrainingResult
from rivals.training.negatives import Negatives
from rivals.training.regime import Regime
from rivals.training.retriever import PairBatch, RetrieverObjective, train_on_pairs
from rivals.training.retriever_config import RetrieverConfig


class LateInteractionObjective(RetrieverObjective):
    """InfoNCE over MaxSim scores, with in-batch and mined negatives, and a teacher if wanted.

    Batches, masks, negatives and teacher are those of `RetrieverObjective`; `config.late_interaction` has no meaning here, as MaxSim
    is the only score. The temperature divides MaxSim as the model scores it: of a model that sums over query tokens it should be
    some thirty times that of one that takes the mean.

    Source: Khattab and Zaharia (2020), ColBERT; the teacher as in ColBERTv2, Santhanam et al. (2022).
    """

    def __init__(
        self,
        model: LateInteraction,
        dataset: Dataset,
        config: RetrieverConfig,
        *,
        negatives: Negatives | None = None,
        dev: Dataset | None = None,
        dev_pool: NDArray[np.int64] | None = None,
        world: World = World(),  # noqa: B008 - frozen
    ) -> None:
        self.late = model
        super().__init__(model.encoder, dataset, config, negatives=negatives, dev=dev, dev_pool=dev_pool, world=world)
        self.model = model  # type: ignore[assignment]

    def _tokens(self, texts: list[str], role: Role, longest: int) -> Tokens:
        return self.late.tokenize(texts, role, longest=longest)

    def _encode(self, tokens: Tokens, rows: NDArray[np.int64], width: int) -> Vectors:
        assert isinstance(tokens, ScoredTokens)
        return encode_tokens(self.late, tokens, rows, width, self._autocast)

    def _nothing(self, width: int) -> Vectors:
        zero = 0.0 * next(self.late.parameters()).sum()
        return zero.expand(0, width, self.late.dimension), torch.zeros(
            (0, width), dtype=torch.bool, device=self.late.device
        )

    def joined(self, batch: PairBatch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return this process's part of the loss from what `parts` gave."""
        mine = batch.share(self.world)
        asked, order = self._chunks(self._queries, mine.query, self.config.max_query_tokens)
        queries, query_mask = put_back(vectors[: len(asked)], order)
        order = self._chunks(self._documents, mine.columns, self.config.max_document_tokens)[1]
        documents, document_mask = put_back(vectors[len(asked) :], order)
        everyone, there = gather(documents, self.world), gather(document_mask, self.world)
        mask, own = self._competing(mine, documents.device)
        how = self.late.reduction
        loss = self._contrast(max_sim(queries, everyone, query_mask, there, reduction=how), mask, own)
        if mine.teacher.shape[1]:
            column, there = self._own_list(mine, documents.device)
            scores = max_sim(queries, documents[column], query_mask, document_mask[column], reduction=how)
            loss = loss + self.config.teacher_weight * self._teach(mine, scores, there)
        return loss / len(batch.query)

    def _similarities(self, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
        return self.late.score(queries, documents)


def encode_tokens(
    model: LateInteraction, tokens: ScoredTokens, rows: NDArray[np.int64], width: int, autocast: Any
) -> Vectors:
    """Return unit token vectors [b, width, D] of the texts of `rows`, and which of them count in MaxSim, bool[b, width]."""
    ids, attention = tokens.pad(rows, pad_id=model.encoder.fast_tokenizer.pad_id, device=model.device)
    with autocast:
        hidden = model.encoder.token_vectors(ids, attention)
    unit = model.finish(hidden)
    mask = torch.from_numpy(tokens.scored_mask(rows, width)).to(unit.device)
    return torch.nn.functional.pad(unit, (0, 0, 0, width - unit.shape[1])), mask


def put_back(vectors: Sequence[Vectors], order: NDArray[np.int64]) -> Vectors:
    """Join the tensors of all chunks and put their rows, which are in `order`, back into the batch's order."""
    back = torch.from_numpy(np.argsort(order)).to(vectors[0][0].device)
    return tuple(torch.cat(column)[back] for column in zip(*vectors, strict=True))


@dataclass(frozen=True)
class GranularConfig:
    """Options of distilling at two granularities.

    Args:
        batch_size: queries per batch. candidates: passages per query: the one the teacher likes best and others drawn anew each epoch.
        unit_weight: of the sentences' part of the loss (the paper adds them unweighted).
        temperature: of the model's scores; 1 suits a model that sums over query tokens, about 1/30 one that takes the mean.
        teacher_temperature: of both teachers' scores.
        max_query_tokens, max_document_tokens: texts are cut there. chunk_tokens: padded tokens per forward pass.
        precision: "auto" (bfloat16 where it pays), "bfloat16" or "float32". seed: of the draws.
    """

    batch_size: int = 8
    candidates: int = 8
    unit_weight: float = 1.0
    temperature: float = 1.0
    teacher_temperature: float = 1.0
    max_query_tokens: int = 32
    max_document_tokens: int = 180
    chunk_tokens: int = 4096
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("candidates", 2),
            ("max_query_tokens", 4),
            ("max_document_tokens", 4),
            ("chunk_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise RivalsError(f"training option {name}={getattr(self, name)} is below {least}")
        if self.unit_weight < 0 or not (self.temperature > 0 and self.teacher_temperature > 0):
            raise RivalsError("unit_weight must be at least 0 and the temperatures above 0")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise RivalsError(f"precision is {self.precision!r}; use auto, bfloat16 or float32")


@dataclass(frozen=True)
class GranularBatch:
    """`query[B]` and the rows of the teacher's run, `row[B, C]`, -1 where a list is shorter."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]


class MultiGranularObjective:
    """Distils a teacher's scores of passages into MaxSim, and its scores of their sentences into MaxSim of the sentence's tokens.

    Args:
        model: trained in place. With a marker for fine queries the sentences are scored by those, else by the queries themselves.
        run: candidates of every training query, with the teacher's scores of passages.
        units: of each document of the run's collection, the character spans of its sentences, rising and apart.
        unit_targets: the teacher's scores of the sentences of each row's document, row after row of the run: float[sum].
        evaluate: held-out score, if the loop evaluates.

    Formula: L = KL(softmax T || softmax S) + unit_weight * sum_p w_p KL(softmax T'_p || softmax S'_p), w = softmax T.

    Sentences that are cut off count as absent; so do those of a passage with fewer than two. Queries are encoded twice (coarse and
    fine), each passage of a batch once.

    Source: Reddy et al. (2024), AGRaME, section 3 (paper 31).

    Raises:
        RivalsError: targets that are not one for every sentence of every row or not finite, units that do not fit the documents, a
            run in which no query has two candidates.
    """

    def __init__(
        self,
        model: LateInteraction,
        run: Run,
        units: Sequence[Sequence[Span]],
        unit_targets: NDArray[np.floating[Any]],
        config: GranularConfig = GranularConfig(),
        *,
        evaluate: HeldOut | None = None,
    ) -> None:
        self.model, self.run, self.config, self._evaluate = model, run, config, evaluate
        texts = run.documents.full_texts
        counts = np.array([len(own) for own in units], np.int64)
        if len(units) != len(texts):
            raise RivalsError(f"there are units for {len(units)} documents, the run's collection has {len(texts)}")
        self._target_offsets = np.concatenate([[0], np.cumsum(counts[run.document])]).astype(np.int64)
        self._targets = np.asarray(unit_targets, np.float32)
        if self._targets.shape != (self._target_offsets[-1],) or not np.isfinite(self._targets).all():
            raise RivalsError(
                f"unit_targets must hold {int(self._target_offsets[-1])} finite numbers, one for every sentence of every row of the "
                f"run; got shape {self._targets.shape}"
            )
        if not np.isfinite(run.score).all():
            raise RivalsError(
                "the teacher has not scored every candidate of the run; score it with the pipeline's last stage"
            )
        self._trainable = np.flatnonzero(np.diff(run.offsets) > 1)
        if not len(self._trainable):
            raise RivalsError("no query of the run has two candidates; there is nothing to distil")
        c = config
        asked = run.queries.full_texts
        fine = "fine" in model.layout.prompts
        self._sides = [model.tokenize(asked, "query", longest=c.max_query_tokens)]
        if fine:
            self._sides.append(model.tokenize(asked, "query", fine=True, longest=c.max_query_tokens))
        self._sides.append(model.tokenize(texts, "document", longest=c.max_document_tokens))
        self._unit = self._units_of_tokens(texts, units, counts)
        bf16 = c.precision == "bfloat16" or (c.precision == "auto" and bfloat16_pays(model.device))
        self._autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
        self.options = {
            "granular": [c.batch_size, c.candidates, c.unit_weight, c.temperature, c.teacher_temperature, c.seed],
            "lengths": [c.max_query_tokens, c.max_document_tokens],
        }
        self.batches = lru_cache(maxsize=2)(self._batches)

    def _units_of_tokens(
        self, texts: list[str], units: Sequence[Sequence[Span]], counts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the unit of every token of every document, counted within the document; -1 for none or a token that does not count."""
        tokens, prompt = self._sides[-1], self.model.prompt_for("document")
        longest = self.model._limit("document", self.config.max_document_tokens)
        spans = self.model.encoder.fast_tokenizer.spans(texts, max_length=longest, prompt=prompt)
        unit = unit_of_tokens(spans, tokens.offsets, units, texts)
        first = np.cumsum(counts) - counts
        return np.where((unit >= 0) & tokens.scored, unit - first[lists.segment_ids(tokens.offsets)], -1)

    def _batches(self, epoch: int) -> list[GranularBatch]:
        rng = np.random.default_rng([self.config.seed, 41, epoch])
        run, width = self.run, self.config.candidates
        owner = lists.segment_ids(run.offsets)
        chance = rng.random(len(run))
        best = np.lexsort((-run.score, owner))[run.offsets[:-1][np.diff(run.offsets) > 0]]
        chance[best] = -1.0  # comes first
        drawn = np.lexsort((chance, owner))
        place = run.offsets[:-1, None] + np.arange(width)
        inside = np.arange(width)[None] < np.diff(run.offsets)[:, None]
        row = np.where(inside, drawn[np.minimum(place, len(run) - 1)], -1)
        order = rng.permutation(self._trainable)
        cuts = [order[at : at + self.config.batch_size] for at in range(0, len(order), self.config.batch_size)]
        return [GranularBatch(cut, row[cut]) for cut in cuts]

    def _asked_for(self, batch: GranularBatch) -> list[NDArray[np.int64]]:
        """The texts to encode of each side: queries (twice, with a fine marker), then each passage once."""
        passages = np.unique(self.run.document[batch.row[batch.row >= 0]])
        return [*[batch.query] * (len(self._sides) - 1), passages]

    def _chunks(self, side: int, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return token_batches(self._sides[side].lengths[rows], self.config.chunk_tokens)

    def parts(self, batch: GranularBatch) -> list[Callable[[], Vectors]]:
        """Return what encodes each chunk of queries and passages: (token vectors, which count)."""
        made: list[Callable[[], Vectors]] = []
        for side, rows in enumerate(self._asked_for(batch)):
            tokens = self._sides[side]
            width = int(tokens.lengths[rows].max())
            made += [
                partial(encode_tokens, self.model, tokens, rows[chunk], width, self._autocast)
                for chunk in self._chunks(side, rows)
            ]
        return made

    def joined(self, batch: GranularBatch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the loss from what `parts` gave."""
        found, at = [], 0
        asked = self._asked_for(batch)
        for side, rows in enumerate(asked):
            chunks = self._chunks(side, rows)
            found.append(put_back(vectors[at : at + len(chunks)], np.concatenate(chunks)))
            at += len(chunks)
        (coarse, coarse_mask), (fine, fine_mask), (passages, passage_mask) = found[0], found[-2], found[-1]
        mask = batch.row >= 0
        document = np.where(mask, self.run.document[batch.row], asked[-1][0])
        column = torch.from_numpy(np.searchsorted(asked[-1], document)).to(passages.device)
        own, own_mask, how = passages[column], passage_mask[column], self.model.reduction
        unit_ids, unit_targets, unit_mask = self._lists(batch, document, own.shape[2])
        device, scale = passages.device, self.config.temperature
        ids = torch.from_numpy(unit_ids).to(device)
        units = unit_targets.shape[-1]
        unit_scores, there = unit_max_sim(fine, own, fine_mask, ids, units, reduction=how)
        return multi_granular_distillation_loss(
            max_sim(coarse, own, coarse_mask, own_mask, reduction=how) / scale,
            torch.from_numpy(self.run.score[batch.row]).to(device).float() / self.config.teacher_temperature,
            torch.from_numpy(mask).to(device),
            unit_scores=unit_scores / scale,
            unit_targets=torch.from_numpy(unit_targets).to(device) / self.config.teacher_temperature,
            unit_mask=there & torch.from_numpy(unit_mask).to(device),
            unit_weight=self.config.unit_weight,
        )

    def _lists(
        self, batch: GranularBatch, document: NDArray[np.int64], width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Return each token's unit [B, C, width], the teacher's scores of units [B, C, U] and which there are."""
        shape, rows = batch.row.shape, batch.row.reshape(-1)
        tokens = self._sides[-1]
        index, offsets = lists.take_segments(tokens.offsets, document.reshape(-1))
        unit_ids = np.full((len(rows), width), -1, np.int64)
        unit_ids[np.arange(width)[None] < np.diff(offsets)[:, None]] = self._unit[index]
        unit_ids[rows < 0] = -1
        index, offsets = lists.take_segments(self._target_offsets, np.maximum(rows, 0))
        counts = np.where(rows >= 0, np.diff(offsets), 0)
        most = max(int(np.diff(offsets).max(initial=1)), 1)
        targets = np.zeros((len(rows), most), np.float32)
        targets[np.arange(most)[None] < np.diff(offsets)[:, None]] = self._targets[index]
        mask = np.arange(most)[None] < counts[:, None]
        return unit_ids.reshape(*shape, width), targets.reshape(*shape, most), mask.reshape(*shape, most)

    def loss(self, batch: GranularBatch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch in one pass."""
        return self.joined(batch, [part() for part in self.parts(batch)], generator)

    def evaluate(self) -> float:
        """Return the held-out score."""
        return held_out_score(self._evaluate)


def train_late_interaction(
    model: LateInteraction,
    dataset: Dataset,
    config: RetrieverConfig,
    *,
    negatives: Negatives | None = None,
    dev: Dataset | None = None,
    dev_pool: NDArray[np.int64] | None = None,
    folder: Path | None = None,
    resume: bool = False,
    world: World = World(),  # noqa: B008 - frozen
    executor: Executor | None = None,
    regime: Regime | None = None,
) -> TrainingResult:
    """Train a late-interaction model in place on a dataset's pairs and mined negatives, keeping the weights that were best on dev.

    Source: Khattab and Zaharia (2020), ColBERT.

    Raises:
        RivalsError: nothing to train on, options out of range, a loss that is not finite.
    """
    objective = LateInteractionObjective(
        model, dataset, config, negatives=negatives, dev=dev, dev_pool=dev_pool, world=world
    )
    return train_on_pairs(
        objective, "Training late interaction", folder=folder, resume=resume, executor=executor, regime=regime
    )


__all__ = ["GranularConfig", "LateInteractionObjective", "MultiGranularObjective", "train_late_interaction"]
