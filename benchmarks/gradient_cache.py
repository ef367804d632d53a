"""One cached training step of MiniLM: 256 questions and their answers, against CachedMultipleNegativesRankingLoss.

Both sides compute the exact gradient of the whole batch's loss chunk by chunk, from the same texts cut at the same lengths, take
one step of AdamW made for the occasion.

    python -m benchmarks.gradient_cache 256 4096   # peak memory of one cached step of so many pairs, each in a process of its own
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from benchmarks._harness import Case, Target, Variant, Workload
from benchmarks.training_step import _DOCUMENT_TOKENS, _QUERY_TOKENS, _RATE, PeerStep

_CHUNK = 32  # rows the peer encodes at once


def workload(quick: bool) -> Workload:
    """Take one cached step with 256 questions (8 short ones when quick)."""
    size, longest = (8, 16) if quick else (256, _DOCUMENT_TOKENS)
    step, columns = make_step(size, longest)
    variants, missing = [Variant("rivals", lambda threads: step(True))], []
    if find_spec("sentence_transformers") is None:
        missing.append("sentence-transformers")
    else:
        from rivals.models import resolve_model

        peer = PeerStep(str(resolve_model("all-MiniLM-L6-v2")), columns, longest, chunk=_CHUNK)
        variants.append(Variant("sentence-transformers cached MNRL", lambda threads: peer.step()))
    variants.append(Variant("rivals, not cached", lambda threads: step(False)))
    return Workload(
        what=f"a cached step of all-MiniLM-L6-v2, {size} questions and their answers of at most {longest} tokens",
        unit="pairs/s",
        amount=size,
        variants=variants,
        targets=[Target("at most half of sentence-transformers' cached time", "speed", 2.0)],
        missing=missing,
        notes=[f"chunks of {_CHUNK} rows there, of 4,096 padded tokens here; each call makes its AdamW anew"],
        rounds=2,
    )


def make_step(size: int, longest: int) -> tuple[Any, tuple[list[str], list[str]]]:
    """Return `step(cached)`, which takes one step of our loop over `size` pairs, and the texts of the pairs."""
    import numpy as np

    from rivals.data import Collection, Dataset, Judgements, load_sample
    from rivals.models import Encoder
    from rivals.training import CachedGradients, LoopConfig, Plain, RetrieverConfig, RetrieverObjective, fit

    sample = load_sample()
    known = sample.judgements.positives
    places = np.resize(np.unique(known.document, return_index=True)[1], size)
    questions = [sample.queries.full_texts[row] for row in known.query[places]]
    answers = [sample.documents.full_texts[row] for row in known.document[places]]
    rows = np.arange(size)
    dataset = Dataset(
        Collection([f"q{i}" for i in rows], questions, name="query"),
        Collection([f"d{i}" for i in rows], answers),
        Judgements.build(rows, rows, np.ones(size), queries=size, documents=size),
    )
    config = RetrieverConfig(
        batch_size=size,
        negatives=0,
        late_interaction=0.0,
        max_query_tokens=min(longest, _QUERY_TOKENS),
        max_document_tokens=longest,
        loop=LoopConfig(learning_rate=_RATE, warmup=0.0, evaluations=0),
    )
    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")

    def step(cached: bool) -> Any:
        objective = RetrieverObjective(encoder, dataset, replace(config))
        return fit(objective, config.loop, description="", executor=CachedGradients() if cached else Plain())

    return step, (questions, answers)


CASES: dict[str, Case] = {"": workload}


def peak_memory(size: int) -> dict[str, float]:
    """Return GiB resident before and at the peak of one cached step, and its seconds."""
    import resource
    import time

    step, _ = make_step(8, _DOCUMENT_TOKENS)
    step(True)  # what any step needs: model, optimiser, libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    step, _ = make_step(size, _DOCUMENT_TOKENS)
    started = time.perf_counter()
    step(True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"pairs": size, "before": before, "peak": peak, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    import multiprocessing
    import sys

    for wanted in sys.argv[1:]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(
                {name: round(value, 2) for name, value in pool.apply(peak_memory, (int(wanted),)).items()}, flush=True
            )
