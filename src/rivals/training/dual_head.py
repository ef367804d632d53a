"""Training two heads on one backbone: labels for the main one, a teacher's logits for the other, their gradients aligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import align_gradients, logit_distance_loss, softmax_loss
from rivals.models.dual_head import DualHead
from rivals.training.executor import Vectors
from rivals.training.supervised import RowBatch, SupervisedObjective


class DualHeadObjective(SupervisedObjective):
    """gamma times a loss of the main head's scores and labels, plus alpha times one of the auxiliary head's and a teacher's logits.

    Args:
        model: the two heads. inputs: tensors with a row per example. targets: what the main loss takes after the scores.
        teacher: the teacher's logits, float[N, outputs]; they get no gradient.
        main_loss: any loss on scores. auxiliary_loss: of scores and the teacher's; by default BinaryKL-Norm at temperature 2, of which
            `binary_kl_loss` is the plain form.
        gamma, alpha: the paper's 1 and 1 (0.1 with a thousand classes, as the auxiliary loss sums over them).
        options: further arguments by name as in `SupervisedObjective`.

    Run it with `AlignedGradients` to take out of the auxiliary gradient what opposes the main one.

    Source: Yang et al. (2025), dual-head knowledge distillation (paper 101).

    Raises:
        RivalsError: weights below 0, logits that are not finite or of another shape.
    """

    model: DualHead

    def __init__(
        self,
        model: DualHead,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        teacher: Tensor,
        *,
        main_loss: Callable[..., Tensor] = softmax_loss,
        auxiliary_loss: Callable[[Tensor, Tensor], Tensor] = logit_distance_loss,
        gamma: float = 1.0,
        alpha: float = 1.0,
        validate: Callable[[], float] | None = None,
        batch_size: int = 64,
        drop_last: bool = False,
        chunk: int = 32,
        seed: int = 0,
    ) -> None:
        if not (gamma >= 0 and alpha >= 0):
            raise RivalsError(f"gamma and alpha must be 0 or more, not {gamma} and {alpha}")
        outputs = model.options["outputs"]
        if teacher.ndim != 2 or teacher.shape[1] != outputs or not bool(torch.isfinite(teacher).all()):
            raise RivalsError(f"teacher must hold finite logits [N, {outputs}]; got shape {tuple(teacher.shape)}")
        super().__init__(
            model,
            inputs,
            [*targets, teacher.detach()],
            main_loss,
            validate=validate,
            batch_size=batch_size,
            drop_last=drop_last,
            chunk=chunk,
            seed=seed,
        )
        self._auxiliary_loss, self.gamma, self.alpha = auxiliary_loss, gamma, alpha
        self.options |= {"gamma": gamma, "alpha": alpha}

    def task_losses(self, batch: RowBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return both losses of a batch, weighted."""
        return self._both(self.model(*self._rows(batch)), batch)

    def loss(self, batch: RowBatch, generator: torch.Generator) -> Tensor:
        """Return the sum of both losses."""
        return sum(self.task_losses(batch, generator).values(), torch.zeros(()))

    def parts(self, batch: RowBatch) -> list[Callable[[], Vectors]]:
        """Return what sends each chunk of rows through the model: (main, auxiliary)."""
        inputs = self._rows(batch)

        def send(start: int) -> Vectors:
            return tuple(self.model(*(tensor[start : start + self.chunk] for tensor in inputs)))

        return [partial(send, start) for start in range(0, len(inputs[0]), self.chunk)]

    def joined(self, batch: RowBatch, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the sum of both losses from the chunks' scores."""
        scores = tuple(torch.cat(column) for column in zip(*vectors, strict=True))
        return sum(self._both(scores, batch).values(), torch.zeros(()))

    def _both(self, scores: tuple[Tensor, ...], batch: RowBatch) -> dict[str, Tensor]:
        main, auxiliary = scores
        rows = torch.from_numpy(batch.rows)
        *targets, teacher = (target[rows].to(main.device) for target in self.targets)
        return {
            "main": self.gamma * self._loss(main, *targets),
            "auxiliary": self.alpha * self._auxiliary_loss(auxiliary, teacher),
        }


class AlignedGradients:
    """An executor that takes out of one loss's gradient what opposes the other's, and leaves the other as it is.

    Args:
        scope: "shared" looks at the parameters both losses reach; "all" at all of them, as the paper's code does.

    The objective's `task_losses` holds "main" and "auxiliary".

    Source: Yang et al. (2025), dual-head knowledge distillation (paper 101); `align_gradients` says how.

    Raises:
        RivalsError: an objective without these two losses, an unknown scope.
    """

    def __init__(self, scope: Literal["shared", "all"] = "shared") -> None:
        if scope not in ("shared", "all"):
            raise RivalsError(f"scope is {scope!r}; use 'shared' or 'all'")
        self.scope: Literal["shared", "all"] = scope

    def backward(self, objective: Any, batch: Any, generator: torch.Generator, scale: float) -> float:
        """See `rivals.training.executor.Executor`."""
        losses = objective.task_losses(batch, generator) if hasattr(objective, "task_losses") else {}
        if set(losses) != {"main", "auxiliary"}:
            raise RivalsError(
                f"aligning gradients needs a main and an auxiliary loss; {type(objective).__name__} has {sorted(losses) or 'one'}"
            )
        wanted = {name: p for name, p in objective.model.named_parameters() if p.requires_grad}
        found = []
        for place, name in enumerate(("main", "auxiliary")):
            gradients = torch.autograd.grad(
                losses[name] * scale, list(wanted.values()), retain_graph=place == 0, allow_unused=True
            )
            found.append({n: g for n, g in zip(wanted, gradients, strict=True) if g is not None})
        for name, gradient in align_gradients(*found, scope=self.scope).items():
            parameter = wanted[name]
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return float((losses["main"].detach() + losses["auxiliary"].detach()) * scale)

    def __repr__(self) -> str:
        return f"aligned over {self.scope} parameters"


__all__ = ["AlignedGradients", "DualHeadObjective"]
