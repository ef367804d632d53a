"""Training a retriever: in-batch and mined negatives under InfoNCE, over pooled vectors and, if wanted, over token vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.losses import in_batch_info_nce_loss, info_nce_loss, listwise_kl_loss
from rivals.models._precision import bfloat16_pays
from rivals.models.batching import Tokens, token_batches
from rivals.models.encoder import Encoder, Role
from rivals.models.late_interaction import max_sim
from rivals.negatives.batching.groups import grouped_order, rival_queries
from rivals.training.distributed import World, gather
from rivals.training.executor import Executor, Vectors
from rivals.training.held_out import PoolRanking, fast_similarities
from rivals.training.loop import TrainingResult, fit
from rivals.training.negatives import Negatives
from rivals.training.regime import Regime
from rivals.training.retriever_config import RetrieverConfig


@dataclass(frozen=True)
class PairBatch:
    """Rows of one batch: `query[B]`, the positive trained on `positive[B]`, mined `negative[B, k]` with `present[B, k]`.

    `teacher[B, 1 + k]` holds a teacher's scores of the positive and the negatives; no columns without one.
    """

    query: NDArray[np.int64]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    present: NDArray[np.bool_]
    teacher: NDArray[np.float32]

    @property
    def columns(self) -> NDArray[np.int64]:
        """The documents to encode: every query's positive, then the negatives that are there."""
        return np.concatenate([self.positive, self.negative[self.present]])

    def share(self, world: World) -> PairBatch:
        """Return the rows of one process."""
        rows = world.share(list(range(len(self.query))))
        return PairBatch(
            self.query[rows], self.positive[rows], self.negative[rows], self.present[rows], self.teacher[rows]
        )


