"""The regimes over texts: a tiny encoder and tiny cross-encoders in AR2, STAR -> ADORE and coupled estimation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.losses import pairwise_logistic_loss
from rivals.models import CrossEncoder, Encoder
from rivals.negatives import KnownPositives, Top, Uniform
from rivals.retrieve import Dense
from rivals.training import Negatives, Refresh, Together
from rivals.training.adversarial import AdversarialObjective
from rivals.training.coupled import CoupledObjective
from rivals.training.held_out import Reranking
from rivals.training.live_query import LiveQuery, LiveQueryObjective
from rivals.training.phased import Phased
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ScorerObjective
from rivals.training.schedules import Alternate, Stage, Stages
from rivals.training.scorers import PairScorer
from rivals.training.vector_scorers import EncodedTexts, VectorScorer
from tests.models.tiny import WORDS, write_tiny_bert
from tests.training.small_world import assert_same_after_breaks
from tests.training.tiny import weights

FLOAT: Any = {"precision": "float32"}
SHORT: Any = {"epochs": 1, "learning_rate": 1e-3}


class Texts:
    """A tiny model's folder, a few questions and answers, and candidates drawn at random."""

    def __init__(self, folder: Path) -> None:
        self.start = write_tiny_bert(folder / "start")
        rng = np.random.default_rng(0)
        answers = [" ".join(rng.choice(WORDS, 8)) for _ in range(40)]
        questions = [" ".join(rng.permutation(answer.split())[:4]) for answer in answers[:30]]
        data = Dataset(
            Collection([f"q{i}" for i in range(30)], questions, name="query"),
            Collection([f"d{i}" for i in range(40)], answers),
            Judgements.build(range(30), range(30), [1] * 30, queries=30, documents=40),
        )
        self.train, self.dev = train, _ = data.take(np.arange(24)), data.take(np.arange(24, 30))
        document = np.concatenate([rng.permutation(40)[:6] for _ in range(24)])
        run = Run.build(
            train.queries, train.documents, np.arange(25) * 6, document, rng.random(len(document)), scorer="dense"
        )
        known = train.judgements.positives
        self.run = KnownPositives()(
            run.replace(
                positive_offsets=known.offsets, positive=known.document, positive_score=np.zeros(len(known.document)),
                positive_relevance=known.relevance,
            )
        )  # fmt: skip

    def encoder(self) -> Encoder:
        return Encoder.load(self.start, device="cpu", dtype="float32")

    def cross(self, seed: int = 0) -> CrossEncoder:
        return CrossEncoder.load(self.start, device="cpu", dtype="float32", seed=seed)

    def retriever(self, encoder: Encoder, data: Dataset | None = None) -> VectorScorer:
        data = data or self.train
        return VectorScorer(
            EncodedTexts(encoder, data.queries, "query", max_tokens=16, **FLOAT),
            EncodedTexts(encoder, data.documents, "document", max_tokens=24, **FLOAT),
            scale=0.1,
        )

    def ranker(self, seed: int = 0) -> PairScorer:
        return PairScorer(self.cross(seed), self.train.queries, self.train.documents, max_length=40, **FLOAT)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    return Texts(tmp_path_factory.mktemp("texts"))


def test_a_retriever_and_a_ranker_of_texts_take_turns(texts: Texts, tmp_path: Path) -> None:
    def build() -> Any:
        encoder = texts.encoder()
        negatives = Negatives(texts.run, Top(2))

        def mine(rows: np.ndarray) -> Run:
            return KnownPositives()(
                Dense(encoder, texts.train.documents, show_progress=False)(texts.train.take(rows), 6)
            )

        turns = Alternate(["ranker", "retriever"], period=3, first_steps=1)
        objective = AdversarialObjective(
            texts.retriever(encoder), texts.ranker(), QueryBatches(texts.train, 6, negatives=negatives), turns
        )
        return objective, Together([turns, Refresh(negatives, mine, every=3)])

    before = weights(build()[0].model)
    after = assert_same_after_breaks(build, tmp_path, losses=(), refreshes=(1,), **SHORT)
    moved = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"retriever", "ranker"}


def test_star_then_adore_of_texts(texts: Texts, tmp_path: Path) -> None:
    def build() -> Any:
        encoder = texts.encoder()
        scorer = texts.retriever(encoder)
        star = ScorerObjective(
            scorer,
            QueryBatches(texts.train, 8, negatives=Negatives(texts.run, Uniform(1)), share="all"),
            pairwise_logistic_loss,
        )
        adore = LiveQueryObjective(scorer.query, texts.train, n=5, cut=5, batch_size=8, scale=0.1)
        calendar = Stages([Stage("star", 1), Stage("adore", regime=LiveQuery(adore, scorer.document.all), rate=0.5)])
        found = Dense(encoder, texts.dev.documents, show_progress=False)(texts.dev, 10)
        dev = Reranking(texts.retriever(encoder, texts.dev), found, texts.dev)
        return Phased({"star": star, "adore": adore}, scorer.model, calendar, evaluate=dev), calendar

    assert_same_after_breaks(build, tmp_path, losses=(3,), evaluations=1, **SHORT)


def test_two_cross_encoders_weigh_each_other_s_pairs(texts: Texts, tmp_path: Path) -> None:
    def build() -> Any:
        batches = QueryBatches(texts.train, 6, negatives=Negatives(texts.run, Uniform(1)))
        return CoupledObjective(texts.ranker(0), texts.ranker(1), batches), None

    assert_same_after_breaks(build, tmp_path, losses=(2,), **SHORT)
