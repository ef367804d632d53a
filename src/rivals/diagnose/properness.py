"""Does a second-order loss reward the right spread, and does a learner's spread shrink as its data grow?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rivals.diagnose.second_order import Dirichlet, SecondOrder, uncertainty
from rivals.errors import RivalsError
from rivals.progress import track


@dataclass(frozen=True)
class PropernessReport:
    """Which candidate a loss prefers under each truth.

    Args:
        expected: [truths][candidates], the expected loss. minimisers: per truth the candidates that attain the least.
        true_spread: epistemic uncertainty (variance) of every truth; optimal_spread: the range of the minimisers' spreads
            for every truth. depends_on_truth: whether the minimisers differ between truths; False means that the loss
            cannot tell them apart. counterexample: then, two truths of different spread; else None.
    """

    expected: tuple[tuple[float, ...], ...]
    minimisers: tuple[tuple[int, ...], ...]
    true_spread: tuple[float, ...]
    optimal_spread: tuple[tuple[float, float], ...]
    depends_on_truth: bool
    counterexample: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.counterexample is None:
            return "the minimiser follows the truth: no counterexample among these truths"
        one, two = self.counterexample
        low, high = self.optimal_spread[one]
        return (
            f"truths {one} and {two} have spreads {self.true_spread[one]:.4g} and {self.true_spread[two]:.4g}, but the loss "
            f"is least at spreads {low:.4g} to {high:.4g} for both: it does not reward the true spread"
        )


@dataclass(frozen=True)
class EpistemicDecay:
    """Mean epistemic uncertainty (variance) a learner reports for each number of examples it saw.

    `slope` of log uncertainty over log size: near -1 for a Bayesian with independent examples, near 0 for a spread
    that does not come from the data.
    """

    sizes: tuple[int, ...]
    epistemic: tuple[float, ...]
    slope: float

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON values."""
        return asdict(self)


def check_second_order_properness(
    loss: Callable[[SecondOrder, Tensor], Tensor],
    truths: Sequence[SecondOrder],
    candidates: Sequence[SecondOrder],
    *,
    observe: Literal["label", "probabilities"] = "label",
    draws: int = 500,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
) -> PropernessReport:
    """Show whether a loss of second-order predictions rewards the true spread, by truths of one mean and several spreads.

    A truth q* is a distribution over class probabilities: nature draws p from q*, then a label from p. The expected loss of
    a candidate is sum_y t_y loss(q, y), t the mean of q*: nothing else of q* can enter, whatever the loss. So no loss of
    labels is strictly proper, and this check finds the counterexample for any you propose.

    Args:
        loss: (q of one row, targets int[1]) -> [1], or with observe="probabilities" (q, p float[1, K]) -> [1], such as
            `energy_score` of draws from q.
        truths: two or more one-row distributions of equal mean (within 1e-6; 0.05 for `Samples`) and different spread.
        candidates: one-row distributions.
        observe: what the loss sees. "probabilities" takes the mean over `draws` draws of p from each truth.
        tolerance: relative; candidates this near to the least expected loss count as minimisers.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: fewer than two truths, no candidate, more than one row, truths of different means, a loss that is not finite.

    >>> from rivals.diagnose.second_order import second_order_loss
    >>> family = [Dirichlet(torch.full((1, 2), s, dtype=torch.float64)) for s in (0.1, 1.0, 10.0)]
    >>> report = check_second_order_properness(second_order_loss, family, family)
    >>> report.depends_on_truth, report.minimisers
    (False, ((2,), (2,), (2,)))
    """
    if len(truths) < 2 or not candidates:
        raise RivalsError(f"two or more truths and a candidate are needed; got {len(truths)} and {len(candidates)}")
    if observe not in ("label", "probabilities"):
        raise RivalsError(f"observe must be 'label' or 'probabilities'; got {observe!r}")
    means = [q.mean().double() for q in (*truths, *candidates)]
    if any(len(mean) != 1 or mean.shape != means[0].shape for mean in means):
        raise RivalsError("truths and candidates must have one row and the same classes each")
    allowed = 1e-6 if all(isinstance(q, Dirichlet) for q in truths) else 0.05
    if any(bool(((mean - means[0]).abs() > allowed).any()) for mean in means[1 : len(truths)]):
        raise RivalsError("the truths must have the same mean; only their spread may differ")
    rows = []
    for truth in truths:
        outcomes, weights = _outcomes(truth, observe, draws, generator)
        with torch.no_grad():
            rows.append(
                [
                    math.fsum(w * float(loss(q, y)) for y, w in zip(outcomes, weights, strict=True) if w)
                    for q in candidates
                ]
            )
    if not all(math.isfinite(value) for row in rows for value in row):
        raise RivalsError("the loss is not finite for some candidate; leave that one out")
    minimisers = tuple(_least(row, tolerance) for row in rows)
    spread = [float(uncertainty(q, "variance").epistemic) for q in candidates]
    true_spread = tuple(float(uncertainty(q, "variance").epistemic) for q in truths)
    same = [
        (i, j)
        for i in range(len(truths))
        for j in range(i + 1, len(truths))
        if minimisers[i] == minimisers[j] and not math.isclose(true_spread[i], true_spread[j], rel_tol=1e-3)
    ]
    return PropernessReport(
        tuple(map(tuple, rows)),
        minimisers,
        true_spread,
        tuple((min(spread[i] for i in found), max(spread[i] for i in found)) for found in minimisers),
        len(set(minimisers)) > 1,
        same[0] if same and len(set(minimisers)) == 1 else None,
    )


