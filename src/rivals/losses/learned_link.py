"""A learnt link from scores to class probabilities: the gradient of a convex potential before the softmax."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_reduction,
    check_rows,
    check_scores,
    reduce_lists,
    spread_rows,
)

__all__ = [
    "ConvexPotentialGradient",
    "InputConvexNetwork",
    "LearnedLink",
    "learned_link_loss",
    "log_softmax_plus",
]

_LEAST_SCALE = 1e-3


def log_softmax_plus(scores: Tensor) -> Tensor:
    """Return log_softmax([s, 0]): log-probabilities of one class more than there are scores, the last one's being 0.

    Shapes: scores float[..., K] -> float[..., K + 1].

    Source: Lam et al. (2023). Paper 33. The reference code subtracts the largest score only, without
    the 0, and overflows when all scores are far below 0; this does not.

    Raises:
        RivalsError: scores that are no floating-point tensor.

    >>> log_softmax_plus(torch.zeros(2)).exp()
    tensor([0.3333, 0.3333, 0.3333])
    """
    check_scores(scores, "scores")
    return F.pad(scores.to(compute_dtype(scores)), (0, 1)).log_softmax(-1)


def learned_link_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    link: LearnedLink,
    weight: Tensor | None = None,
    weight_decay: float = 0.01,
    decayed: Iterable[Tensor] = (),
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of classes under a learnt link, plus the decay of the link's parameters.

    Formula:
        L = mean over the examples of w_n (-log p_n[label]) + (weight_decay / 2) sum of squared parameters,
        log p = log_softmax([g_B(...g_1(s)), 0]); the parameters are the link's and those in `decayed` (of the model
        that made the scores). "sum" adds the same decay; "none" leaves it out.

    Shapes:
        logits float[N, K], labels int[N] in 0..K (K + 1 classes; the last one's score is 0), mask bool[N], weight
        float[N] >= 0 -> scalar, or float[N] with reduction="none".

    When to use:
        Many classes or noisy labels, where the softmax link is a poor fit; recalibration of a fixed classifier, by
        fitting the link alone on held-out scores.

    Relations:
        A link that is the identity: cross entropy with a last logit of 0.

    Source:
        Lam et al. (2023), LegendreTron, and its reference code. Paper 33.

    Raises:
        RivalsError: scores of other than link.num_classes - 1 columns, labels outside 0..K, shapes, dtypes or devices
        that do not fit, a negative weight or weight_decay, an unknown reduction.

    Example:
        >>> import torch
        >>> link = LearnedLink(3, generator=torch.Generator().manual_seed(0))
        >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2, 1])
        >>> bool(learned_link_loss(logits, labels, link=link) > 0)
        True
    """
    check_reduction(reduction)
    check_at_least_zero(weight_decay, "weight_decay")
    check_scores(logits, "logits", ndim=2)
    link.check(logits, "logits")
    wide = F.pad(logits, (0, 1))
    rows = check_rows(wide, labels, mask, weight=weight, name="the classes", classes=True)
    log_p = link(rows.rows[:, :-1]) if len(rows.rows) else rows.rows
    losses = -log_p.gather(1, rows.labels.long().unsqueeze(1)).squeeze(1)
    if rows.weight is not None:
        losses = losses * rows.weight
    loss = reduce_lists(spread_rows(losses, rows.mask), rows.mask, reduction)
    if weight_decay == 0 or reduction == "none":
        return loss
    squares = [parameter.square().sum().to(loss.dtype) for parameter in (*link.parameters(), *decayed)]
    return loss + weight_decay / 2 * torch.stack(squares).sum()


class InputConvexNetwork(nn.Module):
    """A scalar network that is convex in its input: non-negative weights from layer to layer, free ones from the input.

    z_1 = sp(A s + a);  z_{i+1} = [sp(norm(P_i z_i + X_i s)), sp(Y_i s + c_i)];  output norm(P_D z_D + X_D s), with sp
    the softplus, P_i = softplus of its parameter divided by its width, and norm an affine map per feature with positive
    scale, set from the first batch in training mode so that its output has mean 0 and deviation 1.

    Shapes: forward(s float[N, dim]) -> float[N].

    Source: Amos et al. (2017); Huang et al. (2021), convex potential flows; Lam et al. (2023), reference code.
    Paper 33. Whether the norms are set is saved with the module (the reference forgets it).

    Raises:
        RivalsError: dim < 1, a width that is odd or below 2, depth < 1, a first batch of one row.

    >>> network = InputConvexNetwork(2, generator=torch.Generator().manual_seed(0))
    >>> network(torch.zeros(4, 2)).shape
    torch.Size([4])
    """

    def __init__(self, dim: int, *, width: int = 2, depth: int = 4, generator: torch.Generator) -> None:
        super().__init__()
        if dim < 1 or depth < 1:
            raise RivalsError(f"dim and depth must be at least 1; got {dim} and {depth}")
        if width < 2 or width % 2:
            raise RivalsError(f"width must be even and at least 2; got {width}")
        half = width // 2
        self.first = _linear(dim, width, generator)
        self.convex = nn.ModuleList([_linear(width, half, generator) for _ in range(depth - 1)])
        self.convex.append(_linear(width, 1, generator, bias=False))
        self.skip = nn.ModuleList([_linear(dim, half, generator) for _ in range(depth - 1)])
        self.skip.append(_linear(dim, 1, generator, bias=False))
        self.fresh = nn.ModuleList([_linear(dim, half, generator) for _ in range(depth - 1)])
        self.norms = nn.ModuleList([_Norm(half) for _ in range(depth - 1)])
        self.norms.append(_Norm(1))
        self.norms[-1].shift.requires_grad_(False)  # a constant added to the potential changes no gradient

    def forward(self, s: Tensor) -> Tensor:
        """Return the value at every row."""
        z = F.softplus(self.first(s))
        for convex, skip, fresh, norm in zip(self.convex, self.skip, self.fresh, self.norms, strict=False):
            mixed = F.softplus(norm(_non_negative(convex, z) + skip(s)))
            z = torch.cat([mixed, F.softplus(fresh(s))], dim=1)
        return self.norms[-1](_non_negative(self.convex[-1], z) + self.skip[-1](s)).squeeze(1)


