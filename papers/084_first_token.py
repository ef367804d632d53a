"""Paper 84: RankNet whose pairs weigh by the ranks in question (FIRST's training loss) against plain RankNet.

One small perceptron on LightGBM's graded example; the learning rate of each from validation.
"""

from __future__ import annotations

from functools import partial

import torch

from papers.common.claim import Higher, Paper
from papers.common.data import graded_lists
from papers.common.ranking import mean_ndcg, mean_over_splits, train_scorer
from papers.common.training import choose
from rivals.losses import rank_weighted_ranknet_loss
from rivals.measures import kendall_tau

RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@3 and Kendall's tau of both losses, the mean of three splits."""
    return mean_over_splits(seed, 1 if smoke else 3, partial(one_split, smoke=smoke))


def one_split(seed: int, *, smoke: bool) -> dict[str, float]:
    """Choose learning rates on validation queries and measure on test queries."""
    split, figures = graded_lists(seed), {}
    measure = partial(mean_ndcg, k=3)
    for name, weighting in (("weighted", "inverse_rank_sum"), ("plain", None)):
        loss = partial(rank_weighted_ranknet_loss, weighting=weighting)
        scorer = choose(
            RATES[: 1 if smoke else None],
            lambda rate, loss=loss: train_scorer(
                split, loss, learning_rate=rate, steps=5 if smoke else 160, seed=seed, measure=measure
            ),
        )
        features, relevance, mask = split.test
        scores = scorer(features, mask).detach()
        figures[f"nDCG@3 {name} RankNet"] = measure(scores, relevance, mask)
        figures[f"tau {name} RankNet"] = float(torch.nanmean(kendall_tau(scores, relevance, mask, empty="nan")))
    return figures


PAPER = Paper(
    number=84,
    claim="A RankNet loss that weights pairs by the inverse of their ranks trains first-token re-rankers that are as "
    "good as, or better than, generating re-rankers on BEIR, at half the time.",
    expects=(
        Higher("nDCG@3 weighted RankNet", "nDCG@3 plain RankNet"),
        Higher("tau weighted RankNet", "tau plain RankNet"),
    ),
    data="LightGBM's ranking example, 121 / 40 / 40 queries, three random splits a seed",
    run=run,
    notes="Only the loss is tested, on a perceptron over features: no language model, and nothing about time. The "
    "ranks are those of grades 0 to 4, so ties are many.",
)
