"""Paper 72: can a loss of observed labels reward the right spread of a second-order prediction?

First exactly: 12 losses on truths of one mean and three spreads. Then on COMPAS: a Dirichlet fitted to the base rate, and a small
network, both trained with the inner loss on growing samples; an honest spread must fall with their number.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import torch
from torch import Tensor

from papers.common.claim import Above, Higher, Paper
from papers.common.people import People, people
from papers.common.training import batches, fit, mlp
from rivals.diagnose.properness import check_epistemic_decay, check_second_order_properness
from rivals.diagnose.second_order import Dirichlet, energy_score, second_order_loss

SIZES, STRENGTHS = (100, 400, 1600), (0.01, 0.1, 1.0)


def exact(smoke: bool) -> dict[str, float]:
    """Count the losses whose minimiser does not depend on the true spread, and see whether the energy score's does."""
    candidates = [Dirichlet(torch.full((1, 2), s, dtype=torch.float64)) for s in np.logspace(-1, 3, 5 if smoke else 17)]
    truths = [Dirichlet(torch.full((1, 2), s, dtype=torch.float64)) for s in (1.0, 10.0, 100.0)]
    blind = 0
    for kind, base, term in itertools.product(("inner", "outer"), ("log", "brier"), (None, "entropy", "kl_uniform")):
        loss = functools.partial(
            second_order_loss, kind=kind, base=base, regulariser=term, strength=0.1 if term else 0.0
        )
        blind += not check_second_order_properness(loss, truths, candidates).depends_on_truth
    draw = torch.Generator().manual_seed(0)
    drawn = {id(q): q.draw(20 if smoke else 400, generator=draw) for q in candidates}
    seen = check_second_order_properness(
        lambda q, p: energy_score(drawn[id(q)], p),
        truths,
        candidates,
        observe="probabilities",
        draws=20 if smoke else 400,
    )
    return {
        "losses of 12 that cannot see the spread": float(blind),
        "energy score sees it": float(seen.depends_on_truth),
    }


def base_rate(labels: Tensor, strength: float, steps: int) -> Dirichlet:
    """Fit one Dirichlet to labels by the inner log loss and a KL term."""
    raw = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    share = labels.double().mean()
    for _ in range(steps):
        optimiser.zero_grad()
        q = Dirichlet(raw.exp().expand(2, 2))
        each = second_order_loss(
            q, torch.tensor([0, 1]), regulariser="kl_uniform", strength=strength, reduction="none"
        )  # fmt: skip
        (each * torch.stack([1 - share, share])).sum().backward()
        optimiser.step()
    return Dirichlet(raw.detach().exp())


def network(group: People, size: int, seed: int, steps: int) -> Dirichlet:
    """Train a network to a Dirichlet for each of 500 other people."""
    x, y = torch.from_numpy(group.features).float(), torch.from_numpy(group.outcome)
    model = mlp(x.shape[1], 2, hidden=(32,), seed=seed)

    def q(rows: Tensor) -> Dirichlet:
        return Dirichlet(model(x[rows]).clamp(-8, 8).exp())

    def loss(rows: Tensor) -> Tensor:
        return second_order_loss(q(rows), y[rows], regulariser="kl_uniform", strength=0.1)

    fit(model, loss, batches(size, 100, seed=seed), steps=steps, learning_rate=3e-3, weight_decay=1e-3)
    with torch.no_grad():
        return q(torch.arange(len(x) - 500, len(x)))


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return the counts, the slopes of log uncertainty over log size, and how far the strength alone moves alpha's sum."""
    everyone, rng = people("compas"), np.random.default_rng(seed)
    group = everyone.take(rng.permutation(len(everyone.outcome))[: SIZES[-1] + 500])
    labels, sizes = torch.from_numpy(group.outcome), SIZES[:2] if smoke else SIZES
    figures = exact(smoke)
    sums = {}
    for strength in STRENGTHS:

        def fitted(size: int, strength: float = strength) -> Dirichlet:
            return base_rate(labels[:size], strength, 5 if smoke else 400)

        figures[f"slope, one Dirichlet, strength {strength:g}"] = check_epistemic_decay(fitted, sizes).slope
        sums[strength] = float(fitted(sizes[-1]).alpha.sum())
    figures["log10 of alpha's sum, strength 0.01 over 1"] = math.log10(sums[0.01] / sums[1.0])

    def bayes(size: int) -> Dirichlet:
        ones = int(labels[:size].sum())
        return Dirichlet(torch.tensor([[1.0 + size - ones, 1.0 + ones]], dtype=torch.float64))

    figures["slope, Bayesian"] = check_epistemic_decay(bayes, sizes).slope
    trained = check_epistemic_decay(lambda size: network(group, size, seed, 5 if smoke else 400), sizes)
    figures["slope, network"] = trained.slope
    return figures


PAPER = Paper(
    number=72,
    claim="No loss computed from observed labels can reward faithful reporting of epistemic uncertainty by a second-order "
    "predictor.",
    expects=(
        Above("losses of 12 that cannot see the spread", margin=11.5),
        Above("energy score sees it", margin=0.5),
        Higher("slope, one Dirichlet, strength 0.1", "slope, Bayesian", margin=0.5),
        Higher("slope, network", "slope, Bayesian", margin=0.5),
        Above("log10 of alpha's sum, strength 0.01 over 1", margin=math.log10(3)),
    ),
    data="exact for Dirichlets of two classes; COMPAS, samples of 100, 400 and 1,600 people, 500 others, perceptron of 32 units",
    run=run,
    notes="A theorem: the first figure cannot vary, and only illustrates it. The slope is that of log epistemic uncertainty "
    "(variance) over log sample size: -1 for a Bayesian, 0 where the spread is set by the regulariser. 400 steps of 100 "
    "people for every size; exp gives alpha.",
)