class RetrieverObjective:
    """InfoNCE of an encoder over a dataset's training queries.

    Args:
        model: the encoder; trained in place.
        dataset: training queries with judgements.
        negatives: the marked run and its sampler, or None for in-batch negatives only. A regime may replace the run while training;
            which queries share a batch stays as the first run has it.
        dev: held-out queries for `evaluate`, and `dev_pool`, the document rows they are ranked against (None = all).

    A query's other known positives, texts equal to its positive and marked candidates are never its negatives.
    """

    def __init__(
        self,
        model: Encoder,
        dataset: Dataset,
        config: RetrieverConfig,
        *,
        negatives: Negatives | None = None,
        dev: Dataset | None = None,
        dev_pool: NDArray[np.int64] | None = None,
        world: World = World(),  # noqa: B008 - frozen
    ) -> None:
        self.model, self.dataset, self.config, self.world = model, dataset, config, world
        self.dev, self.dev_pool = dev, dev_pool
        self.negatives, mined = negatives, None if negatives is None else negatives.run
        self.options = {name: value for name, value in asdict(config).items() if name not in ("loop", "chunk_tokens")}
        if mined is not None and len(mined.queries) != len(dataset.queries):
            raise RivalsError(
                f"the mined run is over {len(mined.queries)} queries, the training data over {len(dataset.queries)}; "
                "mine with the same queries"
            )
        grouped = mined is not None and config.group_size > 1
        self._rivals = rival_queries(mined, dataset.judgements.positives) if mined is not None and grouped else None
        known = dataset.judgements.positives
        self._known = known
        self._trainable = np.flatnonzero(np.diff(known.offsets) > 0)
        self._queries = self._tokens(dataset.queries.full_texts, "query", config.max_query_tokens)
        self._documents = self._tokens(dataset.documents.full_texts, "document", config.max_document_tokens)
        self._same_text = np.unique(dataset.documents.text_hashes, return_inverse=True)[1]
        bf16 = config.loop.precision == "bfloat16" or (config.loop.precision == "auto" and bfloat16_pays(model.device))
        self._autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
        self._cached_batches = lru_cache(maxsize=2)(self._batches)

    def _tokens(self, texts: list[str], role: Role, longest: int) -> Tokens:
        return self.model.tokenize(texts, role=role, longest=longest)

    def batches(self, epoch: int) -> list[PairBatch]:
        """Return the epoch's batches: its order of queries is fixed, their negatives are of the run in use now."""
        return self._cached_batches(epoch, self.negatives.version if self.negatives else 0)

    def _batches(self, epoch: int, version: int) -> list[PairBatch]:
        rng = np.random.default_rng([self.config.loop.seed, 17, epoch])
        order = rng.permutation(self._trainable)
        if self._rivals is not None:
            order = grouped_order(order, *self._rivals, self.config.group_size, rng)
        offsets = self._known.offsets
        picked = offsets[order] + (rng.random(len(order)) * np.diff(offsets)[order]).astype(np.int64)
        positive = self._known.document[picked]
        if self.negatives is None or self.config.negatives == 0:
            negative, present = np.zeros((len(order), 0), np.int64), np.zeros((len(order), 0), bool)
            teacher = np.zeros((len(order), 0), np.float32)
        else:
            draw = self.negatives.draw(epoch)
            width = self.config.negatives
            missing = width - self._rivals_met(order)[order]
            negative = draw.candidate[order, :width]
            present = draw.mask[order, :width] & (np.arange(width)[None, :] < missing[:, None])
            teacher = self._teacher(order, positive, draw.row[order, :width])
        size = self.config.batch_size
        cuts = [slice(start, start + size) for start in range(0, len(order), size)]
        return [PairBatch(order[c], positive[c], negative[c], present[c], teacher[c]) for c in cuts]

    def _teacher(
        self, query: NDArray[np.int64], positive: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the mined run's scores of positives and of its rows, float32[B, 1 + k]; no columns where no teacher is wanted."""
        if not self.config.teacher_weight or self.negatives is None:
            return np.zeros((len(query), 0), np.float32)
        run = self.negatives.run
        place = lists.find_pairs(run.positive_offsets, run.positive, query, positive)
        own = np.where(place >= 0, run.positive_score[place] if len(run.positive) else np.nan, np.nan)
        if np.isnan(own).any():
            name = self.dataset.queries.ids[query[int(np.isnan(own).argmax())]]
            raise RivalsError(
                f"query '{name}': the teacher has not scored its positive; make the mined run by calling the pipeline that ends in "
                "the teacher with the training data set"
            )
        others = np.where(row >= 0, run.score[row] if len(run) else 0.0, 0.0)
        return np.concatenate([own[:, None], others], 1).astype(np.float32)

    def _rivals_met(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of its rivals every query meets in its batch, int64[Q]."""
        if self._rivals is None:
            return np.zeros(len(self.dataset.queries), np.int64)
        offsets, rivals = self._rivals
        batch = np.full(len(self.dataset.queries), -1, np.int64)
        batch[order] = np.arange(len(order)) // self.config.batch_size
        asker = lists.segment_ids(offsets)
        together = (batch[asker] == batch[rivals]) & (batch[asker] >= 0)
        return np.bincount(asker[together], minlength=len(batch))

    def loss(self, batch: PairBatch, generator: torch.Generator) -> Tensor:
        """Return this process's part of the batch's loss; the parts of all processes add up to the mean over queries."""
        return self.joined(batch, [part() for part in self.parts(batch)], generator)

    def parts(self, batch: PairBatch) -> list[Callable[[], Vectors]]:
        """Return what encodes each chunk of this process's queries and documents: (pooled, token vectors, their mask)."""
        mine = batch.share(self.world)
        return [
            *self._chunks(self._queries, mine.query, self.config.max_query_tokens)[0],
            *self._chunks(self._documents, mine.columns, self.config.max_document_tokens)[0],
        ]

    def joined(self, batch: PairBatch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return this process's part of the loss from what `parts` gave."""
        mine = batch.share(self.world)
        columns = mine.columns
        asked, order = self._chunks(self._queries, mine.query, self.config.max_query_tokens)
        queries, query_tokens, query_mask = _assembled(vectors[: len(asked)], order)
        order = self._chunks(self._documents, columns, self.config.max_document_tokens)[1]
        documents, document_tokens, document_mask = _assembled(vectors[len(asked) :], order)
        everyone = gather(documents, self.world)
        mask, own = self._competing(mine, everyone.device)
        loss = in_batch_info_nce_loss(
            queries,
            everyone,
            mask=mask,
            positive_columns=own,
            temperature=self.config.temperature,
            normalize=True,
            reduction="sum",
        )
        if self.config.late_interaction > 0:
            similarity = max_sim(
                query_tokens, gather(document_tokens, self.world), query_mask, gather(document_mask, self.world)
            )
            late = self._contrast(similarity, mask, own)
            loss = loss + self.config.late_interaction * late
        if mine.teacher.shape[1]:
            loss = loss + self.config.teacher_weight * self._divergence(mine, queries, documents)
        return loss / len(batch.query)

    def _contrast(self, similarity: Tensor, mask: Tensor, own: Tensor) -> Tensor:
        """Return the sum over queries of InfoNCE over given scores [B, C]."""
        relevance = torch.zeros_like(similarity)
        relevance[torch.arange(len(own), device=own.device), own] = 1
        return info_nce_loss(similarity, relevance, mask, temperature=self.config.temperature, reduction="sum")

    def _competing(self, mine: PairBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return which of all processes' columns may compete for each query, bool[B, C], and the column of its positive."""
        columns = gather(torch.from_numpy(mine.columns), self.world).numpy()
        counts = gather(torch.tensor([len(mine.columns)]), self.world)
        start = int(counts[: self.world.rank].sum())
        mask = torch.from_numpy(self._mask(mine, columns, start)).to(device)
        return mask, torch.arange(len(mine.query), device=device) + start

    def _divergence(self, mine: PairBatch, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the sum over queries of KL(teacher, encoder) over each query's own positive and negatives. Papers 4, 7, 11, 81."""
        column, mask = self._own_list(mine, queries.device)
        unit = torch.nn.functional.normalize
        scores = (unit(queries, dim=-1)[:, None] * unit(documents, dim=-1)[column]).sum(-1)
        return self._teach(mine, scores, mask)

    def _own_list(self, mine: PairBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the columns of each query's own positive and negatives, int64[B, 1 + k], and which are there."""
        count, width = mine.negative.shape
        column = np.zeros((count, 1 + width), np.int64)
        column[:, 0] = np.arange(count)
        column[:, 1:][mine.present] = count + np.arange(mine.present.sum())
        mask = np.concatenate([np.ones((count, 1), bool), mine.present], 1)
        return torch.from_numpy(column).to(device), torch.from_numpy(mask).to(device)

    def _teach(self, mine: PairBatch, scores: Tensor, mask: Tensor) -> Tensor:
        """Return the sum over queries of the divergence of the scores of each query's own list from the teacher's."""
        return listwise_kl_loss(
            scores,
            torch.from_numpy(mine.teacher).to(scores),
            mask,
            temperature=self.config.temperature,
            target_temperature=self.config.teacher_temperature,
            reduction="sum",
        )

    def _mask(self, batch: PairBatch, columns: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
        """Return which columns may compete for each query, bool[B, C]; its own positive always stays."""
        pairs = (np.repeat(batch.query, len(columns)), np.tile(columns, len(batch.query)))
        text = self._same_text
        hidden = lists.find_pairs(self._known.offsets, text[self._known.document], pairs[0], text[pairs[1]]) >= 0
        if self.negatives is not None and len(run := self.negatives.run):
            place = lists.find_pairs(run.offsets, run.document, *pairs)
            hidden |= (place >= 0) & ~run.keep[place]
        mask = ~hidden.reshape(len(batch.query), len(columns))
        mask[np.arange(len(batch.query)), start + np.arange(len(batch.query))] = True
        return mask

    def _chunks(
        self, tokens: Tokens, rows: NDArray[np.int64], longest: int
    ) -> tuple[list[Callable[[], Vectors]], NDArray[np.int64]]:
        """Cut rows into chunks of like length; return what encodes each, and the places of `rows` in the chunks' order.

        A chunk gives pooled vectors [b, D], unit token vectors [b, T, H] and their mask [b, T], T common to all chunks.
        """
        lengths = tokens.lengths[rows]
        width = longest if self.world.size > 1 else int(lengths.max())
        if not len(rows):  # a process without a query in this batch still takes part in the gathering, with gradients
            return [partial(self._nothing, width)], np.zeros(0, np.int64)
        chunks = list(token_batches(lengths, self.config.chunk_tokens))
        return [partial(self._encode, tokens, rows[chunk], width) for chunk in chunks], np.concatenate(chunks)

    def _encode(self, tokens: Tokens, rows: NDArray[np.int64], width: int) -> Vectors:
        """Encode the texts of `rows`; token vectors are filled up to `width`."""
        ids, attention = tokens.pad(rows, pad_id=self.model.fast_tokenizer.pad_id, device=self.model.device)
        with self._autocast:
            hidden = self.model.token_vectors(ids, attention)
        pooled = self.model.finish(hidden, attention, prompt_length=tokens.prompt_length)
        if self.config.late_interaction == 0:
            return (pooled,)
        unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
        spare = width - unit.shape[1]
        pad = torch.nn.functional.pad
        return pooled, pad(unit, (0, 0, 0, spare)), pad(attention.bool(), (0, spare))

    def _nothing(self, width: int) -> Vectors:
        zero = 0.0 * next(self.model.parameters()).sum()
        mask = torch.zeros((0, width), dtype=torch.bool, device=self.model.device)
        return zero.expand(0, self.model.dimension), zero.expand(0, width, self.model.hidden), mask

    def evaluate(self) -> float:
        """Return nDCG@10 of the dev queries over the dev pool of documents."""
        if self.dev is None:
            raise RivalsError("choosing a checkpoint needs dev queries; give a dev split or set evaluations to 0")
        return PoolRanking(self._similarities, self.dev, self.dev_pool)()

    def _similarities(self, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
        """Return the scores of every query with every document, as a search would have them."""
        return fast_similarities(self.model, queries, documents)


def _assembled(vectors: Sequence[Vectors], order: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Put the rows of all chunks back into the batch's order; what chunks did not give is empty."""
    back = torch.from_numpy(np.argsort(order)).to(vectors[0][0].device)
    joined = [torch.cat(column)[back] for column in zip(*vectors, strict=True)]
    return joined[0], *(joined[1:] if len(joined) == 3 else (torch.empty(0), torch.empty(0)))


def train_retriever(
    encoder: Encoder,
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
    """Train an encoder in place on a dataset's pairs and mined negatives, keeping the weights that were best on dev.

    Source: Henderson et al. (2017); Karpukhin et al. (2020), DPR; Khattab and Zaharia (2020) for the MaxSim term. Paper 1.

    Raises:
        RivalsError: nothing to train on, options out of range, a loss that is not finite.
    """
    objective = RetrieverObjective(
        encoder, dataset, config, negatives=negatives, dev=dev, dev_pool=dev_pool, world=world
    )
    return train_on_pairs(
        objective, "Training the retriever", folder=folder, resume=resume, executor=executor, regime=regime
    )


def train_on_pairs(
    objective: RetrieverObjective,
    description: str,
    *,
    folder: Path | None = None,
    resume: bool = False,
    executor: Executor | None = None,
    regime: Regime | None = None,
) -> TrainingResult:
    """Run the loop on an objective made of pairs, with its configuration's dropout; the model is trained in place."""
    with dropout_set_to(objective.model, objective.config.dropout):
        return fit(
            objective,
            objective.config.loop,
            folder=folder,
            resume=resume,
            world=objective.world,
            executor=executor,
            regime=regime,
            description=description,
        )


@contextmanager
def dropout_set_to(model: torch.nn.Module, probability: float | None) -> Iterator[None]:
    """Give every dropout layer another probability while the block runs; None leaves them as they are."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)] if probability is not None else []
    before = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = probability or 0.0
        yield
    finally:
        for layer, p in zip(layers, before, strict=True):
            layer.p = p
