"""Paper 4: does a reranker trained on the joint negatives of several retrievers beat one trained on a single retriever's?

Eight negatives a question from BM25, from the strongest of three, or from all three; BM25's first 100 are re-ranked.
"""

from __future__ import annotations

import numpy as np

from papers.common.claim import Higher, Paper
from papers.common.maps import false_share, searched
from papers.common.rerankers import BATCH, DATA, ranked, reranked, trained
from rivals.negatives import KnownPositives, Sampler, Uniform
from rivals.negatives.joint import Joint

DEPTH, NEGATIVES = 100, 8


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 and the share of false negatives of every source."""
    import torch

    data = ranked(seed)
    train, mark, figures = data.given.task.train, KnownPositives(), {}
    words = searched(*(torch.from_numpy(part) for part in data.latent), train)
    words.name = "words"
    ways: dict[str, tuple[object, Sampler]] = {
        "BM25": (data.bm25, Uniform(NEGATIVES)),
        "strongest": (data.given.source, Uniform(NEGATIVES)),
        "joint": (data.bm25 | words | data.given.source, Joint(NEGATIVES)),
        "joint, agreement": (data.bm25 | words | data.given.source, Joint(NEGATIVES, policy="agreement")),
    }
    for name, (source, sampler) in ways.items():
        found = mark(source(train, DEPTH))  # type: ignore[operator]

        def drawn(epoch: int, found=found, sampler=sampler):  # type: ignore[no-untyped-def]
            return sampler.draw_available(found, np.random.default_rng([seed, epoch]))

        model = trained(data, drawn, seed=seed, smoke=smoke, depth=DEPTH, measure="nDCG@10")
        figures[f"nDCG@10 {name}"] = reranked(model, data, "test", DEPTH)["nDCG@10"]
        figures[f"false negatives, {name}"] = false_share(drawn(0), data.given.task.truth.judgements)
    return figures


PAPER = Paper(
    number=4,
    claim="A re-ranker trained on negatives pooled from several retrievers, rather than the single strongest, reaches an "
    "MRR@10 of about 43.3 on MS MARCO passages.",
    expects=(
        Higher("nDCG@10 joint", "nDCG@10 strongest"),
        Higher("nDCG@10 joint", "nDCG@10 BM25"),
        Higher("false negatives, strongest", "false negatives, joint"),
    ),
    data=DATA,
    run=run,
    notes=f"{NEGATIVES} negatives from lists of {DEPTH}; BM25, latent words (SVD 100) and MiniLM, the strongest. Perceptron "
    f"on MiniLM vectors and the three scores, 200 steps of {BATCH} questions; learning rate and moment on dev.",
)
