"""Paper 11: does a retriever that trains in turns with a ranker beat one trained on static negatives?

Residual maps of frozen MiniLM vectors and a perceptron on pairs of them; as many steps of the retriever in every way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.maps import MEDICAL, Bench, bench
from papers.common.training import choose, mlp
from rivals.measures import ndcg, reciprocal_rank
from rivals.negatives import KnownPositives, Uniform
from rivals.training import (
    AdversarialObjective,
    Alternate,
    FeatureScorer,
    LoopConfig,
    MappedVectors,
    Negatives,
    QueryBatches,
    Refresh,
    ScorerObjective,
    Together,
    VectorScorer,
    fit,
)

RATES, BATCH, NEGATIVES, DEPTH = (3e-4, 1e-3), 32, 15, 100
PERIODS, PERIOD, SHARE, WARM = 4, 100, 25, 100


class Tower(nn.Module):
    """x -> x + W x, W at first zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.map.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors."""
        return x + self.map(x)


class Duel:
    """A fresh retriever and ranker over the bench, and the first 100 documents of the retriever as negatives."""

    def __init__(self, given: Bench, seed: int) -> None:
        self.given, self.seed, self.train = given, seed, given.task.train
        self.asked, self.told = given.asked["train"].numpy(), given.documents.numpy()
        width = self.told.shape[1]
        sides = MappedVectors(Tower(width), self.asked), MappedVectors(Tower(width), self.told)
        self.retriever = VectorScorer(*sides, similarity="cosine", scale=20.0)
        self.ranker = FeatureScorer(mlp(2 * width, 1, seed=seed), self.features)
        self.negatives = Negatives(self.mine(), Uniform(NEGATIVES), seed=seed)
        self.batches = QueryBatches(self.train, BATCH, negatives=self.negatives, seed=seed)

    def features(self, query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return products and gaps of the frozen vectors, scaled to about 1."""
        q, d = self.asked[query][:, None], self.told[document]
        return np.concatenate([q * d, np.abs(q - d) / 2], axis=-1) * np.float32(self.told.shape[1] ** 0.5)

    def mine(self, rows: NDArray[np.int64] | None = None) -> Any:
        """Return what the retriever finds first now, without the known answers."""
        return KnownPositives()(self.retriever.search(self.train, DEPTH, rows))

    def scored(self, part: str) -> tuple[Tensor, Tensor]:
        """Return the retriever's scores of a part's questions with all answers, and their relevance, [Q, N]."""
        data = self.given.task.dev if part == "dev" else self.given.task.test
        known, relevance = data.judgements.positives, torch.zeros(len(data.queries), len(data.documents))
        relevance[torch.from_numpy(known.query), torch.from_numpy(known.document)] = 1
        unit, sides = nn.functional.normalize, self.retriever.model
        with torch.no_grad():
            queries = unit(sides["query"](self.given.asked[part]), dim=-1)  # type: ignore[index]
            return queries @ unit(sides["document"](self.given.documents), dim=-1).T, relevance  # type: ignore[index]

    def held_out(self) -> float:
        """Return nDCG@10 on dev."""
        return float(ndcg(*self.scored("dev"), k=10).mean())

    def loop(self, steps: int, rate: float, evaluations: int = 8) -> LoopConfig:
        """Return the loop's options for so many steps."""
        return LoopConfig(
            epochs=steps,
            max_steps=steps,
            learning_rate=rate,
            evaluations=evaluations,
            precision="float32",
            checkpoint_seconds=1e9,
            seed=self.seed,
        )


Way = Callable[[float], tuple[float, Duel]]


def static(rate: float, *, given: Bench, seed: int, smoke: bool) -> tuple[float, Duel]:
    """Train the retriever by contrast with negatives mined once."""
    duel = Duel(given, seed)
    objective = ScorerObjective(duel.retriever, duel.batches, evaluate=duel.held_out)
    result = fit(objective, duel.loop(2 if smoke else PERIODS * (PERIOD - SHARE), rate))
    return result.best_score, duel


def alternating(rate: float, *, given: Bench, seed: int, smoke: bool, adv_lambda: float) -> tuple[float, Duel]:
    """Warm the ranker up on the first negatives, then train both in turns with negatives mined anew every period."""
    duel, period, share = Duel(given, seed), 4 if smoke else PERIOD, 2 if smoke else SHARE
    fit(ScorerObjective(duel.ranker, duel.batches), duel.loop(2 if smoke else WARM, 1e-3, evaluations=0))
    turns = Alternate(["ranker", "retriever"], period=period, first_steps=share)
    objective = AdversarialObjective(
        duel.retriever,
        duel.ranker,
        duel.batches,
        turns,
        adv_lambda=adv_lambda,
        ranker_rate=1e-3 / rate,
        evaluate=duel.held_out,
    )
    regime = Together([turns, Refresh(duel.negatives, duel.mine, every=period)])
    result = fit(objective, duel.loop(period if smoke else PERIODS * PERIOD, rate), regime=regime)
    return result.best_score, duel


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 and MRR@10 of the retriever under every way to train it."""
    given = bench("MedQuAD", seed)
    shared: dict[str, Any] = {"given": given, "seed": seed, "smoke": smoke}
    ways: dict[str, Way] = {
        "AR2": partial(alternating, **shared, adv_lambda=0.5),
        "distillation only": partial(alternating, **shared, adv_lambda=0.0),
        "static negatives": partial(static, **shared),
    }
    figures = {}
    for name, way in ways.items():
        scores, relevance = choose(RATES[: 1 if smoke else None], way).scored("test")
        figures[f"nDCG@10 {name}"] = float(ndcg(scores, relevance, k=10).mean())
        figures[f"MRR@10 {name}"] = float(reciprocal_rank(scores, relevance, k=10).mean())
    return figures


PAPER = Paper(
    number=11,
    claim="A retriever that trains in turns with the ranker that it tries to fool beats the best before it: 39.5 MRR@10 on MS "
    "MARCO (+1.3), 77.9 recall at 5 on Natural Questions (+2.1).",
    expects=(
        Higher("nDCG@10 AR2", "nDCG@10 static negatives"),
        Higher("MRR@10 AR2", "MRR@10 static negatives"),
        Higher("nDCG@10 AR2", "nDCG@10 distillation only"),
    ),
    data=f"{MEDICAL}; training sees one of several positives of a question",
    run=run,
    notes=f"Frozen MiniLM vectors: residual linear towers and a perceptron of 64 units. {PERIODS} periods of {PERIOD} steps, "
    f"{SHARE} of them the ranker's, after {WARM} steps of the ranker alone; {BATCH} questions with {NEGATIVES} of the first {DEPTH} "
    f"answers, mined anew each period; static: {PERIODS * (PERIOD - SHARE)} steps. Learning rate of the retriever from {RATES} and "
    "the best of eight moments by nDCG@10 on dev; the ranker's is 1e-3.",
)
