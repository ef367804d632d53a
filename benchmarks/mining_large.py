"""Mining among a million documents whose vectors lie on disk: seconds against the matrix product, and peak memory.

    python -m benchmarks.mining_large [--queries 10000] [--documents 1000000] [--full] [--dtype float16] [--json FILE]

Vectors of 384 dimensions are drawn from a seed (scattered about common centres, as texts give) and written to a memory
map in a folder of their own, which is removed at the end. Then hard negatives are mined as for real: documents block by
block past blocks of queries, the 100 nearest of every query, known positives, duplicate texts and the relative margin
marked, 7 drawn, all candidates streamed to a Parquet file, an audit.

The bound is what the multiplications alone would take, 2 x queries x documents x dimensions operations at the rate of a
square product measured here just before, in float32 and in the format the search multiplies in. `--full` is 100,000
queries. Peak memory is that of the whole process while it mines; pages of the memory map count, though the system may
take them back at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._machine import Reference, cores, describe, set_threads
from benchmarks._memory import _peak, _reset_peak

_DIMENSIONS, _CENTRES, _PART = 384, 1_000, 65_536
_TOP_K, _NEGATIVES = 100, 7
_COPIES = 10  # every tenth document is a near copy of the one before
_SAMPLE = 32  # queries whose lists are compared with a full scan


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the vectors, mine, and print what it took as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mining_large",
        description="Mine hard negatives with memory-mapped vectors; print seconds, the matmul bound and peak memory.",
    )
    parser.add_argument("--queries", type=int, default=10_000, metavar="N", help="queries (10,000)")
    parser.add_argument("--documents", type=int, default=1_000_000, metavar="N", help="documents (1,000,000)")
    parser.add_argument("--full", action="store_true", help="100,000 queries by 1,000,000 documents")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="of the vectors on disk")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (all cores)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the temporary files go (the system's place)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    options = parser.parse_args(arguments)
    if options.full:
        options.queries, options.documents = 100_000, 1_000_000
    if min(options.queries, options.threads or 1) < 1 or options.documents < max(2 * _TOP_K, options.queries):
        parser.error(
            f"--queries and --threads must be 1 or more, --documents {2 * _TOP_K} or more and not below --queries"
        )
    for folder in (options.folder, options.json and options.json.parent):
        if folder is not None and not folder.is_dir():
            parser.error(f"the folder {folder} does not exist")
    set_threads(options.threads or cores())
    with tempfile.TemporaryDirectory(prefix="rivals-mining-", dir=options.folder) as place:
        result = {"machine": describe(), "threads": options.threads or cores(), **measure(options, Path(place))}
    text = json.dumps(result, indent=2, allow_nan=False)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the whole task once and return its figures."""
    from rivals.data import Collection, Dataset, Judgements
    from rivals.negatives import PositiveAware, Top, mine_hard_negatives
    from rivals.retrieve import Dense
    from rivals.retrieve.dense import StoredVectors

    asked, size = options.queries, options.documents
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    vectors, queries, positive = make_vectors(folder / "vectors", asked, size, options.dtype, options.seed)
    clock("making the vectors")
    questions = Collection(
        [f"q{i}" for i in range(asked)], [f"question number {i}" for i in range(asked)], name="query"
    )
    answers = Collection([f"d{i}" for i in range(size)], [f"answer number {i}" for i in range(size)])
    judgements = Judgements.build(np.arange(asked), positive, np.ones(asked), queries=asked, documents=size)
    dataset = Dataset(questions, answers, judgements)
    clock("making the tables")
    rates = product_rates()
    clock("measuring the product")
    before = _reset_peak()
    dense = Dense(StoredVectors(questions, queries), answers, vectors=vectors)
    clock("preparing the search")
    processor = time.process_time()
    mined = mine_hard_negatives(
        dense,
        dataset,
        filters=PositiveAware(relative=0.05),
        sampler=Top(_NEGATIVES),
        top_k=_TOP_K,
        hold="drawn",
        output=folder / "run.parquet",
    )
    clock("mining")
    processor = time.process_time() - processor
    memory = {"before_mib": before, "peak_mib": _peak(), "vectors_on_disk_mib": vectors.nbytes / 2**20}
    flops = 2.0 * asked * size * _DIMENSIONS
    precision = dense._prepared.precision
    threads = options.threads or cores()
    bounds = {kind: flops / (rate * 1e9) for kind, rate in rates.items()}
    return {
        "what": f"{asked:,} queries x {size:,} documents x {_DIMENSIONS}, {options.dtype} on disk, top {_TOP_K}, "
        f"{_NEGATIVES} negatives",
        "seconds": seconds,
        "cpu_seconds_mining": processor,
        "queries_per_second": asked / seconds["mining"],
        "product": {
            "format": precision,
            "threads": threads,
            "gflops": rates,
            "bound_seconds": bounds,
            "bound_over_mining": {kind: bound / seconds["mining"] for kind, bound in bounds.items()},
        },
        "memory": memory,
        "negatives_drawn": int(mined.draw.mask.sum()),
        "share_marked": mined.audit.marked / mined.audit.proposed,
        "recall_of_the_list": recall(dense, questions, vectors, queries),
        "file_mib": (folder / "run.parquet").stat().st_size / 2**20,
    }


