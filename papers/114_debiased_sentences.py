"""Paper 114: do masked false negatives and noise negatives improve sentence embeddings learnt without labels?

A small bag-of-words encoder learns from two dropout views of STS sentences, with SimCSE's loss, with false negatives
masked by a complementary model (MiniLM), with adversarial noise as further negatives, and with both.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.data import sentence_vectors
from papers.common.sentences import BagEncoder, draws, sentence_task, spearman, unsupervised_encoder
from papers.common.training import choose
from rivals.losses import adversarial_noise_negatives, debiased_contrastive_loss, false_negative_weights

METHODS = {"SimCSE": (False, False), "masking": (True, False), "noise": (False, True), "both": (True, True)}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return the rank correlation on STS test pairs for every method."""
    task = sentence_task()
    complementary = sentence_vectors(task.texts, "stsb-train") if not smoke else F.one_hot(task.train[:, 0]).float()
    found = {}
    for name, (masks, noisy) in METHODS.items():

        def train(rate: float, masks: bool = masks, noisy: bool = noisy) -> tuple[float, BagEncoder]:
            draw = draws(seed)

            def loss(first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
                weight = noise = None
                if masks:
                    weight = false_negative_weights(complementary[rows], complementary[rows], threshold=0.85)
                if noisy:
                    cosines = F.normalize(first.detach()) @ F.normalize(second.detach()).T
                    noise = adversarial_noise_negatives(first.detach(), cosines, generator=draw)
                return debiased_contrastive_loss(first, second, weight=weight, noise=noise)

            return unsupervised_encoder(loss, task, seed=seed, steps=2 if smoke else 120, rate=rate)

        found[f"Spearman, {name}"] = spearman(choose((5e-4,) if smoke else (5e-4, 2e-3), train), *task.test)
    return found


PAPER = Paper(
    number=114,
    claim="Masking false negatives and adding noise negatives raises BERT-base's mean correlation on sentence similarity "
    "from 76.25 for SimCSE to 77.22.",
    expects=(
        Higher("Spearman, both", "Spearman, SimCSE"),
        Higher("Spearman, masking", "Spearman, SimCSE"),
        Higher("Spearman, noise", "Spearman, SimCSE"),
    ),
    data="STS-B English: 3,000 unlabelled training sentences, 1,500 validation pairs, 1,379 test pairs; frozen MiniLM token "
    "vectors, perceptron, 120 steps of 128",
    run=run,
    notes="The complementary model is a finished MiniLM, much better than the encoder that learns, and the pool holds "
    "both sentences of each pair, so false negatives are frequent. Learning rate of each from two on the validation pairs.",
)
