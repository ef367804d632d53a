"""A loss in a plain torch loop: a linear ranker learns from graded lists of unequal length.

    python examples/torch_loop.py

`mask` says which candidates exist; any other ranking loss takes the same three tensors in place of `lambda_loss`.
"""

from __future__ import annotations

import torch

from rivals.losses import lambda_loss
from rivals.measures import ndcg


def main(steps: int = 60) -> list[float]:
    """Train, and return the mean nDCG@5 at every step."""
    draw, measured = torch.Generator().manual_seed(0), []
    features = torch.randn(64, 20, 8, generator=draw)  # 64 queries, up to 20 candidates, 8 features
    mask = torch.arange(20) < torch.randint(5, 21, (64, 1), generator=draw)
    grades = (features @ torch.randn(8, generator=draw)).clamp(0, 4).round()
    model = torch.nn.Linear(8, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        scores = model(features).squeeze(-1)
        loss = lambda_loss(scores, grades, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        measured.append(ndcg(scores.detach(), grades, mask, k=5).mean().item())
    return measured


if __name__ == "__main__":
    measured = main()
    print(f"nDCG@5 before {measured[0]:.3f}, after {measured[-1]:.3f}")
