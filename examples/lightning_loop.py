"""A Lightning-style module: `training_step` returns a loss, the framework calls `backward` and steps the optimiser.

    python examples/lightning_loop.py  # prints how often the own document wins, before and after

`cached_loss` makes that loss over the whole batch while no more than `chunk` rows are in memory with their graph. `Loop` stands
for `lightning.Trainer(precision=..., accumulate_grad_batches=...)`, which would do the same three things with this module.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rivals.losses import in_batch_info_nce_loss
from rivals.training import cached_loss


class TwoTowers(nn.Module):
    """Maps queries and documents into one space; dropout draws the same numbers in both passes."""

    def __init__(self, width: int = 8, chunk: int = 16) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(width, 32), nn.Dropout(0.1), nn.Linear(32, 16))
        self.document = nn.Sequential(nn.Linear(width, 32), nn.Dropout(0.1), nn.Linear(32, 16))
        self.chunk = chunk

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int = 0) -> Tensor:
        """Return the loss of a batch of pairs; the framework calls `backward` on it."""
        queries, documents = batch
        asked = [lambda rows=rows: (self.query(rows),) for rows in queries.split(self.chunk)]
        told = [lambda rows=rows: (self.document(rows),) for rows in documents.split(self.chunk)]

        def whole(vectors: list[tuple[Tensor, ...]]) -> Tensor:
            rows = torch.cat([chunk for (chunk,) in vectors])
            return in_batch_info_nce_loss(rows[: len(queries)], rows[len(queries) :], temperature=0.1)

        return cached_loss([*asked, *told], whole)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the framework's loop."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class Loop:
    """What a framework does with a module: backward on a scaled loss, several batches to a step."""

    def __init__(self, accumulate: int = 2) -> None:
        self.accumulate = accumulate

    def fit(self, module: TwoTowers, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Train on the batches."""
        optimizer = module.configure_optimizers()
        module.train()
        for number, batch in enumerate(batches):
            (module.training_step(batch, number) / self.accumulate).backward()
            if (number + 1) % self.accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
        module.eval()


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of noisy turned copies."""
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(count, 8, generator=generator)
    return queries, queries @ turn + 0.1 * torch.randn(count, 8, generator=generator)


@torch.no_grad()
def accuracy(module: TwoTowers) -> float:
    """Return how often a query's own document, of 200, comes first."""
    queries, documents = data(200, 1)
    similarity = nn.functional.normalize(module.query(queries)) @ nn.functional.normalize(module.document(documents)).T
    return float((similarity.argmax(1) == torch.arange(200)).float().mean())


def main(steps: int = 60) -> tuple[float, float]:
    """Train, and return the accuracy before and after."""
    torch.manual_seed(0)
    module = TwoTowers().eval()
    before = accuracy(module)
    Loop().fit(module, (data(64, 100 + step) for step in range(2 * steps)))
    return before, accuracy(module)


if __name__ == "__main__":
    print(*main())
