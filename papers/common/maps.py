"""The small bench of mining: residual maps of frozen MiniLM vectors, trained on batches of `rivals.negatives.batching`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from papers.common.data import sentence_vectors
from papers.studies.mining_data import TASKS, Task
from rivals import lists
from rivals.data import Dataset, Judgements
from rivals.data.pipeline import Transform
from rivals.losses import info_nce_loss
from rivals.measures import ndcg
from rivals.negatives import Draw, Mined, Sampler, mine_hard_negatives
from rivals.negatives.batching import Batch, Batcher, Examples, Shuffled
from rivals.retrieve import Dense
from rivals.training import cached_backward

SETS = ("Cranfield", "BANKING77")
RATES = (3e-4, 1e-3)
STEPS = 150

Loss = Callable[[Tensor, Batch], Tensor]


class Bench(NamedTuple):
    """A task with the unit vectors of its documents [N, D] and of the queries [Q, D] of its parts, and a search over them."""

    task: Task
    documents: Tensor
    asked: dict[str, Tensor]
    source: Dense

    def mine(self, sampler: Sampler, *filters: Transform, top_k: int = 100, seed: int = 0) -> Mined:
        """Mine for the training queries as `mine_hard_negatives` does, by cosine of the frozen vectors."""
        options: dict[str, Any] = {"top_k": top_k, "seed": seed, "allow_none": True, "show": False}
        return mine_hard_negatives(self.source, self.task.train, filters=filters, sampler=sampler, **options)

    def examples(self, mined: Mined | None = None, sampler: Sampler | None = None, **options: Any) -> Examples:
        """Return one training example a query, with negatives drawn anew in every epoch from what was mined."""
        if mined is None:
            return Examples(self.task.train, **options)
        return Examples(self.task.train, run=mined.run, negatives=sampler, **options)


class Given:
    """Vectors computed before, in place of an encoder."""

    def __init__(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> None:
        self.vectors = {"query": queries, "document": documents}

    def encode(self, texts: Sequence[str], *, role: str, progress: Any = None) -> NDArray[np.float32]:
        """Return the first vectors of the role, as many as there are texts."""
        return self.vectors[role][: len(texts)]

    def fingerprint(self) -> str:
        """Name the vectors."""
        return "given"


@functools.lru_cache(maxsize=3)
def bench(name: str, seed: int) -> Bench:
    """Return the bench of a data set of `papers.studies.mining_data` under a seed."""
    task = TASKS[name](seed)
    documents = sentence_vectors(task.train.documents.full_texts, f"study-{name}-documents")
    parts = {"train": task.train, "dev": task.dev, "test": task.test}
    asked = {p: sentence_vectors(d.queries.full_texts, f"study-{name}-{p}-{seed}") for p, d in parts.items()}
    return Bench(task, documents, asked, searched(asked["train"], documents, task.train))


def searched(queries: Tensor, documents: Tensor, data: Dataset) -> Dense:
    """Return exact search over given vectors of the dataset's queries and documents."""
    return Dense(Given(queries.numpy(), documents.numpy()), data.documents, show_progress=False)


class Maps(nn.Module):
    """x -> normalise(x + W x), one W for queries and one for documents, at first zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asked, self.told = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.asked.weight)
        nn.init.zeros_(self.told.weight)

    def queries(self, vectors: Tensor) -> Tensor:
        """Map queries."""
        return nn.functional.normalize(vectors + self.asked(vectors), dim=-1)

    def documents(self, vectors: Tensor) -> Tensor:
        """Map documents."""
        return nn.functional.normalize(vectors + self.told(vectors), dim=-1)


def contrast(scores: Tensor, batch: Batch) -> Tensor:
    """Return InfoNCE at temperature 0.05 over the batch's columns."""
    mask = torch.from_numpy(batch.mask)
    return info_nce_loss(scores, torch.from_numpy(batch.relevance), mask, temperature=0.05)


def ndcg_at_10(maps: Maps, given: Bench, part: str) -> float:
    """Return mean nDCG@10 of a part's queries over all documents."""
    data = given.task.dev if part == "dev" else given.task.test
    known = data.judgements.positives
    relevance = torch.zeros(len(data.queries), len(data.documents))
    relevance[torch.from_numpy(known.query), torch.from_numpy(known.document)] = 1
    with torch.no_grad():
        scores = maps.queries(given.asked[part]) @ maps.documents(given.documents).T
    return float(ndcg(scores, relevance, k=10).mean())


def endless(batcher: Batcher[Batch]) -> Iterator[Batch]:
    """Yield the batches of epoch after epoch."""
    epoch = 0
    while True:
        batcher.set_epoch(epoch)
        yield from batcher
        epoch += 1


def shuffled(examples: Examples, seed: int, size: int = 64) -> Iterator[Batch]:
    """Yield random batches without end."""
    return endless(Shuffled(examples, min(size, len(examples)), seed=seed, drop_last=True))