class ConvexPotentialGradient(nn.Module):
    """A strictly monotone map R^K -> R^K: the gradient of softplus(w1) N(s) + softplus(w0) |s|^2 / 2, N input-convex.

    Its Jacobian is symmetric and positive definite, and (g(a) - g(b)) . (a - b) >= softplus(w0) |a - b|^2.

    Shapes: forward(s float[N, dim]) -> float[N, dim]. Works under no_grad too; training differentiates twice.

    Source: Huang et al. (2021), convex potential flows; Lam et al. (2023). Paper 33.

    Raises:
        RivalsError: as `InputConvexNetwork`.

    >>> block = ConvexPotentialGradient(2, generator=torch.Generator().manual_seed(0))
    >>> block(torch.eye(2)).shape
    torch.Size([2, 2])
    """

    def __init__(self, dim: int, *, width: int = 2, depth: int = 4, generator: torch.Generator) -> None:
        super().__init__()
        self.w0 = nn.Parameter(torch.randn((), generator=generator))
        self.w1 = nn.Parameter(torch.randn((), generator=generator))
        self.network = InputConvexNetwork(dim, width=width, depth=depth, generator=generator)

    def forward(self, s: Tensor) -> Tensor:
        """Return the gradient of the potential at every row."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            at = s if s.requires_grad else s.detach().requires_grad_()
            potential = F.softplus(self.w1) * self.network(at).sum() + F.softplus(self.w0) * at.square().sum() / 2
            (gradient,) = torch.autograd.grad(potential, at, create_graph=recording)
        return gradient if recording else gradient.detach()


class LearnedLink(nn.Module):
    """Log-probabilities of classes from one score less, through monotone maps that are learnt with the model.

    log p = log_softmax([g_B(...g_1(s)), 0]). One block is exactly the inverse link of a proper canonical loss; a
    composition of several is no gradient in general, but still strictly monotone in each step.

    Shapes: forward(scores float[N, num_classes - 1]) -> float[N, num_classes], in the dtype of the parameters. The
    first batch in training mode sets the norms, so it needs two rows. O(blocks depth width K) a row; use float32 or
    float64.

    Source: Lam et al. (2023), LegendreTron; two blocks of width 2 and depth 4 as in its code. Paper 33.

    Raises:
        RivalsError: fewer than two classes or one block, a width that is odd or below 2, scores of another width, a
        first batch of one row.

    >>> link = LearnedLink(3, generator=torch.Generator().manual_seed(0))
    >>> link(torch.randn(5, 2, generator=torch.Generator().manual_seed(0))).exp().sum(-1)
    tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000], grad_fn=<SumBackward1>)
    """

    def __init__(
        self, num_classes: int, *, width: int = 2, depth: int = 4, blocks: int = 2, generator: torch.Generator
    ) -> None:
        super().__init__()
        if num_classes < 2 or blocks < 1:
            raise RivalsError(f"a link needs two classes and a block; got {num_classes} classes and {blocks} blocks")
        self.num_classes = num_classes
        self.blocks = nn.ModuleList(
            [
                ConvexPotentialGradient(num_classes - 1, width=width, depth=depth, generator=generator)
                for _ in range(blocks)
            ]
        )

    def check(self, scores: Tensor, name: str) -> None:
        """Raise unless there is one score less than classes."""
        if scores.ndim != 2 or scores.shape[1] != self.num_classes - 1:
            raise RivalsError(
                f"{name} must have shape [N, {self.num_classes - 1}], one score less than classes; "
                f"got {tuple(scores.shape)}"
            )

    def forward(self, scores: Tensor) -> Tensor:
        """Return the log-probabilities of every row."""
        check_scores(scores, "scores", ndim=2)
        self.check(scores, "scores")
        z = scores.to(next(self.parameters()).dtype)
        for block in self.blocks:
            z = block(z)
        return log_softmax_plus(z)


class _Norm(nn.Module):
    """u -> (u + shift)(exp(log_scale) + 0.001) per feature, set from the first batch seen in training mode."""

    initialised: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, u: Tensor) -> Tensor:
        if self.training and not self.initialised:
            if len(u) < 2:
                raise RivalsError("the first batch of a learnt link sets its norms and needs at least two rows; got 1")
            with torch.no_grad():
                deviation, mean = torch.std_mean(u, dim=0, correction=0)
                self.shift.copy_(-mean)
                self.log_scale.copy_(-(deviation + 1e-6).log())
                self.initialised.fill_(True)
        return (u + self.shift) * (self.log_scale.exp() + _LEAST_SCALE)


def _non_negative(layer: nn.Module, z: Tensor) -> Tensor:
    """Apply a layer with its weight made positive, weight and bias divided by the width of its input."""
    return F.linear(z, F.softplus(layer.weight), layer.bias) / z.shape[1]  # type: ignore[arg-type]


def _linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer with torch's usual initial spread, drawn from the generator given."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    return layer
