"""Combining the gradients of several losses into one update: conflict-free directions, surgery, least norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses._common import check_choice, check_finite, check_positive, check_scores, check_shape
from rivals.losses._gradients import (
    Length,
    Method,
    coefficients_of,
    flat,
    inner_products,
    linear_combination,
    unflat,
)

__all__ = [
    "ConflictReport",
    "GradientCombiner",
    "MomentumConFIG",
    "align_gradients",
    "combination_coefficients",
    "combine_gradients",
    "conflict_report",
    "multi_loss_backward",
    "project_out",
]

Scope = Literal["shared", "all"]

GradientCombiner = Callable[[Tensor], Tensor]
"""Anything that turns the gradients [m, N] of m losses into one update [N]; bind options with functools.partial."""


def combine_gradients(
    gradients: Tensor, method: Method = "config", *, weights: Tensor | None = None, length: Length | int = "projection"
) -> Tensor:
    """Return one update from the gradients of m losses; subtract a multiple of it, or write it into `.grad`.

    - "config": d = pinv(U) w over the unit gradients U, so that the update's cosine to gradient i is proportional to
      w_i (equal and positive by default), with the length sum_i g_i . d / |d|.
    - "sum", "mean": the weighted sum or mean.
    - "pcgrad": from each gradient subtract its conflicting component along each other one in order (no shuffling), then
      add up.
    - "imtl_g": the affine combination whose projections on all gradients are equal.
    - "mgda": the point of least norm in the convex hull of the gradients.

    `length` of "config": g_i in that sum is replaced by its unit vector times the "minimum", "maximum", "harmonic",
    "arithmetic" or "geometric" mean of the norms, or the norm of gradient number `length`. Opposite gradients have no
    common direction and give zeros. A zero gradient is left out. With dependent gradients or m > N the cosines differ.

    Shapes: gradients float[m, N], weights float[m] > 0 ("config", "sum", "mean") -> float[N], in the gradients' dtype.
    O(m^2 N). For a model too large for m flat gradients: `combination_coefficients` needs their inner products only.

    Source: Liu, Chu and Thuerey (2024), ConFIG, and its code; Yu et al. (2020), PCGrad; Liu et al. (2021), IMTL-G;
    Desideri (2012) and Sener and Koltun (2018), MGDA. Paper 66.

    Raises:
        RivalsError: gradients that are not [m, N] with m >= 1 or not finite, weights of another shape or not above 0,
        or with a method that takes none, an unknown method or length.

    >>> combine_gradients(torch.tensor([[1.0, 0.0], [-1.0, 2.0]]))
    tensor([0.8944, 1.4472])
    """
    check_scores(gradients, "gradients", ndim=2)
    if len(gradients) == 0:
        raise RivalsError("gradients must hold at least one row, the gradient of a loss; got none")
    with torch.no_grad():
        products = inner_products(gradients)
        return linear_combination(combination_coefficients(products, method, weights=weights, length=length), gradients)


def combination_coefficients(
    products: Tensor, method: Method = "config", *, weights: Tensor | None = None, length: Length | int = "projection"
) -> Tensor:
    """Return the coefficients a of the combined update sum_i a_i g_i from the inner products g_i . g_j alone.

    Every method of `combine_gradients` is linear in the gradients with coefficients that depend on their products only,
    so products can be added up parameter by parameter and no flat gradient is needed.

    Shapes: products float[m, m], weights float[m] > 0 -> float64[m].

    Source: as `combine_gradients`. Paper 66.

    Raises:
        RivalsError: products that are not square or not finite, and as `combine_gradients`.

    >>> combination_coefficients(torch.tensor([[1.0, -1.0], [-1.0, 5.0]]))
    tensor([1.6180, 0.7236], dtype=torch.float64)
    """
    check_scores(products, "products", ndim=2)
    check_shape(products, (len(products), len(products)), "products", products.device)
    products = products.detach().double()
    if not bool(torch.isfinite(products).all()):
        raise RivalsError("gradients must be finite; one of them holds NaN or infinity, or overflows when squared")
    return coefficients_of(products, method, weights, length)


def project_out(vectors: Tensor, reference: Tensor, *, only_conflicts: bool = False, floor: float = 0.0) -> Tensor:
    """Return vectors without their component along a reference: x - (x . r / max(|r|^2, floor)) r.

    With `only_conflicts` a vector is changed only where its product with the reference is negative (the one-sided
    projection of gradient surgery). A reference of 0 changes nothing. Products are taken in float32 or wider.

    Shapes: vectors float[..., N], reference float[..., N], broadcast -> float[..., N] in the dtype of `vectors`.

    Source: Armandpour et al. (2023), Perp-Neg (floor 1e-6); Yu et al. (2020); Yang et al. (2025). Papers 74, 101, 66.

    Raises:
        RivalsError: vectors or reference that are no floating-point tensors, last dimensions that differ, floor < 0.

    >>> project_out(torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 0.0]))
    tensor([0., 1.])
    """
    check_scores(vectors, "vectors")
    check_scores(reference, "reference")
    if vectors.shape[-1] != reference.shape[-1]:
        raise RivalsError(
            f"vectors and reference must have the same last dimension; got {vectors.shape[-1]} and "
            f"{reference.shape[-1]}"
        )
    if floor < 0:
        raise RivalsError(f"floor must be at least 0; got {floor!r}")
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    x, r = vectors.to(dtype), reference.to(dtype)
    square, product = r.square().sum(-1, keepdim=True), (x * r).sum(-1, keepdim=True)
    nothing = square == 0
    share = product / square.masked_fill(nothing, 1.0).clamp(min=floor)
    unchanged = nothing | (product >= 0) if only_conflicts else nothing
    return (x - share.masked_fill(unchanged, 0.0) * r).to(vectors.dtype)


def align_gradients(
    main: Mapping[str, Tensor], auxiliary: Mapping[str, Tensor], *, scope: Scope = "shared"
) -> dict[str, Tensor]:
    """Add the gradients of an auxiliary loss to those of the main one, without what in them opposes the main one.

    If the product of the two is negative, the auxiliary gradient loses its component along the main one; the main one
    stays. scope="shared" looks at the parameters that both have; "all" takes whole vectors, with zeros where one has no
    gradient, so that on conflict a head of the main loss gets a larger gradient although nothing opposes it.

    Shapes: mappings from parameter names to gradients -> one mapping with the names of both.

    Source: Yang et al. (2025), dual-head knowledge distillation; its code uses "all". Paper 101.

    Raises:
        RivalsError: a parameter whose gradients differ in shape, gradients that are not finite, an unknown scope.

    >>> align_gradients({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-1.0, 1.0])})
    {'w': tensor([1., 1.])}
    """
    check_choice(scope, get_args(Scope), "scope")
    for name, gradient in (*main.items(), *auxiliary.items()):
        check_scores(gradient, f"the gradient of {name}", ndim=gradient.ndim)
        check_finite(gradient, f"the gradient of {name}")
    names = [*main, *(name for name in auxiliary if name not in main)]
    both = [name for name in names if name in main and name in auxiliary]
    for name in both:
        check_shape(auxiliary[name], tuple(main[name].shape), f"the gradient of {name}", main[name].device)
    merged = {name: (main[name] if name in main else auxiliary[name]).clone() for name in names}
    considered = names if scope == "all" else both
    if considered:
        like = [merged[name] for name in considered]
        first = flat([main.get(n, torch.zeros_like(merged[n])) for n in considered])
        second = flat([auxiliary.get(n, torch.zeros_like(merged[n])) for n in considered])
        merged |= dict(
            zip(considered, unflat(first + project_out(second, first, only_conflicts=True), like), strict=True)
        )
    return merged


class MomentumConFIG(nn.Module):
    """ConFIG on the running means of gradients, with Adam's scaling: one loss's gradient a step is enough.

    m_i = b1 m_i + (1 - b1) grad for the losses given, u = ConFIG of m_i / (1 - b1^{t_i}); then Adam's second moment of
    the gradient that would have made u the bias-corrected mean scales it: u / (sqrt(s / (1 - b2^t)) + eps). Zeros until
    every loss has been seen once. Use plain SGD on what it returns. The state is saved with the module.

    Shapes: step(index, gradient float[N]) or step([i, j], gradients float[2, N]) -> float[N].

    Source: Liu, Chu and Thuerey (2024), M-ConFIG; its code with one second moment. Paper 66.

    Raises:
        RivalsError: num_losses or size < 1, betas outside [0, 1), eps <= 0, an index outside 0..num_losses - 1 or given
        twice, gradients of another shape or not finite.

    >>> momentum = MomentumConFIG(2, 3)
    >>> momentum.step(0, torch.ones(3)), momentum.step(1, torch.ones(3))
    (tensor([0., 0., 0.]), tensor([1., 1., 1.]))
    """

    first: Tensor
    counts: Tensor
    combined: Tensor
    second: Tensor
    steps: Tensor

    def __init__(
        self,
        num_losses: int,
        size: int,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weights: Tensor | None = None,
        length: Length | int = "projection",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if num_losses < 1 or size < 1:
            raise RivalsError(f"num_losses and size must be at least 1; got {num_losses} and {size}")
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise RivalsError(f"{name} must lie in [0, 1); got {beta!r}")
        check_positive(eps, "eps")
        self.beta1, self.beta2, self.eps, self.weights, self.length = beta1, beta2, eps, weights, length
        self.register_buffer("first", torch.zeros(num_losses, size, dtype=dtype))
        self.register_buffer("counts", torch.zeros(num_losses, dtype=torch.int64))
        self.register_buffer("combined", torch.zeros(size, dtype=dtype))
        self.register_buffer("second", torch.zeros(size, dtype=dtype))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def step(self, index: int | Sequence[int], gradient: Tensor) -> Tensor:
        """Take in the gradients of the losses named and return the update."""
        indices = [index] if isinstance(index, int) else list(index)
        rows = gradient.unsqueeze(0) if isinstance(index, int) else gradient
        if len(set(indices)) != len(indices) or not all(0 <= i < len(self.first) for i in indices):
            raise RivalsError(f"index must name losses in 0..{len(self.first) - 1}, each once; got {index}")
        check_shape(rows, (len(indices), self.first.shape[1]), "gradient", self.first.device)
        check_finite(rows, "gradient")
        self.counts[indices] += 1
        self.first[indices] = self.beta1 * self.first[indices] + (1 - self.beta1) * rows.to(self.first.dtype)
        if not bool(self.counts.all()):
            return torch.zeros_like(self.second)
        self.steps += 1
        time = int(self.steps)
        unbiased = self.first / (1 - self.beta1 ** self.counts.to(self.first.dtype)).unsqueeze(1)
        update = combine_gradients(unbiased, weights=self.weights, length=self.length)
        moment = update * (1 - self.beta1**time)
        implied = (moment - self.beta1 * self.combined) / (1 - self.beta1)
        self.combined.copy_(moment)
        self.second.mul_(self.beta2).add_((1 - self.beta2) * implied.square())
        return update / ((self.second / (1 - self.beta2**time)).sqrt() + self.eps)


def multi_loss_backward(
    losses: Sequence[Tensor], parameters: Iterable[nn.Parameter], combiner: GradientCombiner = combine_gradients
) -> Tensor:
    """Write into `.grad` of the parameters the combination of the gradients of several losses; return those, [m, N].

    Give the parameters that the losses share: what only one loss reaches should keep its own gradient. `.grad` is
    replaced, not added to. Clip afterwards, not before.

    Source: Liu, Chu and Thuerey (2024). Paper 66.

    Raises:
        RivalsError: no loss, no parameter, a loss that is not a single number, and what the combiner raises.

    >>> w = nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> _ = multi_loss_backward([w[0] ** 2, -w[0] + 2 * w[1]], [w])
    >>> w.grad
    tensor([1.1708, 1.8944])
    """
    chosen = list(parameters)
    if not losses or not chosen:
        raise RivalsError("multi_loss_backward needs at least one loss and one parameter")
    rows = []
    for place, loss in enumerate(losses):
        if loss.numel() != 1:
            raise RivalsError(f"loss {place} must be a single number; got shape {tuple(loss.shape)}")
        found = torch.autograd.grad(loss, chosen, retain_graph=place + 1 < len(losses), allow_unused=True)
        rows.append(flat([torch.zeros_like(p) if g is None else g for g, p in zip(found, chosen, strict=True)]))
    gradients = torch.stack(rows)
    for parameter, gradient in zip(chosen, unflat(combiner(gradients), chosen), strict=True):
        parameter.grad = gradient.detach().clone()
    return gradients


class ConflictReport(NamedTuple):
    """How much gradients oppose one another: cosines [m, m], the share of pairs below 0, cosines [m] to the update."""

    cosines: Tensor
    conflicting: float
    with_update: Tensor


def conflict_report(gradients: Tensor, update: Tensor | None = None) -> ConflictReport:
    """Return the cosines between gradients and to an update (by default that of `combine_gradients`); NaN with a zero.

    Shapes: gradients float[m, N], update float[N] -> see `ConflictReport`.

    Source: Liu, Chu and Thuerey (2024). Paper 66.

    Raises:
        RivalsError: gradients or update of other shapes, or not finite.

    >>> conflict_report(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))[1]
    0.3333333333333333
    """
    combined = combine_gradients(gradients) if update is None else update
    check_scores(gradients, "gradients", ndim=2)
    check_shape(combined, (gradients.shape[1],), "update", gradients.device)
    wide, towards = gradients.detach().double(), combined.detach().double()
    norms = wide.norm(dim=1)
    cosines = wide @ wide.T / norms.outer(norms)
    above = cosines.triu(1)[torch.ones_like(cosines, dtype=torch.bool).triu(1)]
    known = above[~above.isnan()]
    share = float((known < 0).double().mean()) if len(known) else 0.0
    return ConflictReport(cosines, share, wide @ towards / (norms * towards.norm()))
