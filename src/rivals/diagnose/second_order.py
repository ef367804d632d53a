"""Distributions over predictions: their losses from labels, and what part of their uncertainty is about the model.

A second-order prediction q is a distribution over class probabilities p: a `Dirichlet`, or `Samples` from an ensemble, dropout
or a Rashomon set. Its mean says how likely each class is, its spread how sure that mean is (epistemic uncertainty). No
loss of observed labels rewards the true spread: `rivals.diagnose.properness` shows it for any loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError

Kind = Literal["inner", "outer"]
Base = Literal["log", "brier"]
Regulariser = Literal["entropy", "kl_uniform"]


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """A Dirichlet distribution over class probabilities for each example.

    Args: alpha: float[N, K] > 0, K >= 2. Large alphas mean little spread. 1 + softplus(z) keeps a network's spread from
    ever exceeding that of the uniform distribution, which biases it: prefer exp or softplus.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: another shape, values that are not finite and above 0.

    >>> Dirichlet(torch.tensor([[1.0, 3.0]])).mean()
    tensor([[0.2500, 0.7500]])
    """

    alpha: Tensor

    def __post_init__(self) -> None:
        if self.alpha.ndim != 2 or self.alpha.shape[1] < 2 or not self.alpha.is_floating_point():
            raise RivalsError(f"alpha must be float[N, K] with two or more classes; got {tuple(self.alpha.shape)}")
        if not bool(((self.alpha > 0) & torch.isfinite(self.alpha)).all()):
            raise RivalsError("alpha must be finite and above 0")

    def mean(self) -> Tensor:
        """Return the expected probabilities, [N, K]."""
        return self.alpha / self.alpha.sum(1, keepdim=True)

    def draw(self, count: int, *, generator: torch.Generator | None = None) -> Samples:
        """Return `count` draws for each example."""
        if count < 1:
            raise RivalsError(f"count is {count}; draw at least 1")
        wide = self.alpha.detach().double().expand(count, *self.alpha.shape).contiguous()
        # A draw of small alphas underflows to 0 in every class now and then; such a row is uniform.
        gamma = torch._standard_gamma(wide, generator=generator).clamp(min=torch.finfo(wide.dtype).tiny)
        return Samples(gamma / gamma.sum(2, keepdim=True))


@dataclass(frozen=True, eq=False)
class Samples:
    """Draws of class probabilities for each example, from the members of an ensemble, say.

    Args: probabilities: float[M, N, K], rows summing to 1 within 1e-5, K >= 2.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: another shape, no member, rows that are no probabilities.

    >>> Samples(torch.tensor([[[0.2, 0.8]], [[0.4, 0.6]]])).mean()
    tensor([[0.3000, 0.7000]])
    """

    probabilities: Tensor

    def __post_init__(self) -> None:
        given = self.probabilities
        if given.ndim != 3 or not len(given) or given.shape[2] < 2 or not given.is_floating_point():
            raise RivalsError(f"probabilities must be float[M, N, K], M >= 1 and K >= 2; got {tuple(given.shape)}")
        if not bool((given >= 0).all()) or bool(((given.sum(2) - 1).abs() > 1e-5).any()):
            raise RivalsError("probabilities must be at least 0 and sum to 1 over the classes")

    def mean(self) -> Tensor:
        """Return the expected probabilities, [N, K]."""
        return self.probabilities.mean(0)


SecondOrder = Dirichlet | Samples


class Uncertainty(NamedTuple):
    """Per example [N]: total = aleatoric (what the classes leave open) + epistemic (what the predictor leaves open)."""

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def second_order_loss(
    q: SecondOrder,
    targets: Tensor,
    *,
    kind: Kind = "inner",
    base: Base = "log",
    regulariser: Regulariser | Dirichlet | None = None,
    strength: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Loss of a distribution over predictions from observed labels: E_q l(p, y), or l(E_q p, y), plus strength R(q).

    With l the log loss -log p_y or the Brier score sum_k (1[k = y] - p_k)^2. For `Dirichlet` in closed form, a0 = sum alpha:
    inner log psi(a0) - psi(alpha_y), outer log log a0 - log alpha_y; inner Brier = outer Brier + sum m_k (1 - m_k) / (a0 + 1).

    None of these identifies the spread: inner is least at no spread at all, so training drives alpha to infinity; outer does not
    depend on it; regularised ones answer to `strength`, not to how much data there was.

    Args:
        q: `Dirichlet` or `Samples` of N examples. targets: int[N].
        kind: "inner" averages losses, "outer" takes the loss of the average.
        regulariser: "entropy" (R = -entropy of q), "kl_uniform" (KL from q to the uniform Dirichlet), or a `Dirichlet` prior
            of 1 or N rows (KL from q to it); only for Dirichlet q. strength: its weight, at least 0.

    Computed in float64, where digamma differences stay exact, and returned in the type of q.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: targets of another shape or out of range, unknown options, a regulariser for `Samples`, a negative strength.

    >>> q = Dirichlet(torch.ones(1, 2))
    >>> [round(float(second_order_loss(q, torch.tensor([0]), kind=k, base=b)), 4) for k in ("inner", "outer") for b in ("log", "brier")]
    [1.0, 0.6667, 0.6931, 0.5]
    """
    if kind not in ("inner", "outer") or base not in ("log", "brier"):
        raise RivalsError(f"kind must be 'inner' or 'outer' and base 'log' or 'brier'; got {kind!r} and {base!r}")
    if reduction not in ("mean", "sum", "none"):
        raise RivalsError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    given = q.alpha if isinstance(q, Dirichlet) else q.probabilities
    rows, classes = given.shape[-2:]
    if targets.shape != (rows,) or targets.is_floating_point():
        raise RivalsError(f"targets must be int[{rows}], a class for each example; got {tuple(targets.shape)}")
    if rows and not bool(((targets >= 0) & (targets < classes)).all()):
        raise RivalsError(f"targets must lie in 0..{classes - 1}")
    if not strength >= 0 or (strength > 0 and regulariser is None):
        raise RivalsError(f"strength is {strength}; it must be at least 0, and goes with a regulariser")
    loss = _dirichlet_loss(q, targets, kind, base) if isinstance(q, Dirichlet) else _sample_loss(q, targets, kind, base)
    if regulariser is not None:
        if not isinstance(q, Dirichlet):
            raise RivalsError("a regulariser needs the density of q, which Samples do not have; give a Dirichlet")
        loss = loss + strength * _regulariser(q, regulariser)
    loss = loss.to(torch.promote_types(given.dtype, torch.float32))
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def uncertainty(q: SecondOrder, measure: Literal["entropy", "variance"] = "entropy") -> Uncertainty:
    """Split the uncertainty of each example into what the classes and what the predictor leave open.

    "entropy": total H(E p), aleatoric E H(p), epistemic their difference, the mutual information. "variance": total
    sum m_k (1 - m_k), aleatoric E sum p_k (1 - p_k), epistemic sum_k Var p_k. All at least 0, float64[N], nats for "entropy".

    When to use: the epistemic part to abstain, or to pick what to label, but see `check_second_order_properness` for how
    little a spread trained on labels means. Members of a Rashomon set: `Samples(torch.from_numpy(sample.outputs))`.

    Source: Bengs, Hüllermeier and Waegeman (2023). Paper 72.

    Raises RivalsError: an unknown measure.

    >>> [round(float(part), 4) for part in uncertainty(Dirichlet(torch.ones(1, 2)))]
    [0.6931, 0.5, 0.1931]
    """
    if measure not in ("entropy", "variance"):
        raise RivalsError(f"measure must be 'entropy' or 'variance'; got {measure!r}")
    mean = q.mean().double()
    if isinstance(q, Dirichlet):
        alpha = q.alpha.double()
        a0, mean = alpha.sum(1), alpha / alpha.sum(1, keepdim=True)
        if measure == "entropy":
            aleatoric = (a0 + 1).digamma() - (mean * (alpha + 1).digamma()).sum(1)
        else:
            aleatoric = a0 / (a0 + 1) * (mean * (1 - mean)).sum(1)
    else:
        p = q.probabilities.double()
        mean = p.mean(0)
        aleatoric = (_entropy(p) if measure == "entropy" else (p * (1 - p)).sum(-1)).mean(0)
    total = _entropy(mean) if measure == "entropy" else (mean * (1 - mean)).sum(1)
    epistemic = (total - aleatoric).clamp(min=0)
    return Uncertainty(total, total - epistemic, epistemic)


