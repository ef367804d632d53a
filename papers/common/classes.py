"""What the scripts on classes and labels share: choosing a setting on validation, and measures of a classifier."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from papers.common.data import Split, folder, generator, sentence_vectors, standardise
from papers.common.training import batches, choose, fit, mlp
from rivals.measures import average_precision, expected_calibration_error, f_score

S = TypeVar("S")
R = TypeVar("R")


def best_model(
    split: Split,
    losses: Sequence[Callable[[Tensor, Tensor], Tensor]],
    measure: Callable[[Tensor, Tensor], float],
    *,
    out: int,
    rates: Sequence[float],
    seed: int,
    steps: int,
    hidden: Sequence[int] = (64,),
    size: int = 64,
) -> nn.Sequential:
    """Train a perceptron with every loss(scores, labels) and learning rate; return the best by validation measure."""
    (x, y), (x_val, y_val), _ = split

    def train(setting: tuple[Callable[[Tensor, Tensor], Tensor], float]) -> tuple[float, nn.Sequential]:
        loss, rate = setting
        model = mlp(x.shape[1], out, hidden=hidden, seed=seed)
        value = fit(
            model,
            lambda rows: loss(model(x[rows]), y[rows]),
            batches(len(x), size, seed=seed),
            steps=steps,
            learning_rate=rate,
            validate=lambda: measure(model(x_val), y_val),
            every=50,
            seed=seed,
        )
        return value or 0.0, model

    return choose(itertools.product(losses, rates), train)


def label_map(scores: Tensor, relevance: Tensor) -> float:
    """Return the mean over labels of average precision, of the labels that have a positive here."""
    kept = relevance.sum(0) > 0
    return float(average_precision(scores.T[kept], relevance.T[kept]).mean())


def macro_f1(scores: Tensor, relevance: Tensor) -> float:
    """Return the mean over labels of F1 at logit 0, of the labels that have a positive here."""
    kept = relevance.sum(0) > 0
    return float(f_score(scores[:, kept], relevance[:, kept], threshold=0.0))


def f1(scores: Tensor, labels: Tensor, threshold: float = 0.0) -> float:
    """Return F1 of scores above a threshold against labels 0 and 1."""
    return float(f_score(scores.view(-1, 1), labels.view(-1, 1), threshold=threshold, average="micro"))


def best_f1_threshold(scores: Tensor, labels: Tensor) -> float:
    """Return the threshold with the highest F1 here: a score above it is a positive."""
    scores = scores.detach()
    order = scores.argsort(descending=True)
    hits = (labels[order] > 0).cumsum(0)
    value = 2 * hits / (torch.arange(1, len(scores) + 1) + hits[-1])
    last = int(value.argmax())
    after = scores[order[last + 1]] if last + 1 < len(scores) else scores[order[last]] - 1
    return float((scores[order[last]] + after) / 2)


def calibration(log_probabilities: Tensor, labels: Tensor, bins: int = 15) -> tuple[float, float]:
    """Return the expected calibration error over equal bins and the gap mean confidence - accuracy."""
    confidence, guess = log_probabilities.exp().max(-1)
    gap = (confidence - (guess == labels).float()).mean()
    return float(expected_calibration_error(log_probabilities, labels, bins=bins)), float(gap)


def intents(seed: int) -> Split:
    """BANKING77 questions as standardised MiniLM vectors, 39 of each of 77 intents, split 60 / 20 / 20 at random."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder("banking77") / "queries.parquet").to_pylist()
    groups: dict[str, list[str]] = {name: [] for name in sorted({row["intent"] for row in rows})}
    for row in rows:
        if len(groups[row["intent"]]) < 39:
            groups[row["intent"]].append(row["text"])
    texts = [text for group in groups.values() for text in group]
    labels = torch.tensor([number for number, group in enumerate(groups.values()) for _ in group])
    vectors = sentence_vectors(texts, "banking77")
    order = torch.randperm(len(labels), generator=generator(seed))
    train, held = len(order) * 6 // 10, len(order) * 2 // 10
    parts = order.split([train, held, len(order) - train - held])
    return standardise(Split(*((vectors[part], labels[part]) for part in parts)))
