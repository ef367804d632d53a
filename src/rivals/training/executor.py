"""Executors: how the gradient of one batch's loss is made, in one piece or in chunks of constant memory.

An objective whose loss meets the model only through vectors says so by having `parts` and `joined` beside `loss`. Then any executor
may run it, and all give the same gradient: the batch is as large as the loss needs, memory is that of one part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError

Vectors = tuple[Tensor, ...]


@runtime_checkable
class Separable(Protocol):
    """An objective whose loss needs the model only through the vectors of its parts."""

    @property
    def model(self) -> nn.Module:
        """The model, trained in place."""
        ...

    def parts(self, batch: Any) -> Sequence[Callable[[], Vectors]]:
        """Return one function per chunk of the batch; each encodes its chunk and returns its tensors."""
        ...

    def joined(self, batch: Any, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the scalar loss of the batch from what its parts gave, in their order."""
        ...


class Executor(Protocol):
    """Fills the gradients of one batch."""

    def backward(self, objective: Any, batch: Any, generator: torch.Generator, scale: float) -> float:
        """Add the gradient of `scale` times the batch's loss to the parameters; return that scaled loss."""
        ...


class Plain:
    """One forward and one backward pass over the whole batch."""

    def backward(self, objective: Any, batch: Any, generator: torch.Generator, scale: float) -> float:
        """See `Executor`."""
        loss = objective.loss(batch, generator) * scale
        loss.backward()
        return float(loss.detach())

    def __repr__(self) -> str:
        return "plain"


class CachedGradients:
    """The exact gradient of a large batch in the memory of its largest part, for one more forward pass.

    All parts are encoded without a graph; the loss of their vectors gives the gradient of each vector; every part is encoded again,
    now with its graph and with the random numbers it drew before, and takes its share of that gradient. Use it where the batch that
    the loss should see does not fit; how the batch is cut is the objective's matter (`chunk_tokens` of a retriever).

    Source: Gao et al. 2021, Scaling deep contrastive learning batch size under memory limited setup (paper 52).

    Raises:
        RivalsError: the objective's loss is not made of parts, or a layer with batch statistics is training, whose vectors depend on
            what else is in the part.
    """

    def backward(self, objective: Any, batch: Any, generator: torch.Generator, scale: float) -> float:
        """See `Executor`."""
        if not isinstance(objective, Separable):
            raise RivalsError(
                f"the gradient cache needs an objective with `parts` and `joined`; {type(objective).__name__} computes its "
                "loss in one piece. Train it with the plain executor"
            )
        check_batch_statistics(objective.model)
        return float(cached_backward(objective.parts(batch), lambda v: objective.joined(batch, v, generator) * scale))

    def __repr__(self) -> str:
        return "cached"


def cached_backward(parts: Sequence[Callable[[], Vectors]], loss: Callable[[list[Vectors]], Tensor]) -> Tensor:
    """Add the gradient of `loss([part() for part in parts])` to the parameters, one part's graph in memory at a time.

    The random numbers that parts draw from torch's own generators are drawn once and repeated; afterwards these generators stand
    where one pass leaves them. Returns the loss without graph.

    Source: paper 52, steps 1 to 3.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> rows = torch.tensor([[1., 0.], [0., 1.], [1., 1.]])
    >>> value = cached_backward([lambda r=r: (layer(r[None]),) for r in rows], lambda v: torch.cat([x for x, in v]).square().sum())
    >>> whole = layer(rows).square().sum()
    >>> bool(value == whole.detach()), torch.allclose(layer.weight.grad, torch.autograd.grad(whole, layer.weight)[0])
    (True, True)
    """
    value, second_pass = _first_pass(parts, loss)
    second_pass(None)
    return value