def energy_score(samples: Samples, observed: Tensor) -> Tensor:
    """Energy score of a distribution over predictions when the true class probabilities are observed: E|X - p| - E|X - X'| / 2.

    Strictly proper: least on average for the true distribution, spread included. It needs outcomes that are
    probabilities themselves, so it serves simulations, not training on labels.

    Shapes: samples [M, N, K], observed[N, K] -> float64[N]. The second mean is over all pairs of different draws, without
    bias; M = 1 is a point mass. O(M^2 N K).

    Source: Gneiting and Raftery (2007); as the contrast of Paper 72.

    Raises RivalsError: observed of another shape.

    >>> energy_score(Samples(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])), torch.tensor([[1.0, 0.0]]))
    tensor([0.], dtype=torch.float64)
    """
    draws = samples.probabilities.double()
    if observed.shape != draws.shape[1:]:
        raise RivalsError(f"observed must have shape {tuple(draws.shape[1:])}; got {tuple(observed.shape)}")
    count = len(draws)
    away = (draws - observed.double()).norm(dim=2).mean(0)
    rows = draws.transpose(0, 1)
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    return away - apart / (2 * max(count * (count - 1), 1))


def dirichlet_kl(alpha: Tensor, prior: Tensor) -> Tensor:
    """KL divergence from Dirichlet(alpha) to Dirichlet(prior), float64[N], both [N, K] or prior [1, K].

    Source: the regulariser of evidential losses, Paper 72.

    >>> round(float(dirichlet_kl(torch.tensor([[2.0, 2.0]]), torch.ones(1, 2))), 6)
    0.125093
    """
    a, b = alpha.double(), prior.double()
    a0 = a.sum(1)
    gammas = a0.lgamma() - b.sum(1).lgamma() - a.lgamma().sum(1) + b.lgamma().sum(1)
    return gammas + ((a - b) * (a.digamma() - a0.digamma()[:, None])).sum(1)


