"""Paper 19: softmax loss with its exponential replaced by a bounded activation (PSL), clean and with false negatives.

Matrix factorisation of MovieLens by cosine; only the activation differs, temperature and learning rate from validation.
"""

from __future__ import annotations

from functools import partial
from itertools import product

from papers.common.claim import Above, Higher, Paper
from papers.common.data import films
from papers.common.ranking import factor_ndcg, train_factors
from papers.common.training import choose
from rivals.losses import pairwise_softmax_loss

NEGATIVES, FALSE = 20, 0.3


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@20 of both activations, on clean negatives and with a share of false ones."""
    data, figures = films(), {}
    options = list(product((0.05, 0.1), (0.01, 0.03)))[: 1 if smoke else None]
    for arm, share in (("clean", 0.0), ("false negatives", FALSE)):
        for name, activation in (("PSL", "relu"), ("softmax", "exp")):

            def train(option: tuple[float, float], activation: str = activation, share: float = share) -> tuple:
                return train_factors(
                    data,
                    partial(pairwise_softmax_loss, activation=activation, tau_star=option[0]),
                    negatives=NEGATIVES,
                    learning_rate=option[1],
                    epochs=6,
                    seed=seed,
                    false_share=share,
                    steps=5 if smoke else None,
                )

            figures[f"nDCG@20 {name}, {arm}"] = factor_ndcg(data, choose(options, train))
    gains = {
        arm: figures[f"nDCG@20 PSL, {arm}"] - figures[f"nDCG@20 softmax, {arm}"] for arm in ("clean", "false negatives")
    }
    return figures | {"larger gain with false negatives": gains["false negatives"] - gains["clean"]}


PAPER = Paper(
    number=19,
    claim="Replacing the exponential of the softmax loss by a bounded activation raises NDCG@20 (Gowalla: 0.1624 to "
    "0.1647), and by more under false negatives.",
    expects=(
        Higher("nDCG@20 PSL, clean", "nDCG@20 softmax, clean"),
        Higher("nDCG@20 PSL, false negatives", "nDCG@20 softmax, false negatives"),
        Above("larger gain with false negatives"),
    ),
    data="MovieLens latest-small, 601 users, 1,956 films liked at least 5 times, each user's last like as test",
    run=run,
    notes="Factors of 32 dimensions, the relu form, 20 negatives a like (drawn once a batch of 512) in place of 1,000, 6 "
    "epochs; 30 % of each like's negatives are the user's own likes in the noisy arm. All seeds share the split.",
)
