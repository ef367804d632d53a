"""Paper 5: negatives weighted by a second model that learns what was judged (CET) against equal weights.

Cranfield, where all relevant documents are known, with a simulated pool: only what BM25 ranks in its first 20 counts as
judged. Negatives are MiniLM's first 20 that are not known to be relevant, some of them unjudged relevant documents.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from papers.common.answers import Searched, aerodynamics, an_answer, bm25_scores, top
from papers.common.claim import Above, Higher, Paper
from papers.common.data import generator
from papers.common.ranking import mean_over_splits
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import coupled_losses, pairwise_logistic_loss, selection_weight
from rivals.measures import ndcg, pooled_auc

POOL, NEGATIVES, DEPTH, WIDTH = 20, 20, 50, 64


class Task:
    """Pair features of every question and document, and what the pool lets us know of relevance."""

    def __init__(self, data: Searched, first_stage: Tensor) -> None:
        self.data = data
        self.cosines = data.queries @ data.documents.T
        self.scores = torch.stack([self.cosines, first_stage / first_stage.std()], -1)
        directions = torch.linalg.svd(data.documents - data.documents.mean(0), full_matrices=False).Vh[:WIDTH].T
        self.queries, self.documents = (v @ directions * WIDTH**0.5 for v in (data.queries, data.documents))
        judged = torch.zeros_like(data.relevant).scatter(1, top(first_stage, POOL), True)
        self.known = data.relevant & judged

    def features(self, rows: Tensor, documents: Tensor) -> Tensor:
        """Return [Q, C, 2 * 64 + 2] of documents int[Q, C]: product, gap, cosine, BM25."""
        asked, told = self.queries[rows].unsqueeze(1), self.documents[documents]
        return torch.cat([asked * told, (asked - told).abs(), self.scores[rows.unsqueeze(1), documents]], -1)

    def ndcg(self, model: nn.Module, rows: Tensor, truth: Tensor) -> float:
        """Return nDCG@10 of MiniLM's first 50 re-ranked, against all that are relevant in `truth`."""
        shown = top(self.cosines[rows], DEPTH)
        scores = torch.full(self.cosines[rows].shape, -torch.inf)
        scores.scatter_(1, shown, model(self.features(rows, shown)).squeeze(-1).detach())
        return float(torch.nanmean(ndcg(scores, truth[rows].float(), k=10, empty="nan")))


def one_split(seed: int, *, smoke: bool) -> dict[str, float]:
    """Train with equal and with coupled weights; the learning rate and the ratio by the pool's own judgements."""
    data = aerodynamics(seed)
    task = Task(data, bm25_scores("aerodynamics"))
    asked = data.train[task.known[data.train].any(1)]
    hard = top(task.cosines[asked].masked_fill(task.known[asked], -torch.inf), NEGATIVES)
    known = data._replace(relevant=task.known)

    def train(option: tuple[float, float | None]) -> tuple[float, tuple[nn.Module, nn.Module]]:
        rate, ratio = option
        ranker, selector = (mlp(2 * WIDTH + 2, 1, hidden=(32,), seed=seed + part) for part in (0, 1000))
        draw, relevance = generator(seed), torch.zeros(32, 1 + 4)
        relevance[:, 0] = 1.0

        def step(rows: Tensor) -> Tensor:
            drawn = hard[rows].gather(1, torch.rand(len(rows), NEGATIVES, generator=draw).argsort(1)[:, :4])
            documents = torch.cat([an_answer(known, asked[rows], draw)[:, None], drawn], 1)
            features, labels = task.features(asked[rows], documents), relevance[: len(rows)]
            scores = ranker(features).squeeze(-1)
            if ratio is None:
                return pairwise_logistic_loss(scores, labels)
            both = coupled_losses(scores, selector(features).squeeze(-1), labels, debias_ratio=ratio)
            return both.relevance_loss + both.selection_loss

        best = fit(
            [ranker, selector],
            step,
            batches(len(asked), 32, seed=seed),
            steps=5 if smoke else 150,
            learning_rate=rate,
            validate=lambda: task.ndcg(ranker, data.validation, task.known),
            every=15,
            seed=seed,
        )
        assert best is not None
        return best, (ranker, selector)

    few = (1e-3,) if smoke else (1e-3, 3e-3)
    plain, _ = choose([(rate, None) for rate in ((1e-3,) if smoke else (3e-4, 1e-3, 3e-3, 1e-2))], train)
    coupled, selector = choose([(rate, ratio) for rate in few for ratio in (2.0, 10.0)], train)
    weight = selection_weight(selector(task.features(asked, hard)).squeeze(-1).detach(), 2.0)
    relevant_unjudged = data.relevant[asked].gather(1, hard).float()
    measure = partial(task.ndcg, rows=data.test, truth=data.relevant)
    found = {"nDCG@10 coupled weights": measure(coupled), "nDCG@10 equal weights": measure(plain)}
    detection = float(pooled_auc(-weight, relevant_unjudged))
    return found | {"AUC of low weight for unjudged relevant negatives": detection}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 with all judgements, and how well low weights detect false negatives; mean of three splits."""
    return mean_over_splits(seed, 1 if smoke else 3, partial(one_split, smoke=smoke))


PAPER = Paper(
    number=5,
    claim="Weighting negatives by how likely they were to be selected for judging trains better rankers on a strong "
    "retriever's negatives than plain training.",
    expects=(
        Higher("nDCG@10 coupled weights", "nDCG@10 equal weights"),
        Above("AUC of low weight for unjudged relevant negatives", margin=0.5),
    ),
    data="Cranfield, 125 / 40 / 60 questions, three random splits a seed; judged only what BM25 has in its first 20",
    run=run,
    notes="Perceptrons on 64 components of frozen MiniLM vectors and the two scores, in place of two BERTs; validation "
    "sees the pool's judgements only, the test all. Questions of the splits overlap between seeds.",
)
