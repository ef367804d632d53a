"""Paper 13: does dropping candidates that score near the positive make mined negatives better?

The four hardest candidates are mined naively, with a margin, and with TopK-PercPos; maps of frozen vectors train on each.
"""

from __future__ import annotations

from functools import partial

from papers.common.claim import Higher, Paper
from papers.common.maps import (
    DATA,
    MEDICAL,
    NOTES,
    SETS,
    STEPS,
    Bench,
    averaged,
    best_test,
    by_rate,
    false_share,
    shuffled,
)
from rivals.negatives import PositiveAware, Top

RULES = {
    "naive": (),
    "margin 0.05": (PositiveAware(absolute=0.05),),
    "95 %": (PositiveAware(relative=0.05),),
}


def compared(given: Bench, seed: int, smoke: bool) -> dict[str, float]:
    """Return figures of every rule on one data set."""
    plain = partial(shuffled, given.examples(seed=seed), seed)
    figures = {"nDCG@10 in-batch only": best_test(given, by_rate(given, plain, seed, smoke))}
    for name, filters in RULES.items():
        mined = given.mine(Top(4), *filters, seed=seed)
        batches = partial(shuffled, given.examples(mined, Top(4), seed=seed), seed)
        figures[f"nDCG@10 {name}"] = best_test(given, by_rate(given, batches, seed, smoke))
        figures[f"false negatives, {name}"] = false_share(mined.draw, given.task.truth.judgements)
    return figures


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 and the share of false negatives of every rule, means over the data sets."""
    return averaged(seed, smoke, lambda given: compared(given, seed, smoke), ("MedQuAD", *SETS))


PAPER = Paper(
    number=13,
    claim="Dropping candidates that score above 95 per cent of the positive raises mean nDCG@10 on three question-answering "
    "sets from 0.541 to 0.586.",
    expects=(
        Higher("nDCG@10 95 %", "nDCG@10 naive"),
        Higher("nDCG@10 margin 0.05", "nDCG@10 naive"),
        Higher("false negatives, naive", "false negatives, 95 %"),
        Higher("nDCG@10 95 %", "nDCG@10 in-batch only"),
    ),
    data=f"{MEDICAL}, {DATA}",
    run=run,
    notes=f"{NOTES} {STEPS} steps of 64 questions, 4 mined negatives beside those of the batch.",
)
