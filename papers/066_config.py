"""Paper 66: conflict-free updates (ConFIG) against PCGrad and the sum of losses, for a physics-informed network.

The viscous Burgers equation (viscosity 0.05): a small tanh network with three losses: equation, initial values and
edges. Error against the exact solution; the learning rate is chosen by the summed loss on fresh points.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from papers.common.claim import Above, Higher, Paper
from papers.common.data import generator
from papers.common.training import choose
from rivals.losses import combine_gradients, multi_loss_backward

VISCOSITY = 0.05
ARMS = {"sum": "sum", "PCGrad": "pcgrad", "ConFIG": "config"}


def exact(x: Tensor, t: Tensor) -> Tensor:
    """Return the solution for u(x, 0) = -sin(pi x), by Cole and Hopf's integral."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite.hermgauss(80))
    y = x[:, None] - 2 * (VISCOSITY * t[:, None]).sqrt() * nodes
    density = weights * torch.exp(-torch.cos(torch.pi * y) / (2 * torch.pi * VISCOSITY))
    return -(density * torch.sin(torch.pi * y)).sum(1) / density.sum(1)


def network(seed: int) -> nn.Sequential:
    """Return three tanh layers of 24."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Linear(2, 24), nn.Tanh()]
        for _ in range(2):
            layers += [nn.Linear(24, 24), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(24, 1))


def losses(model: nn.Module, draw: torch.Generator) -> list[Tensor]:
    """Return the losses of the equation, the initial values and the edges on fresh points."""
    points = torch.rand(256, 2, generator=draw) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0])
    points.requires_grad_()
    u = model(points)
    first = torch.autograd.grad(u.sum(), points, create_graph=True)[0]
    second = torch.autograd.grad(first[:, 0].sum(), points, create_graph=True)[0][:, 0]
    equation = first[:, 1] + u[:, 0] * first[:, 0] - VISCOSITY * second
    x = torch.rand(64, 1, generator=draw) * 2 - 1
    begin = model(torch.cat([x, torch.zeros_like(x)], 1)) + torch.sin(torch.pi * x)
    t = torch.rand(64, 1, generator=draw)
    edges = torch.cat([model(torch.cat([side * torch.ones_like(t), t], 1)) for side in (-1.0, 1.0)])
    return [part.square().mean() for part in (equation, begin, edges)]


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train with every way to combine the gradients."""
    draw = generator(seed + 1000)
    x, t = torch.rand(2000, generator=draw).double() * 2 - 1, torch.rand(2000, generator=draw).double() * 0.99 + 0.01
    truth, places = exact(x, t), torch.stack([x, t], 1).float()

    def train(rate: float, method: str) -> tuple[float, tuple[float, float]]:
        model, points, steps = network(seed), generator(seed), 5 if smoke else 700
        parameters, least = list(model.parameters()), 1.0
        optimiser = torch.optim.Adam(parameters, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            combiner = partial(combine_gradients, method=method)  # type: ignore[arg-type]
            gradients = multi_loss_backward(losses(model, points), parameters, combiner)
            if step % 10 == 0:
                update = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
                least = min(least, float(torch.cosine_similarity(gradients, update[None], dim=1).min()))
            optimiser.step()
            schedule.step()
        held = -float(sum(losses(model, generator(seed + 2000))).detach())  # type: ignore[union-attr]
        with torch.no_grad():
            error = float(((model(places)[:, 0] - truth) ** 2).mean())
        return held, (error, least)

    figures: dict[str, float] = {}
    for arm, method in ARMS.items():
        error, least = choose((3e-3, 1e-2), lambda rate, method=method: train(rate, method))
        figures |= {f"error {arm}": error, f"log10 error {arm}": float(np.log10(error)), f"least cosine {arm}": least}
    return figures


PAPER = Paper(
    number=66,
    claim="ConFIG's update never opposes a loss and gives physics-informed networks a lower error than sums of losses "
    "and PCGrad.",
    expects=(
        Higher("log10 error sum", "log10 error ConFIG"),
        Higher("log10 error PCGrad", "log10 error ConFIG"),
        Above("least cosine ConFIG"),
        Higher("least cosine ConFIG", "least cosine sum"),
    ),
    data="Burgers' equation with viscosity 0.05, tanh network of 3 x 24, 700 steps of Adam",
    run=run,
    notes="log10 of the mean squared error: 'A > B' says that B's is lower. Cosines of the update before Adam, every 10th step.",
)
