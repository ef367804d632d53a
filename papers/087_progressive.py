"""Paper 87: does InfoNCE that turns to hard negatives as training goes on beat plain InfoNCE?

In-batch negatives and five mined ones; plain, constant weights, and weights (or bent scores) that grow with progress.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.maps import DATA, NOTES, RATES, STEPS, Bench, Loss, averaged, best_test, shuffled, train
from rivals.losses import ProgressiveInfoNCE, progressive_info_nce_loss
from rivals.negatives import PositiveAware, Top
from rivals.negatives.batching import Batch

FORMS = ("plain", "constant", "progressive", "curricular")


def loss_of(form: str, steps: int) -> Loss:
    """Return the loss of a form, counting its own steps."""
    growing: dict[str, Callable[[], ProgressiveInfoNCE]] = {
        "progressive": lambda: ProgressiveInfoNCE(steps, temperature=0.05),
        "curricular": lambda: ProgressiveInfoNCE(steps, temperature=0.05, mode="curricular"),
    }
    fixed = partial(progressive_info_nce_loss, temperature=0.05, progress=float(form == "constant"))
    counted = growing[form]() if form in growing else fixed

    def loss(scores: Tensor, batch: Batch) -> Tensor:
        value: Tensor = counted(scores, torch.from_numpy(batch.relevance), torch.from_numpy(batch.mask))
        return value

    return loss


def compared(given: Bench, seed: int, smoke: bool) -> dict[str, float]:
    """Return figures of every form on one data set."""
    mined, steps = given.mine(Top(5), PositiveAware(relative=0.05), seed=seed), 2 if smoke else STEPS
    examples, figures = given.examples(mined, Top(5), seed=seed), {}
    for form in FORMS:

        def at(rate: float, form: str = form) -> tuple:  # type: ignore[type-arg]
            return train(given, shuffled(examples, seed, 128), rate=rate, steps=steps, loss=loss_of(form, steps))

        figures[f"nDCG@10 {form}"] = best_test(given, [partial(at, rate) for rate in RATES[: 1 if smoke else None]])
    return figures


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 of every form, means over the data sets."""
    return averaged(seed, smoke, lambda given: compared(given, seed, smoke))


PAPER = Paper(
    number=87,
    claim="Weighting negatives by difficulty, more and more as training goes on, improves text embeddings over plain "
    "InfoNCE (the formula here is ours).",
    expects=(
        Higher("nDCG@10 progressive", "nDCG@10 plain"),
        Higher("nDCG@10 curricular", "nDCG@10 plain"),
        Higher("nDCG@10 progressive", "nDCG@10 constant"),
    ),
    data=DATA,
    run=run,
    notes=f"{NOTES} {STEPS} steps of 128 questions (Cranfield: 110), 5 mined negatives under the 95 per cent rule. The "
    "paper gives no formula; both forms are ours.",
)
