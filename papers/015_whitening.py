"""Paper 15: does whitening the batch replace negatives, and do four views teach more than two?

A small convnet learns from moved views of Omniglot drawings without labels: W-MSE with two and four views, SimCLR, and
the plain distance of positives, which can collapse. Test: nearest neighbours among drawings of new characters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.drawings import drawings, nt_xent, picture_encoder, recall_at_one, self_supervised, two_views
from papers.common.training import choose
from rivals.losses import whitened_mse_loss


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return recall at 1 on new characters for every method."""
    data, steps = drawings(seed), 2 if smoke else 120
    pictures = data.train[0]

    def best(kind: str, options: tuple[float, ...], views: int = 2) -> tuple[float, nn.Module]:
        def train(option: float) -> tuple[float, tuple[float, nn.Module]]:
            def loss(seen: list[Tensor]) -> Tensor:
                if kind == "SimCLR":
                    return nt_xent(seen, option)
                if kind == "whitened":
                    return whitened_mse_loss(seen, eps=1e-5)
                return (2 - 2 * F.cosine_similarity(seen[0], seen[1])).mean()

            model = two_views(pictures, int(option) if kind == "whitened" else 32, seed=seed)
            net = self_supervised(model, loss, pictures, seed=seed, steps=steps, views=views)
            return recall_at_one(net, data.validation), (option, net)

        return choose(options[:1] if smoke else options, train)

    width, whitened = best("whitened", (16, 32))
    return {
        "R@1 whitened, 2 views": recall_at_one(whitened, data.test),
        "R@1 whitened, 4 views": recall_at_one(best("whitened", (width,), views=4)[1], data.test),
        "R@1 SimCLR": recall_at_one(best("SimCLR", (0.1, 0.5))[1], data.test),
        "R@1 positives alone": recall_at_one(best("plain", (0,))[1], data.test),
        "R@1 untrained": recall_at_one(picture_encoder(128, pictures, seed=seed), data.test),
    }


PAPER = Paper(
    number=15,
    claim="Whitening prevents collapse without negatives, so that positives alone match SimCLR with two views (CIFAR-10 "
    "91.55 against 91.80) and improve with four (91.99).",
    expects=(
        Higher("R@1 whitened, 2 views", "R@1 SimCLR", margin=-0.03),
        Higher("R@1 whitened, 4 views", "R@1 whitened, 2 views"),
        Higher("R@1 whitened, 2 views", "R@1 positives alone"),
        Higher("R@1 untrained", "R@1 positives alone"),
    ),
    data="Omniglot 21 x 21 without labels, 109 characters to train, 106 new ones (2,120 drawings) to test, convnet, 120 "
    "steps of 64 drawings",
    run=run,
    notes="Within 0.03 of SimCLR counts as a match. Width (16 or 32, whole batch as one group) and SimCLR's temperature "
    "(0.1 or 0.5) by the nearest neighbours of 27 held-out characters; four views cost twice the time of two.",
)
