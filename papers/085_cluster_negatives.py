"""Paper 85: do cluster centroids as negatives and a band for cluster mates improve sentence embeddings without labels?

A small bag-of-words encoder learns from two dropout views of STS sentences, with SimCSE's loss and with ClusterNS.
"""

from __future__ import annotations

from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.sentences import BagEncoder, draws, sentence_task, spearman, unsupervised_encoder
from papers.common.training import choose
from rivals.losses import OnlineClusters, cluster_negatives_loss


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return the rank correlation on STS test pairs for every method."""
    task, found = sentence_task(), {}
    for name in ("SimCSE", "ClusterNS", "ClusterNS, mates removed"):

        def train(rate: float, name: str = name) -> tuple[float, BagEncoder]:
            clusters, draw = OnlineClusters(128, num_clusters=64), draws(seed)

            def loss(first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
                view = None if name == "SimCSE" or len(rows) < 64 else clusters.step(first, second, generator=draw)
                if view is None:
                    return cluster_negatives_loss(first, second)
                hard, mates = view
                removed = name.endswith("removed")
                return cluster_negatives_loss(
                    first, second, hard_negatives=hard, false_negatives=mates, remove_false_negatives=removed
                )

            return unsupervised_encoder(loss, task, seed=seed, steps=2 if smoke else 120, rate=rate)

        found[f"Spearman, {name}"] = spearman(choose((5e-4,) if smoke else (5e-4, 2e-3), train), *task.test)
    return found


PAPER = Paper(
    number=85,
    claim="Cluster centroids as hard negatives and a band for likely false ones raise mean correlation on sentence "
    "similarity from 76.25 for SimCSE to 77.55.",
    expects=(
        Higher("Spearman, ClusterNS", "Spearman, SimCSE"),
        Higher("Spearman, ClusterNS, mates removed", "Spearman, SimCSE"),
    ),
    data="STS-B English: 3,000 unlabelled training sentences, 1,500 validation pairs, 1,379 test pairs; frozen MiniLM token "
    "vectors, perceptron, 120 steps of 128",
    run=run,
    notes="64 clusters, momentum update at rate 1e-3, band 0 to 0.3 with weight 1e-3; learning rate of each from two on "
    "the validation pairs. 'Mates removed' also takes cluster mates out of the denominator, an option of rivals.",
)
