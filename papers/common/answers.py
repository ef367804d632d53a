"""Questions, documents and who answers what, as frozen MiniLM vectors: MedQuAD's small sample and Cranfield."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from papers.common.data import folder, sentence_vectors
from rivals.data import Collection
from rivals.retrieve.bm25 import BM25


class Searched(NamedTuple):
    """Unit vectors of queries [Q, D] and documents [N, D], relevance bool[Q, N] and the rows of the three parts."""

    queries: Tensor
    documents: Tensor
    relevant: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    query_texts: list[str]
    document_texts: list[str]


@functools.lru_cache(maxsize=1)
def medical(words: int = 60) -> Searched:
    """MedQuAD's quickstart: 2,863 questions on 638 topics, 3,514 answers cut to their first words, split by topic."""
    pairs = pq.read_table(folder("medquad") / "quickstart.parquet").to_pandas()
    table = pq.read_table(folder("medquad") / "answers.parquet").to_pandas().set_index("answer_id")["text"]
    asked = pairs[pairs["is_query"]].drop_duplicates("query_id")
    questions = pq.read_table(folder("medquad") / "qa.parquet", columns=["uid", "question"]).to_pandas()
    texts = questions.set_index("uid")["question"].loc[asked["uid"]].tolist()
    ids = pairs["answer_id"].drop_duplicates().tolist()
    answers = [" ".join(table.loc[one].split()[:words]) for one in ids]
    row = {query: number for number, query in enumerate(asked["query_id"])}
    column = {answer: number for number, answer in enumerate(ids)}
    relevant = torch.zeros(len(row), len(ids), dtype=torch.bool)
    relevant[[row[q] for q in pairs["query_id"]], [column[a] for a in pairs["answer_id"]]] = True
    parts = [torch.from_numpy((asked["split"] == name).to_numpy().nonzero()[0]) for name in ("train", "dev", "test")]
    vectors = sentence_vectors(texts, "medquad-questions"), sentence_vectors(answers, "medquad-answers")
    return Searched(*vectors, relevant, *parts, texts, answers)


@functools.lru_cache(maxsize=1)
def aerodynamics(seed: int = 0, words: int = 100) -> Searched:
    """Cranfield: 225 questions, 1,400 abstracts cut to their first words, split 125 / 40 / 60 by question at random."""
    corpus = pq.read_table(folder("cranfield") / "corpus.parquet").to_pandas()
    queries = pq.read_table(folder("cranfield") / "queries.parquet").to_pandas()
    judged = pq.read_table(folder("cranfield") / "qrels.parquet").to_pandas()
    texts = [
        " ".join(text.split()[:words]) or title for title, text in zip(corpus["title"], corpus["text"], strict=True)
    ]
    row = {query: number for number, query in enumerate(queries["qid"])}
    column = {document: number for number, document in enumerate(corpus["doc_id"])}
    relevant = torch.zeros(len(row), len(column), dtype=torch.bool)
    relevant[[row[q] for q in judged["qid"]], [column[d] for d in judged["doc_id"]]] = True
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(row)))
    asked = queries["text"].tolist()
    vectors = sentence_vectors(asked, "cranfield-questions"), sentence_vectors(texts, "cranfield-abstracts")
    return Searched(*vectors, relevant, *order.split([125, 40, 60]), asked, texts)


@functools.lru_cache(maxsize=2)
def bm25_scores(name: str) -> Tensor:
    """Return BM25 scores [Q, N] of every question and document ("medical" or "aerodynamics"); 0 without a common word."""
    data = medical() if name == "medical" else aerodynamics()
    documents = Collection([str(n) for n in range(len(data.document_texts))], data.document_texts)
    asked = Collection([str(n) for n in range(len(data.query_texts))], data.query_texts)
    run = BM25(documents, threads=1)(asked, k=200)
    scores = torch.zeros(data.relevant.shape)
    lengths = np.diff(run.offsets)
    scores[np.repeat(np.arange(len(lengths)), lengths), run.document] = torch.from_numpy(run.score.astype(np.float32))
    return scores


def top(scores: Tensor, count: int) -> Tensor:
    """Return the best `count` documents of every query, best first."""
    return scores.topk(count, dim=-1).indices


def pair_features(queries: Tensor, documents: Tensor, *more: Tensor) -> Tensor:
    """Return features [..., C, 2 D + 1 + ...] of queries [..., D] with documents [..., C, D]: product, gap, cosine, more."""
    asked = queries.unsqueeze(-2).expand_as(documents)
    product = asked * documents
    cosine = product.sum(-1, keepdim=True)
    scale = documents.shape[-1] ** 0.5
    return torch.cat(
        [product * scale, (asked - documents).abs() * scale / 2, cosine, *(m.unsqueeze(-1) for m in more)], -1
    )


def scored(model: nn.Module, data: Searched, rows: Tensor, candidates: Tensor, *more: Tensor) -> Tensor:
    """Return a perceptron's scores [Q, C] of the candidates int[Q, C] of queries, from `pair_features`, in pieces."""
    with torch.no_grad():
        parts = zip(*(column.split(200) for column in (rows, candidates, *more)), strict=True)
        return torch.cat(
            [model(pair_features(data.queries[q], data.documents[d], *extra)).squeeze(-1) for q, d, *extra in parts]
        )


def unanswered(data: Searched, scores: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the best `count` documents of queries that do not answer them: hard negatives, best first."""
    return top(scores[rows].masked_fill(data.relevant[rows], -torch.inf), count)


def an_answer(data: Searched, rows: Tensor, draw: torch.Generator) -> Tensor:
    """Return one relevant document of every query, at random among its own."""
    return data.relevant[rows].float().multinomial(1, generator=draw).squeeze(1)
