"""Paper 111: does dropout find more disagreement than retraining at the same loss limit, and how much faster?

A perceptron for loans and re-offending. Models within 0.02 of its validation loss come from frozen dropout (Gaussian,
Bernoulli), from training again with other seeds and lengths, and from pushing single predictions (AWP); all are judged on test.
"""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from papers.common.claim import Above, Higher, Paper
from papers.common.people import NAMES, people
from rivals.diagnose import RashomonSet
from rivals.diagnose.exploration import RashomonSample, rashomon_ensembles, rashomon_of_models, sample_rashomon
from rivals.diagnose.viable_gradient import viable_range_gradient
from rivals.losses import cross_entropy_loss
from rivals.models.images import FeatureEncoder
from rivals.training import LoopConfig, SupervisedObjective, fit

Batch = tuple[Tensor, Tensor]
EPSILON = 0.02
METHODS: tuple[Literal["gaussian", "bernoulli"], ...] = ("gaussian", "bernoulli")


def total_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the sum of losses and the number of people."""
    return cross_entropy_loss(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def probabilities(model: nn.Module, features: Tensor) -> Tensor:
    """Return the probability of each class."""
    return model(features).softmax(1)


def trained(data: Batch, seed: int, epochs: int) -> nn.Module:
    """Train a perceptron."""
    model = FeatureEncoder(data[0].shape[1], 2, hidden=(100,), seed=seed)
    objective = SupervisedObjective(model, [data[0]], [data[1]], cross_entropy_loss, batch_size=64, seed=seed)
    fit(objective, LoopConfig(epochs=epochs, learning_rate=3e-3, evaluations=0, precision="float32", seed=seed))
    return model


def figures(found: RashomonSet, targets: np.ndarray) -> dict[str, float]:
    """Return the measures of disagreement."""
    return {
        "ambiguity": found.ambiguity(),
        "discrepancy": found.discrepancy(),
        "width": float(np.ptp(found.viable_range(targets), axis=1).mean()),
        "capacity (10 people)": float(RashomonSet(found.probabilities[:, :10], baseline=0).capacity().mean()),
    }


def explore(name: str, seed: int, smoke: bool) -> dict[str, float]:
    """Return the figures of one data set."""
    everyone, rng = people(name), np.random.default_rng(seed)
    group = everyone.take(rng.permutation(len(everyone.outcome))[:1000])
    x, y = torch.from_numpy(group.features).float(), torch.from_numpy(group.outcome)
    train, held, test = (slice(0, 600), slice(600, 800), slice(800, 1000))
    base, targets = trained((x[train], y[train]), seed, 2 if smoke else 8), group.outcome[test]
    measured = (total_loss, [(x[held], y[held])], probabilities, [x[test]])
    values: dict[str, float] = {}
    cost: dict[str, float] = {}

    def add(way: str, sample: RashomonSample, started: float) -> None:
        members = len(sample.outputs) - 1
        cost[way] = (time.process_time() - started) / max(members, 1)
        values[f"members {way}"] = float(members)
        values.update({f"{key} {way}": value for key, value in figures(sample.rashomon_set(), targets).items()})

    for method in METHODS:
        started, draw = time.process_time(), torch.Generator().manual_seed(seed)
        sizes = {"rates": 3, "draws": 3} if smoke else {"rates": 21, "draws": 20}
        sample = sample_rashomon(base, *measured, epsilon=EPSILON, method=method, generator=draw, **sizes)
        add(method, sample, started)
        if method == "gaussian":
            dropped, seconds = sample.rashomon_set().viable_range(targets), time.process_time() - started
            for size in (1, 20):
                groups = rashomon_ensembles(sample.outputs, min(size, len(sample.outputs)), 20)
                values[f"ambiguity of ensembles of {size}"] = RashomonSet(groups).ambiguity()
    started = time.process_time()
    lengths = [2] if smoke else [5, 6, 7, 8, 9, 10, 11, 12] * 2
    others = [trained((x[train], y[train]), 1000 * (seed + 1) + i, epochs) for i, epochs in enumerate(lengths)]
    add("retraining", rashomon_of_models([base, *others], *measured, epsilon=EPSILON), started)
    values["log10 times faster than retraining"] = float(np.log10(cost["retraining"] / cost["gaussian"]))
    started, few = time.process_time(), 2 if smoke else 10
    pushed = viable_range_gradient(
        base, total_loss, measured[1], lambda model, rows: model(rows), [x[test][:few]], epsilon=EPSILON,
        optimizer="sgd", max_steps=3 if smoke else 100,
    )  # fmt: skip
    each = (time.process_time() - started) / few
    values["log10 times faster than pushing"] = float(np.log10(each / (seconds / len(targets))))
    values["width pushing (10 people)"] = float((pushed.upper - pushed.lower)[:, 0].mean())
    values["width gaussian (10 people)"] = float(np.ptp(dropped[:few], axis=1).mean())
    return values


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return the figures, means over both data sets."""
    found = [explore(name, seed, smoke) for name in NAMES]
    return {key: float(np.mean([values[key] for values in found])) for key in found[0]}


PAPER = Paper(
    number=111,
    claim="Sampling near-equal models by dropout finds more disagreement than retraining at the same loss limit, and is 20 "
    "to 5,000 times faster.",
    expects=(
        Higher("ambiguity gaussian", "ambiguity retraining"),
        Higher("width gaussian", "width retraining"),
        Higher("ambiguity bernoulli", "ambiguity retraining"),
        Above("log10 times faster than retraining", margin=1.3),
        Above("log10 times faster than pushing", margin=1.3),
        Higher("ambiguity of ensembles of 1", "ambiguity of ensembles of 20"),
    ),
    data="German Credit and COMPAS, 600 / 200 / 200 people of each a seed, perceptron of 100 units, loss limit 0.02",
    run=run,
    notes="Dropout with frozen masks, 21 rates of 20 draws; 16 models trained again with other seeds and 5 to 12 epochs. "
    "Members are chosen on validation people, disagreement is on test people. Faster: processor's seconds a member "
    "(retraining), or a person (pushing, the adversarial search, 10 people); 1.3 stands for 20 times. Nothing is tuned.",
)
