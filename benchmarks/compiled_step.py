"""What `torch.compile` does for a training step of MiniLM on this machine: `python -m benchmarks.compiled_step`.

Forward and backward passes over batches of 32 texts, whose lengths differ from step to step as token batches' do, plain
and compiled with dynamic shapes, taking turns. The compiler's own time is told beside the ratio: it is paid once a run.
"""

from __future__ import annotations

import argparse
import statistics
import time


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print and return seconds a step, plain and compiled, their ratio, and the seconds of compiling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="steps of each, after the warm-up")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)

    import torch

    from rivals.models import Encoder

    encoder = Encoder.load("all-MiniLM-L6-v2", device=options.device, dtype="float32").train()
    draw = torch.Generator().manual_seed(0)
    lengths = [(32, int(length)) for length in torch.randint(24, 129, (options.steps,), generator=draw)]
    copy = Encoder.load("all-MiniLM-L6-v2", device=options.device, dtype="float32").train()
    copy.compile()
    plain, compiled = encoder.forward, copy.forward

    def step(forward: object, shape: tuple[int, int]) -> float:
        ids = torch.randint(1000, 20_000, shape, generator=torch.Generator().manual_seed(shape[1])).to(options.device)
        started = time.perf_counter()
        encoder.zero_grad()
        copy.zero_grad()
        vectors = forward(ids, torch.ones_like(ids))  # type: ignore[operator]
        (vectors @ vectors.T).logsumexp(1).mean().backward()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    started = time.perf_counter()
    for shape in ((32, 40), (32, 96), (32, 128)):
        step(compiled, shape)
    compiling = time.perf_counter() - started
    step(plain, (32, 128))
    times: dict[str, list[float]] = {"plain": [], "compiled": []}
    for place, shape in enumerate(lengths):
        both = [("plain", plain), ("compiled", compiled)]
        for name, forward in both if place % 2 else both[::-1]:
            times[name].append(step(forward, shape))
    ratios = [a / b for a, b in zip(times["plain"], times["compiled"], strict=True)]
    found = {
        "plain, s": statistics.median(times["plain"]),
        "compiled, s": statistics.median(times["compiled"]),
        "plain / compiled": statistics.median(ratios),
        "compiling and first steps, s": compiling,
    }
    for name, value in found.items():
        print(f"{name:<30} {value:8.3f}")
    print("ratio of each step:", " ".join(f"{ratio:.2f}" for ratio in sorted(ratios)))
    return found


if __name__ == "__main__":
    main()