class _Clock:
    """Notes the seconds since the last call under a name."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now
        print(f"{name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


def make_vectors(
    path: Path, asked: int, size: int, dtype: str, seed: int
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.int64]]:
    """Write unit vectors [size, 384] to a memory map, part by part; return it, queries near some of them, and which."""
    generator = np.random.default_rng(seed)
    middle = generator.standard_normal((_CENTRES, _DIMENSIONS), dtype=np.float32)
    vectors = np.memmap(path, dtype=dtype, mode="w+", shape=(size, _DIMENSIONS))
    positive = np.sort(generator.choice(size, asked, replace=False))
    queries = np.empty((asked, _DIMENSIONS), np.float32)
    for start in range(0, size, _PART):
        stop = min(start + _PART, size)
        part = 0.7 * generator.standard_normal((stop - start, _DIMENSIONS), dtype=np.float32)
        part += middle[generator.integers(0, _CENTRES, stop - start)]
        copies = part[1::_COPIES]
        copies[:] = part[::_COPIES][: len(copies)] + 0.05 * copies  # suspects, for the margin to mark
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        vectors[start:stop] = part
        inside = slice(*np.searchsorted(positive, (start, stop)))
        queries[inside] = part[positive[inside] - start]
    vectors.flush()
    queries += 0.04 * generator.standard_normal(queries.shape, dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return np.memmap(path, dtype=dtype, mode="r", shape=(size, _DIMENSIONS)), queries, positive


def product_rates() -> dict[str, float]:
    """Return GFLOP/s of a square product by format (GOP/s for int8), medians of a few."""
    reference = Reference()
    rates = {}
    for kind in reference.kinds:
        seconds = [reference.seconds(kind, cpu=False) for _ in range(7)]
        known = [value for value in seconds[2:] if value is not None]
        if known:
            rates[kind] = reference.flops / median(known) / 1e9
    return rates


def recall(dense: Any, questions: Any, vectors: NDArray[Any], queries: NDArray[np.float32]) -> float:
    """Return the share of a few queries' lists that a full scan in float32 lists as well."""
    rows = np.linspace(0, len(questions) - 1, min(_SAMPLE, len(questions))).astype(np.int64)
    listed = dense(questions.take(rows), _TOP_K).document.reshape(len(rows), -1)
    best = np.full((len(rows), 0), 0.0, np.float32)
    for start in range(0, len(vectors), _PART):
        scores = queries[rows] @ np.asarray(vectors[start : start + _PART], dtype=np.float32).T
        best = -np.sort(-np.hstack([best, scores]), axis=1)[:, :_TOP_K]
    own = np.stack(
        [queries[row] @ np.asarray(vectors[found], np.float32).T for row, found in zip(rows, listed, strict=True)]
    )
    return float((own >= best[:, -1:] - 1e-6).mean())


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
