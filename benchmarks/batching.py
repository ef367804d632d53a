"""Batches of hard negatives (B3): the graph of a teacher's ranks and its partition; and batches without duplicates.

A pair is a document's vector and a query near it; the teacher's ranks 30 to 130 of every query, mutual ones only, make
the graph, and clusters of 32 cut it. At 20,000 pairs faiss is asked for the same ranks, which is the most of the work;
at 100,000 that would take it minutes a round, so there is no peer. Batches without duplicates are those of
sentence-transformers' sampler, over texts of which some repeat.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload
from benchmarks.top_k import unit_vectors

_SKIP, _WIDTH, _CLUSTER, _BATCH = 30, 100, 32, 64


def hard_batches(size: int, quick: bool) -> Workload:
    """Build the graph of pairs and cut it into clusters of 32 (400 pairs when quick)."""
    from rivals.negatives.batching import PartitionReport, build_hard_graph, partition

    full, size = size, 400 if quick else size
    generator = np.random.default_rng(5)
    targets = unit_vectors(size, max(size // 50, 8), 2)
    queries = targets + 0.04 * generator.standard_normal(targets.shape, dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    given = build_hard_graph((queries, targets), skip=_SKIP, width=_WIDTH)

    def ours(threads: int) -> Any:
        graph = build_hard_graph((queries, targets), skip=_SKIP, width=_WIDTH)
        return partition(graph, _CLUSTER)

    variants = [
        Variant("rivals", ours),
        Variant("rivals, partition alone", lambda threads: partition(given, _CLUSTER)),
    ]
    missing, targeted = [], []
    if find_spec("faiss") is None:
        missing.append("faiss")
    elif quick or full <= 20_000:
        import faiss

        index = faiss.IndexFlatIP(targets.shape[1])
        index.add(targets)
        variants.append(
            Variant("faiss IndexFlatIP, ranks alone", lambda threads: index.search(queries, _SKIP + _WIDTH))
        )
        targeted.append(Target("graph and partition no slower than faiss' ranks alone", "speed", 1.0))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        report = PartitionReport.of(given, results["rivals"])
        return {
            "share of edges kept": report.kept,
            "kept by chance": report.random,
            "share of pairs without an edge": report.isolated / report.nodes,
        }

    return Workload(
        what=f"ranks {_SKIP} to {_SKIP + _WIDTH} of {size:,} pairs x {targets.shape[1]}, clusters of {_CLUSTER}",
        unit="pairs/s",
        amount=size,
        flops=2.0 * size * size * targets.shape[1],
        variants=variants,
        targets=[*targeted, Target("at least a fifth of the edges kept", "share of edges kept", 0.2)],
        checks=checks,
        missing=missing,
        notes=[f"the graph has {given.nnz // 2:,} edges"],
        rounds=3 if full <= 20_000 else 1,
    )


def no_duplicates(quick: bool) -> Workload:
    """Plan an epoch over 100,000 pairs; one answer in a hundred serves some dozen questions (400 pairs when quick)."""
    from rivals.data import Collection, Dataset, Judgements
    from rivals.negatives.batching import Examples, NoDuplicates

    size = 400 if quick else 100_000
    answers = size - size // 10
    generator = np.random.default_rng(6)
    answer = np.concatenate([np.arange(answers), generator.integers(0, max(answers // 100, 1), size - answers)])
    questions = Collection([f"q{i}" for i in range(size)], [f"question number {i}" for i in range(size)], name="query")
    documents = Collection([f"d{i}" for i in range(answers)], [f"answer number {i}" for i in range(answers)])
    judged = Judgements.build(np.arange(size), answer, np.ones(size), queries=size, documents=answers)
    examples = Examples(Dataset(questions, documents, judged), per="pair")
    batcher = NoDuplicates(examples, _BATCH, drop_last=True)
    examples.keys(0)  # texts are hashed once and for all
    variants = [Variant("rivals", lambda threads: [len(batch) for batch in _cut(batcher.plan(0))])]
    missing = [name for name in ("sentence_transformers", "datasets") if find_spec(name) is None]
    if not missing:
        from datasets import Dataset as Table
        from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

        table = Table.from_dict({"anchor": questions.texts, "positive": [documents.texts[row] for row in answer]})

        def theirs(threads: int) -> list[int]:
            import torch

            sampler = NoDuplicatesBatchSampler(table, _BATCH, True, generator=torch.Generator())
            return [len(batch) for batch in sampler]

        variants.append(Variant("sentence-transformers", theirs))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        return {f"whole batches of {name}": float(len(sizes)) for name, sizes in results.items()}

    return Workload(
        what=f"batches of {_BATCH} without duplicates over {size:,} pairs, {answers:,} answers",
        unit="pairs/s",
        amount=size,
        variants=variants,
        targets=[Target("at least 3x sentence-transformers", "speed", 3.0)],
        checks=checks,
        missing=missing,
        rounds=3,
    )


def _cut(plan: Any) -> list[Any]:
    return np.split(plan.rows, plan.offsets[1:-1]) if len(plan) else []


CASES: dict[str, Case] = {
    "b3_20000": partial(hard_batches, 20_000),
    "b3_100000": partial(hard_batches, 100_000),
    "no_duplicates": no_duplicates,
}
