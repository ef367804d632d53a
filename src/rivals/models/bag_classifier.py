"""Classifiers of bags: one score for a bag of instances (a document's passages, a query's candidates), by six poolings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError

Pool = Literal["instance-max", "embedding-max", "mean", "attention", "noisy-or", "multi-concept-max"]


class BagClassifier(nn.Module):
    """bags[N, L, D], mask[N, L] -> logits[N]: a perceptron on every instance, then a pooling. Padding never counts.

    - instance-max: the largest instance score. Right where one positive instance makes the bag positive.
    - noisy-or: P = 1 - prod (1 - sigmoid(score)); the same assumption, smooth.
    - multi-concept-max: `concepts` scores an instance, the largest of each through a sigmoid, then weights of at least 0.
      Right where several kinds of instance must be present.
    - embedding-max, mean, attention: pool the vectors, then a linear layer. They can learn that a bag is positive
      because something is absent, see `rivals.diagnose.unit_tests`.

    The first three never fall when an instance is added.

    Source: max, mean: Wang et al. 2018; attention: Ilse, Tomczak and Welling 2018; noisy-or: Maron and Lozano-Pérez
    1998; their failures: Raff and Holt 2023 (arXiv 2310.17867). Paper 88.

    Raises:
        RivalsError: unknown pool, sizes below 1; when called: shapes that do not fit, an empty bag.

    >>> model = BagClassifier(2, "instance-max", seed=0)
    >>> model(torch.zeros(3, 4, 2), torch.ones(3, 4, dtype=torch.bool)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        width: int,
        pool: Pool = "instance-max",
        *,
        hidden: Sequence[int] = (64, 64),
        concepts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pool not in get_args(Pool):
            raise RivalsError(f"pool is '{pool}'; it can be {', '.join(get_args(Pool))}")
        if width < 1 or not hidden or min(hidden) < 1 or concepts < 1:
            raise RivalsError(f"width {width}, hidden {tuple(hidden)} and concepts {concepts} must be at least 1")
        self.pool = pool
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = [width, *hidden]
            layers: list[nn.Module] = []
            for before, after in itertools.pairwise(sizes):
                layers += [nn.Linear(before, after), nn.ReLU()]
            self.instance = nn.Sequential(*layers)
            self.head = nn.Linear(hidden[-1], concepts if pool == "multi-concept-max" else 1)
            self.attend = (
                nn.Sequential(nn.Linear(hidden[-1], 64), nn.Tanh(), nn.Linear(64, 1)) if pool == "attention" else None
            )
            self.combine = (
                nn.ParameterList(
                    [nn.Parameter(torch.full((concepts,), 4.0)), nn.Parameter(torch.tensor(-2.0 * concepts))]
                )
                if pool == "multi-concept-max"
                else None
            )

    def forward(self, bags: Tensor, mask: Tensor) -> Tensor:
        """Return a logit a bag."""
        if bags.dim() != 3 or mask.shape != bags.shape[:2]:
            raise RivalsError(f"give bags [N, L, D] and mask [N, L], not {tuple(bags.shape)} and {tuple(mask.shape)}")
        if not mask.any(dim=1).all():
            raise RivalsError(f"bag {int((~mask.any(dim=1)).nonzero()[0, 0])} is empty; every bag needs an instance")
        vectors, there = self.instance(bags), mask.unsqueeze(-1)
        if self.pool == "mean":
            return self.head((vectors * there).sum(1) / there.sum(1)).squeeze(-1)
        if self.pool == "embedding-max":
            return self.head(vectors.masked_fill(~there, -torch.inf).amax(1)).squeeze(-1)
        if self.attend is not None:
            share = self.attend(vectors).masked_fill(~there, -torch.inf).softmax(1)
            return self.head((share * vectors).sum(1)).squeeze(-1)
        scores = self.head(vectors).masked_fill(~there, -torch.inf)
        if self.combine is not None:
            weights, bias = self.combine
            return torch.sigmoid(scores.amax(1)) @ nn.functional.softplus(weights) + bias
        if self.pool == "instance-max":
            return scores.amax(1).squeeze(-1)
        absent = nn.functional.softplus(scores).sum(1).squeeze(-1).clamp(min=1e-12)  # -log of prod (1 - sigmoid)
        return absent + torch.log(-torch.expm1(-absent))