def train(
    given: Bench,
    batches: Iterable[Batch],
    *,
    rate: float,
    steps: int = STEPS,
    loss: Loss = contrast,
    queries: Tensor | None = None,
    chunk: int | None = None,
    after: Callable[[Maps, int], None] | None = None,
) -> tuple[float, Maps]:
    """Train maps by AdamW; return nDCG@10 on dev at the best of three moments, and the maps as they were then.

    Args:
        queries: vectors of the batches' anchors, those of the training queries by default. chunk: accumulate exact
            gradients over chunks of so many queries or documents (`cached_backward`). after: called after every step
            with the number of steps made.
    """
    asked = given.asked["train"] if queries is None else queries
    maps = Maps(asked.shape[1])
    optimiser, best, kept = torch.optim.AdamW(maps.parameters(), lr=rate), -1.0, Maps(asked.shape[1])
    moments = {max(1, round(steps * share)) for share in (1 / 3, 2 / 3, 1.0)}
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        q, d = asked[batch.anchor], given.documents[batch.columns]
        optimiser.zero_grad()
        if chunk is None:
            loss(maps.queries(q) @ maps.documents(d).T, batch).backward()
        else:
            cached_step(maps, q, d, batch, loss, chunk)
        optimiser.step()
        if after is not None:
            after(maps, step)
        if step in moments and (dev := ndcg_at_10(maps, given, "dev")) > best:
            best = dev
            kept.load_state_dict(maps.state_dict())
    return best, kept


def cached_step(maps: Maps, queries: Tensor, documents: Tensor, batch: Batch, loss: Loss, chunk: int) -> None:
    """Add the gradient of a batch's loss, a chunk of vectors at a time."""
    pieces = queries.split(chunk)
    parts = [lambda q=q: (maps.queries(q),) for q in pieces]
    parts += [lambda d=d: (maps.documents(d),) for d in documents.split(chunk)]

    def whole(vectors: list[tuple[Tensor, ...]]) -> Tensor:
        told = torch.cat([v for (v,) in vectors[len(pieces) :]])
        return loss(torch.cat([v for (v,) in vectors[: len(pieces)]]) @ told.T, batch)

    cached_backward(parts, whole)


def best_test(given: Bench, options: Iterable[Callable[[], tuple[float, Maps]]]) -> float:
    """Return test nDCG@10 of the option that is best on dev; an option trains and returns (dev, maps)."""
    return ndcg_at_10(max((option() for option in options), key=lambda found: found[0])[1], given, "test")


def by_rate(
    given: Bench, batches: Callable[[], Iterable[Batch]], seed: int, smoke: bool, **options: Any
) -> list[Callable[[], tuple[float, Maps]]]:
    """Return trainings at every learning rate (options for `best_test`); smoke: two steps at one of them."""
    steps = 2 if smoke else options.pop("steps", STEPS)
    options.pop("steps", None)

    def at(rate: float) -> tuple[float, Maps]:
        return train(given, batches(), rate=rate, steps=steps, **options)

    return [functools.partial(at, rate) for rate in RATES[: 1 if smoke else None]]


def averaged(
    seed: int, smoke: bool, run: Callable[[Bench], dict[str, float]], names: Sequence[str] = SETS
) -> dict[str, float]:
    """Return the mean of each figure over the data sets; smoke: the smallest only."""
    found = [run(bench(name, seed)) for name in (SETS[:1] if smoke else names)]
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


def false_share(draw: Draw, truth: Judgements) -> float:
    """Return the share of drawn negatives that are hidden positives."""
    query = np.broadcast_to(np.arange(len(draw))[:, None], draw.mask.shape)[draw.mask]
    place = lists.find_pairs(truth.offsets, truth.document, query, draw.candidate[draw.mask])
    return float((place >= 0).mean()) if len(place) else 0.0


def random_documents(given: Bench, k: int, seed: int) -> Callable[[int], Draw]:
    """Return the draw of k documents of the whole collection for every training query, by epoch."""

    def drawn(epoch: int) -> Draw:
        shape = (len(given.task.train.queries), k)
        candidate = np.random.default_rng([seed, 7, epoch]).integers(len(given.documents), size=shape)
        empty = Draw.empty(*shape)
        ones = np.ones(shape, np.float32)
        return Draw(candidate, ones > 0, ones, empty.target, empty.log_probability, empty.row)

    return drawn


MEDICAL = "MedQuAD's sample (500 / 150 / 400 questions, 3,514 answers)"
DATA = (
    "Cranfield (110 / 40 / 75 questions, 1,400 abstracts) and BANKING77 (500 / 200 / 770 questions, 1,540 questions as "
    "documents); training sees one of several positives of a question; mean over the sets"
)
NOTES = (
    "Residual linear maps of frozen MiniLM vectors, AdamW; learning rate from 3e-4 and 1e-3, and the best of three moments, "
    "by nDCG@10 on dev."
)
