"""Paper 101: a second head for the distillation of logits, against one head for both losses.

Digits; a large perceptron teaches a small one by the distance of logits beside cross entropy. SGD as in the paper,
learning rate chosen by validation accuracy for every arm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import digits
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import align_gradients, binary_kl_loss, cross_entropy_loss, logit_distance_loss

ARMS = {
    "cross entropy": (None, False, False),
    "single head, BinaryKL": (binary_kl_loss, False, False),
    "single head, Norm": (logit_distance_loss, False, False),
    "dual head, Norm": (logit_distance_loss, True, False),
    "dual head, Norm, aligned": (logit_distance_loss, True, True),
}


class Student(nn.Module):
    """Two small layers and one or two linear heads."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.trunk = mlp(64, 16, hidden=(16,), seed=seed)
        self.head, self.second = mlp(16, 10, hidden=(), seed=seed), mlp(16, 10, hidden=(), seed=seed + 1)

    def forward(self, x: Tensor, *, dual: bool = False) -> tuple[Tensor, Tensor]:
        """Return the logits of the class and those compared with the teacher's."""
        inner = torch.relu(self.trunk(x))
        logits = self.head(inner)
        return logits, self.second(inner) if dual else logits


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train the teacher, then every student."""
    (x, y), (x_val, y_val), (x_test, y_test) = digits(seed)
    teacher = mlp(64, 10, hidden=(256,), seed=seed)
    steps = 5 if smoke else 500
    fit(teacher, lambda r: cross_entropy_loss(teacher(x[r]), y[r]), batches(len(x), 64, seed=seed), steps=steps)
    with torch.no_grad():
        taught = teacher(x)
        figures = {"accuracy teacher": float((teacher(x_test).argmax(1) == y_test).float().mean())}
    for arm, (distill, dual, aligned) in ARMS.items():

        def train(rate: float, distill=distill, dual=dual, aligned=aligned) -> tuple[float, float]:  # type: ignore[no-untyped-def]
            model = Student(seed)
            optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [steps * 6 // 5, steps * 8 // 5], gamma=0.1)
            names = dict(model.named_parameters())
            rows = batches(len(x), 64, seed=seed)
            for _ in range(2 * steps):
                chosen = next(rows)
                logits, compared = model(x[chosen], dual=dual)
                first = cross_entropy_loss(logits, y[chosen])
                second = distill(compared, taught[chosen]) if distill else torch.zeros((), requires_grad=True)
                optimiser.zero_grad()
                if aligned:
                    both = []
                    for loss in (first, second):
                        found = torch.autograd.grad(loss, list(names.values()), retain_graph=True, allow_unused=True)
                        both.append({n: g for n, g in zip(names, found, strict=True) if g is not None})
                    for name, gradient in align_gradients(both[0], both[1]).items():
                        names[name].grad = gradient
                else:
                    (first + second).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                schedule.step()
            with torch.no_grad():
                return tuple(
                    float((model(a)[0].argmax(1) == b).float().mean()) for a, b in ((x_val, y_val), (x_test, y_test))
                )  # type: ignore[return-value]

        figures[f"accuracy {arm}"] = choose((0.02, 0.05, 0.1), train)
    return figures


PAPER = Paper(
    number=101,
    claim="Distilling logits through a head of its own clearly beats both losses on one head, and is slightly above "
    "other distillers (CIFAR-100).",
    expects=(
        Higher("accuracy dual head, Norm", "accuracy single head, Norm"),
        Higher("accuracy dual head, Norm", "accuracy cross entropy"),
        Higher("accuracy dual head, Norm, aligned", "accuracy dual head, Norm"),
        Higher("accuracy cross entropy", "accuracy single head, Norm"),
    ),
    data="digits, student 16-16, teacher 256, 1000 steps of SGD",
    run=run,
    notes="Norm: the binary KL divergence of normalised logits, weight 1, temperature 2.",
)
