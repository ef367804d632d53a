"""What two training processes compute, and one alone; started by test_distributed.py under torch.distributed.run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.models import Encoder
from rivals.negatives import Top
from rivals.training.distributed import World, gather, join_world, sum_gradients
from rivals.training.executor import CachedGradients, Executor, Plain
from rivals.training.loop import LoopConfig, fit
from rivals.training.negatives import Negatives
from rivals.training.retriever import RetrieverObjective
from rivals.training.retriever_config import RetrieverConfig
from tests.models.tiny import WORDS


def dataset() -> tuple[Dataset, Run]:
    """Seven queries over twelve documents of various lengths, two of them with the same text, and marked candidates."""
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(2, 14, 12)]
    texts[11] = texts[0]
    queries = Collection([f"q{i}" for i in range(7)], [" ".join(rng.choice(WORDS, n)) for n in (3, 5, 1, 7, 2, 4, 6)])
    documents = Collection([f"d{i:02d}" for i in range(12)], texts)
    judgements = Judgements.build([*range(7), 0], [*range(7), 8], [1] * 8, queries=7, documents=12)
    offsets, document = np.arange(8) * 4, np.concatenate([rng.permutation(np.arange(7, 12))[:4] for _ in range(7)])
    run = Run.build(queries, documents, offsets, document, rng.random(28))
    run = run.mark(rng.random(28) < 0.2, "doubtful")
    return Dataset(queries, documents, judgements), run


def objective(folder: Path, late: float, world: World) -> RetrieverObjective:
    """Batches of 3, 3 and 1 queries: shares of 1 and 2, then of 0 and 1."""
    data, run = dataset()
    encoder = Encoder.load(folder / "tiny", device="cpu", dtype="float32")
    for layer in encoder.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    loop = LoopConfig(epochs=2, learning_rate=1e-4, evaluations=2, warmup=0, precision="float32", checkpoint_seconds=0)
    config = RetrieverConfig(
        batch_size=3, negatives=2, late_interaction=late, temperature=0.2, chunk_tokens=64, loop=loop
    )
    return RetrieverObjective(
        encoder,
        data,
        config,
        negatives=Negatives(run, Top(2)),
        dev=data,
        world=world,
    )


def first_gradients(made: RetrieverObjective, world: World, executor: Executor) -> dict[str, Tensor]:
    """Gradients of the first batch, the odd one."""
    made.model.eval()
    executor.backward(made, made.batches(0)[0], torch.Generator(), 1.0)
    sum_gradients(made.model.parameters(), world)
    found = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    return found


def training(
    folder: Path, late: float, world: World, out: Path | None = None, *, cached: bool = False
) -> dict[str, Any]:
    made, executor = objective(folder, late, world), CachedGradients() if cached else Plain()
    gradients = first_gradients(made, world, executor)
    start = {name: value.clone() for name, value in made.model.state_dict().items()}
    result = fit(made, made.config.loop, folder=out, world=world, executor=executor)
    return {
        "gradients": gradients,
        "start": start,
        "weights": dict(made.model.state_dict()),
        "losses": result.losses,
        "scores": result.scores,
    }


def gathering(world: World) -> dict[str, Any]:
    """A loss that couples all rows, on unequal shares (3 and 1 of four rows), with its gradients."""
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = slice(0, 4) if world.size == 1 else (slice(0, 3), slice(3, 4))[world.rank]
    weight = nn.Parameter(torch.eye(3, dtype=torch.float64))
    own = (rows[share] @ weight).requires_grad_()
    own.retain_grad()
    everyone = gather(own, world)
    loss = (own @ everyone.T).logsumexp(1).sum()
    loss.backward()
    beside = torch.zeros_like(everyone, requires_grad=True)
    (gather(own.detach().requires_grad_(), world) + beside).sum().backward()  # both get the same gradient tensor
    idle = nn.Parameter(torch.ones(2))
    sum_gradients([idle], world)
    box = loss.detach().clone()
    if world.size > 1:
        torch.distributed.all_reduce(box)
    flags = gather(torch.tensor([True, False])[: world.rank + 1], world)
    return {
        "loss": float(box),
        "rows": gather(own.grad.detach(), world),  # type: ignore[union-attr]
        "beside": beside.grad,
        "idle": idle.grad,
        "flags": flags.tolist(),
        "told": world.broadcast(f"by {world.rank}"),
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    world = join_world()
    found: dict[str, Any] = {"gathering": gathering(world), "size": world.size}
    for late in (0.0, 1.0):
        found[f"late {late}"] = training(folder, late, world, folder / f"run {late}")
        found[f"cached {late}"] = training(folder, late, world, cached=True)
    torch.save(found, folder / f"rank {world.rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
