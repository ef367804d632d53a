"""Experts chosen by a known route: one copy of a block per domain, and every text goes through exactly one of them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError


class RoutedExperts(nn.Module):
    """Copies of a block, one per domain; each text of a batch passes, whole, through the copy of its domain.

    out[b] = block_{route[b]}(hidden[b]). No gate, no balancing term: the route is data. Parameters grow with the
    number of experts, the work does not. The copies start equal, so right after conversion the outputs are those of
    the block. An expert without a text in the batch is not called: its gradients stay None and optimisers leave it
    alone.

    Shapes: hidden float[B, T, h], route int64[B] -> float[B, T, h] (whatever the block makes of it).

    Source: Hallee et al. 2024, sentence-enforced mixture of experts (paper 3).

    Raises:
        RivalsError: fewer than one expert; a route missing, of the wrong length or outside 0..num_experts - 1.
        TypeError: a route that does not hold integers.

    >>> experts = RoutedExperts(nn.Linear(3, 3), num_experts=2)
    >>> experts(torch.zeros(4, 5, 3), torch.tensor([0, 1, 1, 0])).shape
    torch.Size([4, 5, 3])
    """

    def __init__(self, block: nn.Module, num_experts: int) -> None:
        super().__init__()
        if num_experts < 1:
            raise RivalsError(f"num_experts must be at least 1; got {num_experts}")
        self.experts = nn.ModuleList([block, *(copy.deepcopy(block) for _ in range(num_experts - 1))])

    def forward(self, hidden: Tensor, route: Tensor | None = None, *more: Tensor) -> Tensor:
        """Send every text through its expert; `route` may be left out only where there is one expert.

        `more` holds further inputs of the block, a row per text.
        """
        if route is None:
            if len(self.experts) > 1:
                raise RivalsError(f"route is missing: {len(self.experts)} experts need one expert number per text")
            return self.experts[0](hidden, *more)
        present = self._check(hidden, route)
        if len(present) == 1:
            return self.experts[present[0]](hidden, *more)
        order = route.argsort(stable=True)
        sizes = torch.bincount(route, minlength=len(self.experts)).tolist()
        parts = list(zip(*(given[order].split(sizes) for given in (hidden, *more)), strict=True))
        outputs = torch.cat([self.experts[expert](*parts[expert]) for expert in present])
        return outputs[order.argsort()]

    def _check(self, hidden: Tensor, route: Tensor) -> list[int]:
        """Return the experts that have a text, rising (the first, if the batch is empty)."""
        if route.is_floating_point() or route.is_complex() or route.dtype == torch.bool:
            raise TypeError(f"route must hold integers, the expert of each text; got {route.dtype}")
        if route.shape != hidden.shape[:1]:
            raise RivalsError(
                f"route must have one entry per text, shape {tuple(hidden.shape[:1])}; got {tuple(route.shape)}"
            )
        present = route.unique().tolist()
        if present and not 0 <= present[0] <= present[-1] < len(self.experts):
            raise RivalsError(f"route must lie in 0..{len(self.experts) - 1}; found {present[0]}..{present[-1]}")
        return present or [0]
