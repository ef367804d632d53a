"""Paper 58: forking the training into mixtures of tasks and merging the weights by validation (ForkMerge).

Digits with 150 labelled images; auxiliary tasks on 700 others: parity and top-bottom balance (related), random labels and
the digits of shuffled pixels (not). One network of two shared layers and a head a task, by the target alone, by the sum
of all losses, and by ForkMerge of the target with none, one and three auxiliaries.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import digits, generator
from rivals.losses import cross_entropy_loss
from rivals.models.images import FeatureEncoder
from rivals.training import LoopConfig, MultiTaskObjective, SupervisedObjective, fit
from rivals.training.forking import fork_merge, rank_auxiliaries, task_mixtures

RATES = (3e-3, 1e-2)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train the three, learning rates by validation."""
    (x, y), (x_val, y_val), (x_test, y_test) = digits(seed)
    draw = generator(seed + 100)
    order = torch.randperm(len(x), generator=draw)
    own, other = order[:150], order[150:850]
    shuffle = torch.randperm(64, generator=draw)
    images = x[other].view(-1, 8, 8)
    heavy_top = images[:, :4].sum((1, 2)) > images[:, 4:].sum((1, 2))
    aims = {
        "target": (x[own], y[own], 10),
        "related": (x[other], y[other] % 2 * 2 + heavy_top.long(), 4),
        "random": (x[other], torch.randint(10, (700,), generator=draw), 10),
        "shuffled": (x[other][:, shuffle], y[other], 10),
    }
    shared = FeatureEncoder(64, 64, hidden=(64,), seed=seed)
    heads = nn.ModuleDict({name: FeatureEncoder(64, aim[2], hidden=(), seed=seed + 1) for name, aim in aims.items()})
    net = nn.ModuleDict({"shared": shared, "heads": heads})
    start = copy.deepcopy(net.state_dict())

    def accuracy(inputs: Tensor, labels: Tensor) -> float:
        with torch.no_grad():
            return float((heads["target"](shared(inputs).relu()).argmax(1) == labels).float().mean())

    tasks = {
        name: SupervisedObjective(
            nn.Sequential(shared, nn.ReLU(), heads[name]),
            [inputs],
            [labels],
            cross_entropy_loss,
            batch_size=50,
            validate=lambda: accuracy(x_val, y_val),
            seed=seed,
        )
        for name, (inputs, labels, _) in aims.items()
    }
    steps, period = (14, 2) if smoke else (420, 10)
    figures: dict[str, float] = {}
    for arm in ("target alone", "sum of all", "ForkMerge"):
        found = []
        for rate in RATES[:1] if smoke else RATES:
            net.load_state_dict(start)
            config = LoopConfig(
                epochs=10**6 if arm == "target alone" else steps // 14,
                max_steps=steps if arm == "target alone" else 0,
                learning_rate=rate,
                evaluations=period,
                checkpoint_seconds=0 if smoke else 1e6,
                precision="float32",
                seed=seed,
            )
            more = {}
            if arm == "ForkMerge":
                one = LoopConfig(epochs=1, learning_rate=rate, evaluations=1, precision="float32", seed=seed)
                ranked = rank_auxiliaries(net, tasks, one, targets=["target"], steps=14)
                branches = task_mixtures(
                    net, tasks, targets=["target"], auxiliaries=list(ranked), top_k=(0, 1, 3), steps=14, seed=seed
                )
                merges = fork_merge(branches, config, merges=period)
                score = merges[-1].score
                more = {
                    f"mean share, {name}": sum(m.coefficients[name] for m in merges) / len(merges) for name in branches
                }
                more["related ranked first"] = float(next(iter(ranked)) == "related")
            else:
                names = list(aims) if arm == "sum of all" else ["target"]
                objective = MultiTaskObjective(net, {name: tasks[name] for name in names}, main=["target"], seed=seed)
                score = fit(objective, config).best_score or 0.0
            net.eval()
            found.append((score, accuracy(x_test, y_test), more))
        _, figures[f"accuracy {arm}"], more = max(found, key=lambda entry: entry[0])
        figures |= more
    return figures


PAPER = Paper(
    number=58,
    claim="Periodically merging copies trained on different task mixes beats equal and gradient-based weighting and does "
    "not fall below the target alone.",
    expects=(
        Higher("accuracy ForkMerge", "accuracy sum of all"),
        Higher("accuracy ForkMerge", "accuracy target alone", margin=-0.005),
        Higher("mean share, top 1", "mean share, top 3"),
    ),
    data="digits: 150 labelled images for the target, 700 others for three auxiliary tasks, two shared layers of 64, 420 "
    "steps a branch, 10 merges; learning rate and best weights by 359 validation images",
    run=run,
    notes="ForkMerge trains three branches, so three times as long as the others, and its merges are fitted to the "
    "validation images, which also choose the others' best weights. Gradient-based weighting was not run beside it.",
)
