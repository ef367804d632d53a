"""Several processes training one model: who am I, gathering with gradients, summing gradients.

Start with `torchrun --nproc-per-node N`; in a plain process everything here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process's place among the training processes: `rank` in 0..size-1."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, items: list[Any]) -> list[Any]:
        """Return this process's contiguous share of a batch; shares join to the whole in rank order.

        >>> World(1, 2).share([1, 2, 3])
        [2, 3]
        """
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def join_world() -> World:
    """Join the processes that torchrun started (gloo on CPUs, nccl on GPUs); alone without torchrun."""
    if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


class _Gather(torch.autograd.Function):
    """Concatenate every process's rows; backward returns to each process the sum of all gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        longest = max(sizes)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)  # others may hold the tensor autograd gave
        dist.all_reduce(gradient)
        start = sum(ctx.sizes[: ctx.rank])
        return gradient[start : start + ctx.sizes[ctx.rank]], None, None


def gather(rows: Tensor, world: World) -> Tensor:
    """Return the rows of all processes in rank order, [sum of sizes, ...], differentiable.

    With every process's loss being the sum over its own queries divided by the number of all queries, summing gradients over
    processes (`sum_gradients`) gives exactly the gradient of the one-process loss on the joined batch.
    """
    if world.size == 1:
        return rows
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(world.size)]
    dist.all_gather(sizes, size)
    lengths = [int(s) for s in sizes]
    if rows.requires_grad:
        return _Gather.apply(rows, lengths, world.rank)  # type: ignore[no-any-return]
    with torch.no_grad():
        return _Gather.apply(rows, lengths, world.rank)  # type: ignore[no-any-return]


def sum_gradients(parameters: Iterable[torch.nn.Parameter], world: World) -> None:
    """Add the gradients of all processes, in place, in one message; a parameter that has none anywhere keeps none."""
    if world.size == 1:
        return
    wanted = [p for p in parameters if p.requires_grad]
    if not wanted:
        return
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in wanted]
    there = torch.tensor([p.grad is not None for p in wanted], dtype=parts[0].dtype, device=parts[0].device)
    flat = torch.cat([*parts, there])
    dist.all_reduce(flat)
    start = 0
    for p, count in zip(wanted, flat[-len(wanted) :].tolist(), strict=True):
        p.grad = flat[start : start + p.numel()].view_as(p).to(p.dtype) if count else None
        start += p.numel()
