"""Paper 52: do large batches, in chunks that fit, beat batches of the size that fits, over as many examples?

In-batch negatives; 8 at a time, or 128 at a time by the gradient cache in chunks of 8, for the same number of examples.
"""

from __future__ import annotations

from functools import partial

import torch

from papers.common.claim import Above, Higher, Paper
from papers.common.maps import NOTES, Bench, Maps, bench, best_test, cached_step, contrast, shuffled, train
from rivals.negatives.batching import Batch

RATES, EXAMPLES, CHUNK = (1e-4, 3e-4, 1e-3, 3e-3), 8192, 8


def agreement(given: Bench, batch: Batch) -> float:
    """Return minus the largest difference between the gradient in chunks and that in one piece, over its largest entry."""
    queries, documents = given.asked["train"][batch.anchor], given.documents[batch.columns]
    whole, chunked = Maps(queries.shape[1]), Maps(queries.shape[1])
    contrast(whole.queries(queries) @ whole.documents(documents).T, batch).backward()
    cached_step(chunked, queries, documents, batch, contrast, CHUNK)
    one, other = (torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (whole, chunked))
    return -float((one - other).abs().max() / one.abs().max())


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 of both batch sizes and how well the gradients agree."""
    given = bench("Cranfield" if smoke else "MedQuAD", seed)
    examples, figures = given.examples(seed=seed), {}
    for size, chunk in ((8, None), (128, CHUNK)):

        def at(rate: float, size: int = size, chunk: int | None = chunk) -> tuple[float, Maps]:
            steps = 2 if smoke else EXAMPLES // size
            return train(given, shuffled(examples, seed, size), rate=rate, steps=steps, chunk=chunk)

        ways = [partial(at, rate) for rate in RATES[: 1 if smoke else None]]
        figures[f"nDCG@10 batches of {size}"] = best_test(given, ways)
    figures["minus relative gradient difference"] = agreement(given, next(shuffled(examples, seed, 128)))
    return figures


PAPER = Paper(
    number=52,
    claim="Gradient caching gives the exact gradient of a large contrastive batch in the memory of a small one, so that DPR "
    "trained on one small card matches batches of 128 on eight.",
    expects=(
        Higher("nDCG@10 batches of 128", "nDCG@10 batches of 8"),
        Above("minus relative gradient difference", -1e-4),
    ),
    data="MedQuAD's sample, 500 / 150 / 400 questions, 3,514 answers, one known answer a question",
    run=run,
    notes=f"{NOTES.split(';')[0]}; learning rate of each from {RATES}, and the best of three moments, on dev. "
    f"{EXAMPLES} examples each, only negatives of the batch, chunks of {CHUNK}.",
)
