"""Paper 41: does the multi-similarity loss retrieve drawings of unseen characters better than older pair losses?

A small convnet is trained on Omniglot characters with each loss; every drawing of 106 new characters then looks for its
nearest other drawing. The learning rate of each loss is chosen on held-out training characters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.drawings import drawings, metric_encoder, recall_at_one
from papers.common.training import choose
from rivals.losses import in_batch_contrastive_loss, in_batch_multi_similarity_loss, in_batch_triplet_loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multi-similarity": partial(in_batch_multi_similarity_loss, epsilon=0.1),
    "multi-similarity without mining": partial(in_batch_multi_similarity_loss, epsilon=None),
    "semi-hard triplet": partial(in_batch_triplet_loss, mining="semihard", normalize=True),
    "batch-hard triplet": partial(in_batch_triplet_loss, mining="hard", normalize=True),
    "contrastive": partial(in_batch_contrastive_loss, normalize=True),
}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return recall at 1 on new characters for every loss."""
    data, steps = drawings(seed), 2 if smoke else 100

    def best(loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        def train(rate: float) -> tuple[float, nn.Module]:
            net = metric_encoder(loss, data, seed=seed, steps=steps, learning_rate=rate)
            return recall_at_one(net, data.validation), net

        return recall_at_one(choose((1e-3,) if smoke else (1e-3, 3e-3), train), data.test)

    return {f"R@1 {name}": best(loss) for name, loss in LOSSES.items()}


PAPER = Paper(
    number=41,
    claim="Mining pairs and weighting them by three kinds of similarity gives better retrieval than earlier pair and "
    "triplet losses: R@1 60.6 to 65.7 on CUB-200, 80.9 to 88.0 on In-Shop.",
    expects=(
        Higher("R@1 multi-similarity", "R@1 semi-hard triplet"),
        Higher("R@1 multi-similarity", "R@1 batch-hard triplet"),
        Higher("R@1 multi-similarity", "R@1 contrastive"),
        Higher("R@1 multi-similarity", "R@1 multi-similarity without mining"),
        Higher("R@1 multi-similarity without mining", "R@1 semi-hard triplet"),
    ),
    data="Omniglot 21 x 21, 109 characters to train, 106 new ones (2,120 drawings) to test, convnet, 100 steps",
    run=run,
    notes="Margins and scales are the papers' defaults; the learning rate of each loss comes from two on 27 held-out "
    "characters. The paper's rivals were ensembles and hierarchical triplets on photographs.",
)
