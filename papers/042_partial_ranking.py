"""Paper 42: is the head of a teacher's order of hard negatives a better lesson than its scores or its whole order?

A map trained on all of MedQuAD's training questions teaches one that has the answers of 200 only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from papers.common.answers import Searched, an_answer, medical, top, unanswered
from papers.common.claim import Higher, Paper
from papers.common.data import generator
from papers.common.maps import Maps
from papers.common.training import batches, fit
from rivals.losses import in_batch_info_nce_loss, listwise_kl_loss, partial_ranking_distillation_loss
from rivals.measures import kendall_tau, reciprocal_rank

FEW, MINED, BATCH, TEMPERATURE = 200, 16, 32, 0.05
RATES, WEIGHTS = (3e-4, 1e-3), (0.1, 0.5)

Lesson = Callable[[Tensor, Tensor], Tensor]
LESSONS: dict[str, Lesson | None] = {
    "no teacher": None,
    "scores": lambda scores, told: listwise_kl_loss(scores, told, temperature=TEMPERATURE),
    "whole order": lambda scores, told: partial_ranking_distillation_loss(
        scores, told, valid_count=MINED, temperature=TEMPERATURE
    ),
    "head of the order": lambda scores, told: partial_ranking_distillation_loss(scores, told, temperature=TEMPERATURE),
}


def similarity(maps: Maps, data: Searched, rows: Tensor) -> Tensor:
    """Return the cosines of questions with all answers."""
    with torch.no_grad():
        return maps.queries(data.queries[rows]) @ maps.documents(data.documents).T


def mrr(maps: Maps, data: Searched, rows: Tensor) -> float:
    """Return MRR@10 of questions over all answers."""
    return float(reciprocal_rank(similarity(maps, data, rows), data.relevant[rows].float(), k=10).mean())


def train(
    rate: float,
    weight: float = 0.0,
    *,
    data: Searched,
    rows: Tensor,
    lesson: Lesson | None,
    told: Tensor,
    seed: int,
    steps: int,
) -> tuple[float, Maps]:
    """Train on the answers of some questions and on what a teacher [Q, N] says of the student's own hardest ones."""
    maps, draw = Maps(data.queries.shape[1]), generator(seed)

    def loss(chosen: Tensor) -> Tensor:
        asked = rows[chosen]
        queries, documents = maps.queries(data.queries[asked]), maps.documents(data.documents)
        own = documents[an_answer(data, asked, draw)]
        found = in_batch_info_nce_loss(queries, own, temperature=TEMPERATURE)
        if lesson is None:
            return found
        scores = queries @ documents.T
        hard = top(scores.detach().masked_fill(data.relevant[asked], -torch.inf), MINED)
        return found + weight * lesson(scores.gather(1, hard), told[asked].gather(1, hard))

    best = fit(
        maps,
        loss,
        batches(len(rows), BATCH, seed=seed),
        steps=steps,
        learning_rate=rate,
        validate=lambda: mrr(maps, data, data.validation),
        every=max(1, steps // 6),
        seed=seed,
    )
    return float(best or 0.0), maps


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test MRR@10 of every way to be taught, and how far the student orders the teacher's first 8 as it does."""
    data = medical()
    steps, long = (2, 2) if smoke else (150, 400)
    few = data.train[torch.randperm(len(data.train), generator=generator(seed))[:FEW]]
    _, teacher = train(1e-3, data=data, rows=data.train, lesson=None, told=data.queries, seed=seed, steps=long)
    told = similarity(teacher, data, torch.arange(len(data.queries)))
    hard = unanswered(data, told, data.test, 8)
    figures = {"MRR@10, teacher": mrr(teacher, data, data.test)}
    for name, lesson in LESSONS.items():
        grid = [(rate, weight) for rate in RATES for weight in (WEIGHTS if lesson else (0.0,))]
        grid = grid[: 1 if smoke else None]
        make = {
            pair: partial(train, *pair, data=data, rows=few, lesson=lesson, told=told, seed=seed, steps=steps)
            for pair in grid
        }
        _, maps = max((one() for one in make.values()), key=lambda found: found[0])
        figures[f"MRR@10, {name}"] = mrr(maps, data, data.test)
        ours = similarity(maps, data, data.test).gather(1, hard)
        figures[f"tau with the teacher, {name}"] = float(kendall_tau(ours, told[data.test].gather(1, hard)).mean())
    return figures


PAPER = Paper(
    number=42,
    claim="Distilling only the cross-encoder's order of hard negatives makes a better image-text dual encoder than distilling "
    "its scores or its full ranking.",
    expects=(
        *(Higher("MRR@10, head of the order", f"MRR@10, {other}") for other in ("scores", "whole order", "no teacher")),
        *(
            Higher("tau with the teacher, head of the order", f"tau with the teacher, {other}")
            for other in ("scores", "whole order", "no teacher")
        ),
    ),
    data=f"MedQuAD's small sample: {FEW} of 1,738 training questions to the student, all to the teacher, 275 to choose on, 850 to "
    "test, 3,514 answers cut to 60 words",
    run=run,
    notes=f"Residual linear maps of frozen MiniLM vectors at temperature {TEMPERATURE}; {MINED} answers mined by the student at "
    "every step; the head is their half. The teacher is a map like the student with more answers, no cross-encoder. Learning rate and "
    "the lesson's weight (0.1, 0.5) of each way by MRR@10 on dev, with early stopping.",
)
