"""Paper 7: does a judge's filter improve mined negatives, and training on its scores more than that?

Eight own negatives a question, naive or after the judge; InfoNCE, or the judge's scores as soft labels.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.maps import DATA, NOTES, STEPS, Bench, averaged, best_test, by_rate, shuffled
from rivals import lists
from rivals.data import Run
from rivals.losses import soft_label_alignment_loss
from rivals.negatives import Top
from rivals.negatives.batching import Batch
from rivals.negatives.judging import JudgeThreshold, Verdicts

SOFTNESS = (0.05, 0.2)


class Knowing:
    """Gives hidden positives 0.95 and others 0.8 times their cosine with the labelled answer, both with noise of 0.03."""

    name = "knowing"

    def __init__(self, given: Bench, seed: int) -> None:
        self.given, self.seed = given, seed

    def judge(self, run: Run) -> Verdicts:
        """Score the candidates of a run over training queries."""
        task = self.given.task
        names = {name: number for number, name in enumerate(task.train.queries.ids.tolist())}
        query = np.array([names[name] for name in run.queries.ids.tolist()])[run.query]
        truth, known = task.truth.judgements, task.train.judgements.positives
        right = lists.find_pairs(truth.offsets, truth.document, query, run.document) >= 0
        answer = self.given.documents[known.document[known.offsets[query]]]
        near = (answer * self.given.documents[run.document]).sum(1).numpy()
        noise = np.random.default_rng([self.seed, 6]).normal(0, 0.03, (len(names), len(run.documents)))
        score = np.where(right, 0.95, 0.8 * np.clip(near, 0, 1)) + noise[query, run.document]
        return Verdicts(np.clip(score, 0, 1).astype(np.float32))


def aligned(scores: Tensor, batch: Batch, softness: float) -> Tensor:
    """Return the alignment of the softmax at temperature 0.05 with the judge's, at a temperature of its own."""
    assert batch.target is not None
    target = np.where(batch.relevance > 0, 0.95, np.nan_to_num(batch.target))
    wanted = torch.from_numpy(target.astype(np.float32))
    return soft_label_alignment_loss(
        scores * softness / 0.05, wanted, torch.from_numpy(batch.mask), temperature=softness
    )


def compared(given: Bench, seed: int, smoke: bool) -> dict[str, float]:
    """Return figures of every way on one data set."""
    naive = given.mine(Top(8), seed=seed)
    clean = given.mine(Top(8), JudgeThreshold(Knowing(given, seed), margin=0.1), top_k=50, seed=seed)
    batches = {
        name: partial(shuffled, given.examples(mined, Top(8), share="own", seed=seed), seed)
        for name, mined in (("naive", naive), ("judged", clean))
    }
    figures = {f"nDCG@10 {name}": best_test(given, by_rate(given, b, seed, smoke)) for name, b in batches.items()}
    soft = [
        way
        for softness in SOFTNESS
        for way in by_rate(given, batches["judged"], seed, smoke, loss=partial(aligned, softness=softness))
    ]
    return figures | {"nDCG@10 judged, soft labels": best_test(given, soft)}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 of every way, means over the data sets."""
    return averaged(seed, smoke, lambda given: compared(given, seed, smoke))


PAPER = Paper(
    number=7,
    claim="Negatives mined by a judge model raise the MMEB average of a 2B model from 60.1 to 61.6, and training on its soft "
    "scores to 63.6.",
    expects=(
        Higher("nDCG@10 judged, soft labels", "nDCG@10 naive"),
        Higher("nDCG@10 judged", "nDCG@10 naive"),
        Higher("nDCG@10 judged, soft labels", "nDCG@10 judged"),
    ),
    data=DATA,
    run=run,
    notes=f"{NOTES} {STEPS} steps of 64 questions, 8 own negatives each and no others. The judge knows the hidden "
    "positives (0.95), scores others by their cosine with the labelled answer, and is noisy; margin 0.1. Soft labels "
    f"have a temperature of their own, from {SOFTNESS}, also on dev.",
)
