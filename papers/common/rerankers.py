"""A small bench of rerankers: a perceptron on frozen vectors and first-stage scores, over Cranfield with hidden positives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from papers.common.answers import pair_features
from papers.common.data import generator
from papers.common.maps import Bench, bench
from papers.common.training import batches, choose, fit, mlp
from rivals.data import Dataset
from rivals.losses import info_nce_loss
from rivals.measures import ndcg, reciprocal_rank
from rivals.negatives import Draw
from rivals.retrieve.bm25 import BM25

RATES, BATCH = (3e-4, 1e-3), 32
DATA = (
    "Cranfield: 110 training questions with one known answer of several, 40 to choose on, 75 to test, 1,400 abstracts, all "
    "judged"
)


class Ranked(NamedTuple):
    """Cranfield's bench, BM25, and the first-stage scores float[3, Q, N] (BM25, latent words, MiniLM) of every part."""

    given: Bench
    bm25: BM25
    scores: dict[str, Tensor]
    latent: tuple[NDArray[np.float32], NDArray[np.float32]]


def latent_vectors(
    documents: list[str], queries: list[str], width: int, *, letters: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit vectors of queries and documents: TF-IDF of words, or of groups of 3 to 5 letters, by SVD."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    options = (
        {"analyzer": "char_wb", "ngram_range": (3, 5), "max_features": 20000} if letters else {"stop_words": "english"}
    )
    words = TfidfVectorizer(sublinear_tf=True, **options)
    reduced = TruncatedSVD(width, random_state=0)
    told = normalize(reduced.fit_transform(words.fit_transform(documents))).astype(np.float32)
    return normalize(reduced.transform(words.transform(queries))).astype(np.float32), told


@functools.lru_cache(maxsize=1)
def ranked(seed: int) -> Ranked:
    """Return the bench under a seed."""
    given = bench("Cranfield", seed)
    documents = given.task.train.documents
    bm25, scores, latent = BM25(documents, threads=1), {}, {}
    for part, data in parts(given).items():
        run = bm25(data.queries, k=200)
        matched = torch.zeros(len(data.queries), len(documents))
        matched[torch.from_numpy(run.query), torch.from_numpy(run.document)] = torch.from_numpy(
            run.score.astype(np.float32)
        )
        latent[part] = latent_vectors(documents.full_texts, data.queries.full_texts, 100)
        words = torch.from_numpy(latent[part][0] @ latent[part][1].T)
        scores[part] = torch.stack([matched / 10, words, given.asked[part] @ given.documents.T])
    return Ranked(given, bm25, scores, latent["train"])


def parts(given: Bench) -> dict[str, Dataset]:
    """Return the data of every part."""
    return {"train": given.task.train, "dev": given.task.dev, "test": given.task.test}


def scored(model: nn.Module, data: Ranked, part: str, rows: Tensor, candidates: Tensor) -> Tensor:
    """Return the model's scores [Q, C] of the candidates [Q, C] of a part's queries."""
    more = (data.scores[part][n][rows].gather(1, candidates) for n in range(3))
    found: Tensor = model(pair_features(data.given.asked[part][rows], data.given.documents[candidates], *more))
    return found.squeeze(-1)


def reranked(model: nn.Module, data: Ranked, part: str, depth: int) -> dict[str, float]:
    """Return nDCG@10, MRR@10 and MRR@3 of BM25's first `depth` documents in the model's order."""
    known = parts(data.given)[part].judgements.positives
    relevance = torch.zeros(data.scores[part][0].shape)
    relevance[torch.from_numpy(known.query), torch.from_numpy(known.document)] = 1
    candidates = data.scores[part][0].topk(depth).indices
    with torch.no_grad():
        scores = scored(model, data, part, torch.arange(len(candidates)), candidates)
    everything = torch.full(relevance.shape, -1e9).scatter(1, candidates, scores)  # what was not retrieved still counts
    return {
        "nDCG@10": float(ndcg(everything, relevance, k=10).mean()),
        "MRR@10": float(reciprocal_rank(everything, relevance, k=10).mean()),
        "MRR@3": float(reciprocal_rank(everything, relevance, k=3).mean()),
    }


def trained(
    data: Ranked, drawn: Callable[[int], Draw], *, seed: int, smoke: bool, depth: int, measure: str, steps: int = 200
) -> nn.Module:
    """Train a reranker on the known answers against drawn negatives; the rate is the better one on dev."""
    known = data.given.task.train.judgements.positives
    answer = torch.from_numpy(known.document[known.offsets[:-1]])
    draws = [drawn(epoch) for epoch in range(1 if smoke else 20)]

    def at(rate: float) -> tuple[float, nn.Module]:
        model, chance = mlp(2 * data.given.documents.shape[1] + 4, 1, seed=seed), generator(seed)

        def loss(rows: Tensor) -> Tensor:
            draw = draws[int(torch.randint(len(draws), (1,), generator=chance))]
            candidate = torch.from_numpy(np.maximum(draw.candidate[rows.numpy()], 0))
            there = torch.from_numpy(draw.mask[rows.numpy()]) & (candidate != answer[rows, None])
            columns = torch.cat([answer[rows, None], candidate], 1)
            mask = torch.cat([torch.ones(len(rows), 1, dtype=torch.bool), there], 1)
            relevance = torch.zeros(mask.shape)
            relevance[:, 0] = 1
            return info_nce_loss(scored(model, data, "train", rows, columns), relevance, mask, temperature=1.0)

        best = fit(
            model,
            loss,
            batches(len(answer), BATCH, seed=seed),
            steps=2 if smoke else steps,
            learning_rate=rate,
            validate=lambda: reranked(model, data, "dev", depth)[measure],
            every=40,
            seed=seed,
        )
        assert best is not None
        return best, model

    return choose(RATES[: 1 if smoke else None], at)