def check_epistemic_decay(fit: Callable[[int], SecondOrder], sizes: Sequence[int]) -> EpistemicDecay:
    """Train on growing samples and see whether the reported epistemic uncertainty falls, as that of an honest learner must.

    Args:
        fit: number of examples -> the trained prediction, for the same examples at every size. sizes: rising, two or more.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: fewer than two sizes, sizes that do not rise from at least 1.

    >>> def bayes(size):
    ...     return Dirichlet(torch.tensor([[1 + 0.3 * size, 1 + 0.7 * size]]))
    >>> round(check_epistemic_decay(bayes, [100, 1000, 10000]).slope, 2)
    -1.0
    """
    if len(sizes) < 2 or sizes[0] < 1 or any(b <= a for a, b in itertools.pairwise(sizes)):
        raise RivalsError(f"sizes must be two or more rising numbers of examples; got {list(sizes)}")
    found = [
        float(uncertainty(fit(size), "variance").epistemic.detach().mean())
        for size in track(list(sizes), "Growing samples")
    ]
    x = [math.log(size) for size in sizes]
    y = [math.log(max(value, 1e-300)) for value in found]
    middle = math.fsum(x) / len(x)
    slope = math.fsum((a - middle) * b for a, b in zip(x, y, strict=True)) / math.fsum((a - middle) ** 2 for a in x)
    return EpistemicDecay(tuple(sizes), tuple(found), slope)


def _outcomes(
    truth: SecondOrder, observe: str, draws: int, generator: torch.Generator | None
) -> tuple[list[Tensor], list[float]]:
    """Return what a loss may see under a truth, and how often."""
    if observe == "label":
        mean = truth.mean().double()[0].tolist()
        return [torch.tensor([y]) for y in range(len(mean))], mean
    if isinstance(truth, Dirichlet):
        seen = truth.draw(draws, generator=generator or torch.Generator().manual_seed(0)).probabilities
    else:
        seen = truth.probabilities
    return list(seen), [1 / len(seen)] * len(seen)


def _least(values: Sequence[float], tolerance: float) -> tuple[int, ...]:
    low = min(values)
    return tuple(i for i, value in enumerate(values) if value <= low + tolerance * max(1.0, abs(low)))
