"""Paper 48: weights that begin with pairs that BM25 finds easy, against none and against the reverse.

A perceptron on frozen MiniLM vectors and the BM25 score re-ranks BM25's first 50 on MedQuAD.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from papers.common.answers import bm25_scores, medical, pair_features, scored, top
from papers.common.claim import Higher, Paper
from papers.common.data import generator
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import CurriculumWeighting, looks_relevant, probability_error_loss
from rivals.measures import precision, reciprocal_rank

EPOCH, EPOCHS, END = 32, 30, 20
RATES = (1e-3, 3e-3)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return MRR@10 and P@1 on test questions, with each kind of weights."""
    data, first_stage = medical(), bm25_scores("medical")
    listed = top(first_stage[data.train], 100)
    answers = data.relevant[data.train].gather(1, listed)
    kept = answers.any(1).nonzero().squeeze(1)
    asked, listed, answers = data.train[kept], listed[kept], answers[kept]
    bm25 = first_stage[asked].gather(1, listed)
    looks = {kind: looks_relevant(bm25, heuristic=kind) for kind in ("reciprocal", "minmax", "kde")}
    shown = {name: top(first_stage[rows], 50) for name, rows in (("held", data.validation), ("test", data.test))}

    def judged(model: nn.Module, rows: Tensor, candidates: Tensor) -> tuple[float, float]:
        scores = scored(model, data, rows, candidates, first_stage[rows].gather(1, candidates) / 10)
        relevance = data.relevant[rows].gather(1, candidates).float()
        return float(reciprocal_rank(scores, relevance, k=10).mean()), float(precision(scores, relevance, k=1).mean())

    def train(option: tuple[str | None, bool, float]) -> tuple[float, nn.Module]:
        kind, anti, rate = option
        model, draw = mlp(2 * data.queries.shape[1] + 2, 1, hidden=(64,), seed=seed), generator(seed)
        curriculum = CurriculumWeighting(end=0 if kind is None else END * EPOCH, anti=anti)
        relevance = torch.tensor([[1.0, 0.0]]).expand(16, 2)

        def step(rows: Tensor) -> Tensor:
            good, bad = (w[rows].float().multinomial(1, generator=draw) for w in (answers, ~answers))
            places = torch.cat([good, bad], 1)
            documents = listed[rows].gather(1, places)
            features = pair_features(
                data.queries[asked[rows]], data.documents[documents], bm25[rows].gather(1, places) / 10
            )
            losses = probability_error_loss(model(features).squeeze(-1), relevance[: len(rows)], reduction="none")
            ease = curriculum.pairs(*looks[kind or "reciprocal"][rows].gather(1, places).unbind(1))
            loss = curriculum(losses, ease)
            curriculum.step()
            return loss

        rows, steps = batches(len(kept), 16, seed=seed), 3 if smoke else EPOCHS * EPOCH
        held = partial(judged, model, data.validation, shown["held"])
        best = fit(
            model, step, rows, steps=steps, learning_rate=rate, validate=lambda: held()[0], every=4 * EPOCH, seed=seed
        )
        assert best is not None
        return best, model

    arms = {
        "curriculum": list(product(looks, (False,), RATES)),
        "no curriculum": [(None, False, rate) for rate in (3e-4, *RATES, 1e-2)],
        "reverse curriculum": [("reciprocal", True, rate) for rate in RATES],
    }
    figures = {}
    for name, options in arms.items():
        model = choose(options[: 1 if smoke else None], train)
        figures[f"MRR@10 {name}"], figures[f"P@1 {name}"] = judged(model, data.test, shown["test"])
    return figures


PAPER = Paper(
    number=48,
    claim="Weighting training samples from easy to hard improves neural answer re-rankers by up to 4 % MRR and 9 % P@1.",
    expects=(
        Higher("MRR@10 curriculum", "MRR@10 no curriculum"),
        Higher("P@1 curriculum", "P@1 no curriculum"),
        Higher("MRR@10 curriculum", "MRR@10 reverse curriculum"),
    ),
    data="MedQuAD's small sample, 1,738 / 275 / 850 questions by topic, 3,514 answers cut to 60 words, BM25's first 50 "
    "re-ranked",
    run=run,
    notes="A perceptron on frozen vectors in place of BERT; training questions with an answer among BM25's first 100; 30 "
    "epochs of 32 batches of 16 pairs, the curriculum over after 20. Its heuristic and all learning rates are from "
    "validation; the weights kept are the best of validation. All seeds share the test questions.",
)
