"""Paper 12: does training on the hardest triplets collapse in large batches and in few dimensions?

A small perceptron on Omniglot drawings is trained with batch-hard triplets on raw Euclidean distances; afterwards the
mean distance of 400 drawings says whether everything has been mapped to one point. Semi-hard mining is run beside it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from papers.common.claim import Above, Higher, Paper
from papers.common.data import generator
from papers.common.drawings import drawings
from papers.common.training import class_batches, fit, mlp
from rivals.diagnose import collapse_report
from rivals.losses import in_batch_triplet_loss

SMALL, LARGE = 4, 32


def spread(
    train: tuple[Tensor, Tensor],
    seed: int,
    *,
    classes: int,
    width: int,
    steps: int,
    mining: Literal["hard", "semihard"] = "hard",
) -> float:
    """Return log10 of the mean distance of 400 drawings after training."""
    pictures, labels = train[0].flatten(1), train[1]
    net = mlp(pictures.shape[1], width, hidden=(128,), seed=seed)
    fit(
        net,
        lambda rows: in_batch_triplet_loss(net(pictures[rows]), labels[rows], margin=0.2, mining=mining),
        class_batches(labels, classes=classes, each=5, seed=seed),
        steps=steps,
    )
    with torch.no_grad():
        vectors = net(pictures[torch.randperm(len(pictures), generator=generator(seed))[:400]])
    return math.log10(max(collapse_report(vectors).mean_distance, 1e-6))


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return log10 of the mean distance for each batch size and width."""
    train, steps = drawings(seed).train, 2 if smoke else 200
    found = {
        f"log10 distance, {classes} classes a batch, width {width}": spread(
            train, seed, classes=classes, width=width, steps=steps
        )
        for classes in (SMALL, LARGE)
        for width in (64, 2)
    }
    cure = spread(train, seed, classes=LARGE, width=64, steps=steps, mining="semihard")
    return {**found, f"log10 distance, {LARGE} classes a batch, width 64, semi-hard": cure}


PAPER = Paper(
    number=12,
    claim="Batch-hard triplet training minimises a Hausdorff-like distance to the ideal embeddings, which predicts "
    "collapse to one point for large batches and few dimensions.",
    expects=(
        Higher(
            "log10 distance, 4 classes a batch, width 64", "log10 distance, 32 classes a batch, width 64", margin=1.0
        ),
        Higher("log10 distance, 4 classes a batch, width 64", "log10 distance, 4 classes a batch, width 2", margin=1.0),
        Higher(
            "log10 distance, 32 classes a batch, width 64, semi-hard",
            "log10 distance, 32 classes a batch, width 64",
            margin=1.0,
        ),
        Above("log10 distance, 32 classes a batch, width 64, semi-hard", margin=-1.0),
    ),
    data="Omniglot 21 x 21, 109 characters, perceptron 441-128-2 or 64, margin 0.2, batches of 4 or 32 characters with "
    "5 drawings, 200 steps",
    run=run,
    notes="Collapse is counted as a mean distance ten times smaller; below 1e-6 (three seeds: exactly 0) it is taken as "
    "1e-6, a floor set after a first run had 1e-12. Learning rate 1e-3 throughout: the claim is about "
    "what this training does, so nothing is chosen. The equality of the gap and the distance is a unit test of rivals.",
)
