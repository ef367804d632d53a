"""Paper 103: listwise preference optimisation: which ranking loss trains a policy best from lists of responses.

A linear policy over 16 candidate responses of a prompt (12 features each); eight are drawn from the reference policy
and labelled by win rates under a noisy reward. Policies are compared by true reward at the same divergence from the
reference (2 nats), reached by scaling what was learnt; the learning rate is chosen by reward on validation prompts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import generator
from papers.common.training import batches, choose, fit
from rivals.losses import preference_loss, win_rate_labels

BETA, PROMPTS, CANDIDATES, DRAWN = 0.05, 600, 16, 8


def preferred(
    structure: str, link: str = "logistic", pair_weight: str | None = None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a preference loss of log-probabilities, labels and the reference's log-probabilities."""
    return lambda p, y, ref: preference_loss(
        p,
        y,
        ref,
        structure=structure,
        link=link,
        pair_weight=pair_weight,
        beta=BETA,  # type: ignore[arg-type]
    )


ARMS = {
    "squared error": preferred("pointwise", "squared_error"),
    "pointwise logistic": preferred("pointwise", "cross_entropy"),
    "softmax": preferred("softmax"),
    "pair hinge": preferred("pairs", "hinge"),
    "pair logistic": preferred("pairs"),
    "ListMLE": preferred("list_mle"),
    "lambda": preferred("pairs", pair_weight="dcg"),
}


def at_divergence(scores: Tensor, ref: Tensor, nats: float = 2.0) -> Tensor:
    """Return log probabilities of ref + c scores with c such that KL(policy, ref) is `nats`, or as near as can be."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        policy = (ref + middle * scores).log_softmax(-1)
        divergence = float((policy.exp() * (policy - ref)).sum(-1).mean())
        low, high = (middle, high) if divergence < nats else (low, middle)
    return (ref + low * scores).log_softmax(-1)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train a policy with every loss."""
    draw = generator(seed)
    features = torch.randn(3 * PROMPTS, CANDIDATES, 12, generator=draw)
    start, wanted = torch.randn(12, generator=draw) * 0.3, torch.randn(12, generator=draw) * 0.5
    reward = features @ wanted + 0.3 * (features[..., 0] * features[..., 1])
    noisy = reward + 0.5 * torch.randn(reward.shape, generator=draw)
    ref = (features @ start).log_softmax(-1)
    drawn = torch.multinomial(ref.exp(), DRAWN, generator=draw)
    shown = noisy.gather(1, drawn)
    labels = win_rate_labels(torch.sigmoid(shown[:, :, None] - shown[:, None, :]))
    parts = torch.arange(3 * PROMPTS).split(PROMPTS)

    def train(rate: float, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[float, float]:
        model = nn.Linear(12, 1, bias=False)
        nn.init.zeros_(model.weight)

        def step(rows: Tensor) -> Tensor:
            policy = (ref[rows] + model(features[rows])[..., 0]).log_softmax(-1)
            return loss(policy.gather(1, drawn[rows]), labels[rows], ref[rows].gather(1, drawn[rows]))

        fit(model, step, batches(PROMPTS, 64, seed=seed), steps=5 if smoke else 300, learning_rate=rate, seed=seed)
        found = []
        with torch.no_grad():
            for rows in parts[1:]:
                policy = at_divergence(model(features[rows])[..., 0], ref[rows])
                found.append(float((policy.exp() * reward[rows]).sum(-1).mean()))
        return found[0], found[1]

    figures = {"reward reference": float((ref[parts[2]].exp() * reward[parts[2]]).sum(-1).mean())}
    for arm, loss in ARMS.items():
        figures[f"reward {arm}"] = choose((0.003, 0.03, 0.3), lambda rate, loss=loss: train(rate, loss))
    return figures


PAPER = Paper(
    number=103,
    claim="LiPO-lambda beats the pairwise, softmax and pointwise losses (win rate on TL;DR 90.6 against 88.5, 75.4 and "
    "64.1 or less).",
    expects=(
        Higher("reward lambda", "reward pair logistic"),
        Higher("reward lambda", "reward ListMLE"),
        Higher("reward lambda", "reward softmax"),
        Higher("reward pair logistic", "reward softmax"),
        Higher("reward pair logistic", "reward squared error"),
        Higher("reward pair logistic", "reward pointwise logistic"),
    ),
    data="simulated: 600 prompts, 16 candidates of 12 features, 8 drawn and labelled; linear policy, 300 steps",
    run=run,
    notes="A simulation, not a language model, in which all but squared error come out nearly "
    "alike; rewards compared at a divergence of 2 nats from the reference.",
)