def _dirichlet_loss(q: Dirichlet, targets: Tensor, kind: Kind, base: Base) -> Tensor:
    alpha = q.alpha.double()
    a0, own = alpha.sum(1), alpha.gather(1, targets[:, None])[:, 0]
    if base == "log":
        return a0.digamma() - own.digamma() if kind == "inner" else a0.log() - own.log()
    mean = alpha / a0[:, None]
    outer = (torch.nn.functional.one_hot(targets, alpha.shape[1]) - mean).square().sum(1)
    return outer + (mean * (1 - mean)).sum(1) / (a0 + 1) if kind == "inner" else outer


def _sample_loss(q: Samples, targets: Tensor, kind: Kind, base: Base) -> Tensor:
    p = q.probabilities.double() if kind == "inner" else q.probabilities.double().mean(0, keepdim=True)
    if base == "log":
        own = p.gather(2, targets[None, :, None].expand(len(p), -1, 1))[..., 0]
        return -own.clamp(min=torch.finfo(own.dtype).tiny).log().mean(0)
    return (torch.nn.functional.one_hot(targets, p.shape[2]) - p).square().sum(2).mean(0)


def _regulariser(q: Dirichlet, kind: Regulariser | Dirichlet) -> Tensor:
    alpha = q.alpha
    if isinstance(kind, Dirichlet):
        if kind.alpha.shape[1] != alpha.shape[1] or len(kind.alpha) not in (1, len(alpha)):
            raise RivalsError(f"the prior must have 1 or {len(alpha)} rows of {alpha.shape[1]} classes")
        return dirichlet_kl(alpha, kind.alpha)
    uniform = torch.ones_like(alpha[:1])
    if kind == "kl_uniform":
        return dirichlet_kl(alpha, uniform)
    if kind == "entropy":  # the density of the uniform Dirichlet is Gamma(K) everywhere
        return dirichlet_kl(alpha, uniform) + torch.lgamma(torch.tensor(float(alpha.shape[1]), dtype=torch.float64))
    raise RivalsError(f"regulariser must be 'entropy', 'kl_uniform', a Dirichlet or None; got {kind!r}")


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)