def cached_loss(parts: Sequence[Callable[[], Vectors]], loss: Callable[[list[Vectors]], Tensor]) -> Tensor:
    """Return the loss of `cached_backward` with a graph: its `backward()` encodes the parts again and fills the gradients.

    For training loops that call `backward` themselves, on a loss that they may have scaled: sentence-transformers' trainer,
    Lightning, `accelerate`. Call it once; what it holds until then is the vectors and their gradients.

    Source: paper 52.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> (cached_loss([lambda: (layer(torch.eye(2)),)], lambda v: v[0][0].square().sum()) / 2).backward()
    >>> torch.allclose(layer.weight.grad, layer.weight.detach())
    True
    """
    value, second_pass = _first_pass(parts, loss)
    start = torch.zeros((), device=value.device, dtype=value.dtype, requires_grad=True)
    found: Tensor = _Deferred.apply(start, value, second_pass)
    return found


class _Deferred(torch.autograd.Function):
    """A number whose backward pass is a function of its own."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, value: Tensor, second_pass: Callable[[Tensor | None], None]) -> Tensor:
        kind = value.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.second_pass = second_pass
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, None, None]:
        kind, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
            ctx.second_pass(grads[0])
        return None, None, None


def _first_pass(
    parts: Sequence[Callable[[], Vectors]], loss: Callable[[list[Vectors]], Tensor]
) -> tuple[Tensor, Callable[[Tensor | None], None]]:
    """Return the loss without graph, and what encodes again and fills the gradients, times a factor if one is given."""
    states, held = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state())
            held.append(tuple(tensor.detach() for tensor in part()))
    for vectors in held:
        for tensor in vectors:
            if tensor.is_floating_point():
                if not bool(torch.isfinite(tensor).all()):
                    raise RivalsError(
                        "the encoder gave a vector that is not finite; lower the learning rate or look at the data"
                    )
                tensor.requires_grad_()
    with torch.enable_grad():
        value = loss(held)
    if value.ndim != 0 or not value.requires_grad:
        raise RivalsError("the loss of the parts must be one number that depends on their vectors")
    value.backward()
    after = _random_state()

    def second_pass(factor: Tensor | None) -> None:
        for part, state, vectors in zip(parts, states, held, strict=True):
            shares = [tensor.grad for tensor in vectors]
            if all(share is None for share in shares):
                continue
            _set_random_state(state)
            again = part()
            wanted = [
                (made, share if factor is None else share * factor)
                for made, share in zip(again, shares, strict=True)
                if share is not None and made.requires_grad
            ]
            if wanted:
                torch.autograd.backward([made for made, _ in wanted], [share.to(made.dtype) for made, share in wanted])
        _set_random_state(after)

    return value.detach(), second_pass


class GradientCache:
    """`cached_backward` for towers called by hand: `step(*inputs, **constants)` fills gradients and returns the loss.

    Args:
        models: one encoder per input (the same module may stand twice: tied towers).
        loss: `loss(*vectors, **constants) -> scalar`; constants (masks, targets, weights) are not cut into chunks.
        chunk: rows per part, one number or one per model.
        split: cuts an input into parts of so many rows; by default tensors, and dicts, lists or tuples of tensors, are cut along
            their first dimension. A dict is passed to its model as keyword arguments, a list or tuple as positional ones.
        allow_batch_statistics: let layers such as BatchNorm train although their statistics are then those of the parts.
        scaler: a `torch.amp.GradScaler`, whose scale is put on the loss, so that gradients come scaled as usual.

    Source: paper 52.

    Raises:
        RivalsError: chunk below 1, as many inputs as models missing, parts of an input of different length, a loss that is no scalar
            or does not depend on the vectors, batch statistics, vectors that are not finite.

    >>> tower = nn.Linear(2, 2)
    >>> cache = GradientCache([tower, tower], lambda a, b: (a @ b.T).logsumexp(1).mean(), chunk=2)
    >>> loss = cache.step(torch.eye(2).repeat(3, 1), torch.eye(2))
    >>> loss.requires_grad, tower.weight.grad.shape
    (False, torch.Size([2, 2]))
    """

    def __init__(
        self,
        models: Sequence[Callable[..., Tensor]],
        loss: Callable[..., Tensor],
        *,
        chunk: int | Sequence[int] = 32,
        split: Callable[[Any, int], Sequence[Any]] | None = None,
        allow_batch_statistics: bool = False,
        scaler: Any = None,
    ) -> None:
        sizes = [chunk] * len(models) if isinstance(chunk, int) else list(chunk)
        if len(sizes) != len(models) or any(size < 1 for size in sizes):
            raise RivalsError(
                f"chunk must be 1 or more, one number or one per model, not {chunk!r} for {len(models)} models"
            )
        for model in models:
            if isinstance(model, nn.Module) and not allow_batch_statistics:
                check_batch_statistics(model)
        self.models, self.loss, self.sizes = list(models), loss, sizes
        self.split, self.scaler = split or split_rows, scaler

    def step(self, *inputs: Any, **constants: Any) -> Tensor:
        """Fill the gradients of one batch, given one input per model; return its loss without graph."""
        if len(inputs) != len(self.models):
            raise RivalsError(f"{len(inputs)} inputs for {len(self.models)} models; give one per model")
        parts, owner = [], []
        for number, (model, given, size) in enumerate(zip(self.models, inputs, self.sizes, strict=True)):
            for piece in self.split(given, size):
                parts.append(lambda model=model, piece=piece: (_called(model, piece),))
                owner.append(number)

        def whole(vectors: list[Vectors]) -> Tensor:
            towers = [
                torch.cat([v for (v,), of in zip(vectors, owner, strict=True) if of == n])
                for n in range(len(self.models))
            ]
            value = self.loss(*towers, **constants)
            return value if self.scaler is None else self.scaler.scale(value)

        value = cached_backward(parts, whole)
        return value if self.scaler is None else value / self.scaler.get_scale()


def split_rows(given: Any, size: int) -> list[Any]:
    """Cut a tensor, or the tensors of a dict, list or tuple, into parts of `size` rows; the last may be smaller.

    >>> [part["x"].tolist() for part in split_rows({"x": torch.arange(3)}, 2)]
    [[0, 1], [2]]
    """
    if isinstance(given, Tensor):
        return list(given.split(size))
    if isinstance(given, Mapping):
        cut = [split_rows(value, size) for value in given.values()]
        _check_lengths([len(value) for value in given.values()])
        return [dict(zip(given, row, strict=True)) for row in zip(*cut, strict=True)]
    if isinstance(given, list | tuple):
        _check_lengths([len(value) for value in given])
        return [type(given)(row) for row in zip(*(split_rows(value, size) for value in given), strict=True)]
    raise RivalsError(f"an input of type {type(given).__name__} cannot be cut into rows; give split=")


def check_batch_statistics(model: nn.Module) -> None:
    """Raise a RivalsError if a layer of the model would take statistics over its part of the batch.

    >>> check_batch_statistics(nn.Linear(1, 1))
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training and layer.track_running_stats:
            raise RivalsError(
                f"layer '{name}' ({type(layer).__name__}) takes statistics over its batch, which the gradient cache cuts into parts; "
                "freeze it with .eval(), or use another normalisation"
            )


def _check_lengths(lengths: list[int]) -> None:
    if len(set(lengths)) > 1:
        raise RivalsError(f"the tensors of one input must have as many rows each, not {', '.join(map(str, lengths))}")


def _called(model: Callable[..., Tensor], piece: Any) -> Tensor:
    if isinstance(piece, Mapping):
        return model(**piece)
    return model(*piece) if isinstance(piece, list | tuple) else model(piece)


def _random_state() -> list[Any]:
    state: list[Any] = [torch.get_rng_state()]
    if torch.cuda.is_available():
        state.append(torch.cuda.get_rng_state_all())
    return state


def _set_random_state(state: list[Any]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1])
