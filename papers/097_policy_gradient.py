"""Paper 97: policy gradient on nDCG over sampled rankings against the softmax loss, and against no baseline.

One small perceptron on LightGBM's graded example, trained for nDCG@10 and measured by it.
"""

from __future__ import annotations

from functools import partial

from papers.common.claim import Higher, Paper
from papers.common.data import generator, graded_lists
from papers.common.ranking import mean_ndcg, mean_over_splits, train_scorer
from papers.common.training import choose
from rivals.losses import policy_gradient_loss, softmax_loss

RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 of every loss, the mean of two splits."""
    return mean_over_splits(seed, 1 if smoke else 2, partial(one_split, smoke=smoke))


def one_split(seed: int, *, smoke: bool) -> dict[str, float]:
    """Choose learning rates on validation queries and measure on test queries."""
    split, figures = graded_lists(seed), {}
    rewards = partial(policy_gradient_loss, k=10, gain="exponential", n_samples=16)
    for name in ("policy gradient", "policy gradient without baseline", "softmax"):

        def train(rate: float, name: str = name) -> tuple:
            drawn = generator(seed)
            baseline = None if "without" in name else "leave_one_out"
            loss = softmax_loss if name == "softmax" else partial(rewards, baseline=baseline, generator=drawn)
            return train_scorer(split, loss, learning_rate=rate, steps=5 if smoke else 160, seed=seed)

        features, relevance, mask = split.test
        scorer = choose(RATES[: 1 if smoke else None], train)
        figures[f"nDCG@10 {name}"] = mean_ndcg(scorer(features, mask), relevance, mask)
    return figures


PAPER = Paper(
    number=97,
    claim="Policy-gradient training on the measure itself gives strong in-domain gains over surrogate losses when "
    "training and evaluation agree.",
    expects=(
        Higher("nDCG@10 policy gradient", "nDCG@10 softmax"),
        Higher("nDCG@10 policy gradient", "nDCG@10 policy gradient without baseline"),
    ),
    data="LightGBM's ranking example, 121 / 40 / 40 queries, two random splits a seed",
    run=run,
    notes="A perceptron over features in place of a language model; 16 rankings a list, temperature 1.",
)
