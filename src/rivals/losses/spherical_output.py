"""A linear output layer with very many outputs, trained on a spherical loss at a cost that does not depend on them."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, check_choice, check_positive, check_scores
from rivals.losses.spherical import SphericalKind, spherical_loss

__all__ = ["SphericalOutput"]


class SphericalOutput(nn.Module):
    """Linear output layer W [D, d] that learns by exact plain SGD from target columns only.

    Formula: a spherical loss needs of the logits o = W h only the targets' entries, q = |o|^2 = h' W'W h and
    s = sum(o) = h' W'1. The layer keeps W = V U + 1 omega', the d x d matrix W'W and the vector W'1. An SGD step
    multiplies W by a d x d matrix, adds a vector to every row and changes the target rows: the first two go into U and
    omega, the last into the rows of V. One step costs O(M d^2), whatever D is.

    `layer(hidden, targets)` returns the loss. **Calling backward on it also performs the layer's own SGD step**, in
    training mode, with the learning rate `lr` on the gradient that arrives; the layer has no parameters for an
    optimiser, and its learning rate follows the reduction ("mean" divides it by the batch). In eval mode backward only
    gives the gradient of `hidden`. Every `stabilize_every` steps the singular values of U outside [0.5, 2] are moved
    into V. float64 is safest; float32 wants the stabilisation.

    Shapes: hidden float[M, d], targets int64[M] or int64[M, K] (several target columns a row: their mean)
    -> scalar loss, or float[M] with reduction="none".

    Source: Vincent, de Brebisson and Bouthillier (2015), with the reference code's offset omega;
    de Brebisson and Vincent (2016). Paper 38.

    Raises:
        RivalsError: fewer than two outputs or no dimension, lr <= 0, stabilize_every < 1, an unknown kind, hidden or
        targets of other shapes, targets outside 0..D - 1.

    >>> layer = SphericalOutput(3, 100, lr=0.1, generator=torch.Generator().manual_seed(0))
    >>> hidden = torch.ones(2, 3, requires_grad=True)
    >>> layer(hidden, torch.tensor([5, 70])).backward()
    >>> hidden.grad.shape, layer.weight().shape
    (torch.Size([2, 3]), torch.Size([100, 3]))
    """

    V: Tensor
    U: Tensor
    inverse: Tensor
    omega: Tensor
    gram: Tensor
    row_sum: Tensor
    steps: Tensor

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        lr: float,
        generator: torch.Generator,
        kind: SphericalKind = "z",
        sharpness: float = 1.0,
        location: float = 0.0,
        stabilize_every: int = 100,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_positive(lr, "lr")
        check_choice(kind, get_args(SphericalKind), "kind")
        if dim < 1 or num_outputs < 2:
            raise RivalsError(
                f"a layer needs at least one dimension and two outputs; got {dim} and {num_outputs} outputs"
            )
        if stabilize_every < 1:
            raise RivalsError(f"stabilize_every must be at least 1; got {stabilize_every}")
        self.lr, self.kind, self.sharpness, self.location = lr, kind, sharpness, location
        self.stabilize_every = stabilize_every
        for name in ("V", "U", "inverse", "omega", "gram", "row_sum"):
            self.register_buffer(name, torch.empty(0, dtype=dtype))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.set_weight(torch.randn(num_outputs, dim, generator=generator, dtype=dtype) / dim**0.5)

    def set_weight(self, weight: Tensor) -> None:
        """Start again from the weight [D, d]."""
        check_scores(weight, "weight", ndim=2)
        with torch.no_grad():
            self._restart(weight.detach().to(self.V).clone())

    def weight(self) -> Tensor:
        """Return W [D, d], written out."""
        return self.V @ self.U + self.omega

    def logits(self, hidden: Tensor) -> Tensor:
        """Return W h of every row, [M, D], without gradient for the layer; for evaluation."""
        hidden = hidden.to(self.U.dtype)
        return (hidden @ self.U.T) @ self.V.T + (hidden @ self.omega).unsqueeze(-1)

    def statistics(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (target logits [M, K], sums of squared logits [M], sums of logits [M]), differentiable.

        Backward through them takes the SGD step.
        """
        check_scores(hidden, "hidden", ndim=2)
        if hidden.shape[1] != len(self.U):
            raise RivalsError(f"hidden must have shape [M, {len(self.U)}]; got {tuple(hidden.shape)}")
        if targets.ndim not in (1, 2) or len(targets) != len(hidden) or targets.is_floating_point():
            raise RivalsError(
                f"targets must be whole numbers of shape [{len(hidden)}] or [{len(hidden)}, K]; "
                f"got {targets.dtype} of shape {tuple(targets.shape)}"
            )
        if targets.numel() and targets.device.type == "cpu":
            lowest, highest = torch.aminmax(targets)
            if lowest < 0 or highest >= len(self.V):
                raise RivalsError(f"targets must lie in 0..{len(self.V) - 1}; found {int(lowest)} to {int(highest)}")
        columns = targets if targets.ndim == 2 else targets.unsqueeze(1)
        target, squared_total, total = _Statistics.apply(hidden.to(self.U.dtype), columns, self)
        return target, squared_total, total

    def forward(self, hidden: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Return the loss; its backward also takes the layer's SGD step."""
        target, squared_total, total = self.statistics(hidden, targets)
        return spherical_loss(
            target,
            total,
            squared_total,
            num_outputs=len(self.V),
            kind=self.kind,
            sharpness=self.sharpness,
            location=self.location,
            reduction=reduction,
        )

    def _measure(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = (self.V[targets] @ (hidden @ self.U.T).unsqueeze(-1)).squeeze(-1)
        squared_total = (hidden * (hidden @ self.gram)).sum(-1)
        return chosen + (hidden @ self.omega).unsqueeze(-1), squared_total, hidden @ self.row_sum

    def _hidden_gradient(self, hidden: Tensor, targets: Tensor, g: _Incoming) -> tuple[Tensor, Tensor]:
        """Return the gradient of hidden, and the part of it that does not come through q."""
        rows = (g.target.unsqueeze(-1) * self.V[targets]).sum(1) @ self.U
        rows = rows + g.target.sum(1, keepdim=True) * self.omega + g.total.unsqueeze(-1) * self.row_sum
        return 2 * g.squared_total.unsqueeze(-1) * (hidden @ self.gram) + rows, rows

    def _step(self, hidden: Tensor, targets: Tensor, g: _Incoming, gradient: Tensor, rows: Tensor) -> None:
        lr, outputs = self.lr, len(self.V)
        doubled, summed = 2 * g.squared_total.unsqueeze(-1), g.target.sum(1)
        # W'W: the change of the logits of one row times that of another, over all outputs
        spread = (hidden @ self.gram) @ hidden.T
        same = (targets[:, None, :, None] == targets[None, :, None, :]).to(g.target.dtype)
        cross = torch.einsum("ik,jl,ijkl->ij", g.target, g.target, same)
        mixed = torch.outer(g.total, summed) + doubled * (hidden @ rows.T)
        change = doubled * spread * doubled.T + outputs * torch.outer(g.total, g.total) + cross + mixed + mixed.T
        moved = gradient.T @ hidden
        self.gram += lr**2 * hidden.T @ change @ hidden - lr * (moved + moved.T)
        level = doubled.squeeze(-1) * (hidden @ self.row_sum) + outputs * g.total + summed
        self.row_sum -= lr * hidden.T @ level
        self.omega -= lr * hidden.T @ (doubled.squeeze(-1) * (hidden @ self.omega) + g.total)
        # U <- U (I - A H) and its inverse by the matrix inversion lemma; then the target rows of V
        left = lr * (doubled * hidden).T
        if len(hidden) < len(self.U):
            core = torch.eye(len(hidden), dtype=hidden.dtype, device=hidden.device) - hidden @ left
            self.inverse += left @ torch.linalg.solve(core, hidden @ self.inverse)
            self.U -= (self.U @ left) @ hidden
        else:
            self.U -= (self.U @ left) @ hidden
            self.inverse.copy_(torch.linalg.inv(self.U))
        towards = (hidden @ self.inverse).unsqueeze(1) * g.target.unsqueeze(-1)
        self.V.index_add_(0, targets.flatten(), towards.flatten(0, 1), alpha=-lr)
        self.steps += 1
        if int(self.steps) % self.stabilize_every == 0:
            self._stabilize()

    def _stabilize(self) -> None:
        """Move the singular values of U outside [0.5, 2] into V; when they are many, multiply everything out."""
        left, values, _ = torch.linalg.svd(self.U)
        outside = (values < 0.5) | (values > 2)
        count = int(outside.sum())
        if 3 * count > len(values):
            self._restart(self.weight())
        elif count:
            left, surplus = left[:, outside], values[outside] - 1
            self.V += ((self.V @ left) * surplus) @ left.T
            shrink = (left * (surplus / (surplus + 1))) @ left.T
            self.U -= shrink @ self.U
            self.inverse.copy_(torch.linalg.inv(self.U))

    def _restart(self, weight: Tensor) -> None:
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        self.V, self.U, self.inverse = weight, identity, identity.clone()
        self.omega = weight.new_zeros(weight.shape[1])
        self.gram, self.row_sum = weight.T @ weight, weight.sum(0)


class _Incoming:
    """The gradients that arrive at (target logits, squared sums, sums)."""

    def __init__(self, target: Tensor, squared_total: Tensor, total: Tensor) -> None:
        self.target, self.squared_total, self.total = target, squared_total, total


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, layer: SphericalOutput) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(hidden, targets)
        ctx.layer = layer
        return layer._measure(hidden, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, target: Tensor, squared_total: Tensor, total: Tensor) -> tuple[Tensor, None, None]:
        hidden, targets = ctx.saved_tensors
        layer: SphericalOutput = ctx.layer
        incoming = _Incoming(target, squared_total, total)
        gradient, rows = layer._hidden_gradient(hidden, targets, incoming)
        if layer.training:
            layer._step(hidden, targets, incoming, gradient, rows)
        return gradient, None, None
