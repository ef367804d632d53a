"""BM25 over 20,000 passages: building the index, and searching it for the sample's test questions, against bm25s.

Passages are two stretches of 45 words each from random answers of the embedded sample, so words have the frequencies of
real text. bm25s runs with its numba backend, compiled before the rounds. Splitting and stemming are part of both times.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload

_STRETCH = 45
_PEER = "bm25s, numba"


def passages(count: int) -> list[str]:
    """Return passages of about 90 words put together from the sample's answers."""
    from rivals.data import load_sample

    generator = np.random.default_rng(0)
    answers = [text.split() for text in load_sample().documents.full_texts]
    made = []
    for pair in generator.integers(0, len(answers), (count, 2)).tolist():
        words: list[str] = []
        for row in pair:
            start = int(generator.integers(0, max(1, len(answers[row]) - _STRETCH)))
            words += answers[row][start : start + _STRETCH]
        made.append(" ".join(words))
    return made


class _Peer:
    """bm25s with the settings of our BM25."""

    def __init__(self) -> None:
        import Stemmer

        self.stemmer = Stemmer.Stemmer("english")

    def tokens(self, texts: list[str]) -> Any:
        """Split and stem texts."""
        import bm25s

        return bm25s.tokenize(texts, stopwords="english", stemmer=self.stemmer, show_progress=False)

    def build(self, texts: list[str]) -> Any:
        """Index texts."""
        import bm25s

        index = bm25s.BM25(k1=1.2, b=0.75, method="lucene", backend="numba")
        index.index(self.tokens(texts), show_progress=False)
        return index

    def search(self, index: Any, questions: list[str], k: int, threads: int) -> Any:
        """Return the scores of the k best of every question."""
        found = index.retrieve(self.tokens(questions), k=k, n_threads=threads, show_progress=False)
        return found.scores


def build(quick: bool) -> Workload:
    """Index 20,000 passages (200 when quick)."""
    from rivals.data import Collection
    from rivals.retrieve import BM25

    texts = passages(200 if quick else 20_000)
    documents = Collection([f"d{i}" for i in range(len(texts))], texts)
    _ = documents.full_texts
    variants = [Variant("rivals", lambda threads: BM25(documents, threads=threads))]
    missing = _missing()
    if not missing:
        peer = _Peer()
        variants.append(Variant(_PEER, lambda threads: peer.build(texts)))
    return Workload(
        what=f"index {len(texts):,} passages",
        unit="documents/s",
        amount=len(texts),
        variants=variants,
        missing=missing,
        notes=["no target in the issue: bm25s builds our index too"],
        rounds=3,
    )


def search(quick: bool) -> Workload:
    """Search for the 850 test questions among 20,000 passages (10 among 200 when quick)."""
    from rivals.data import Collection, load_sample
    from rivals.retrieve import BM25

    texts = passages(200 if quick else 20_000)
    questions = load_sample().split("test").queries
    if quick:
        questions = questions.take(np.arange(10))
    k = 10 if quick else 100
    documents = Collection([f"d{i}" for i in range(len(texts))], texts)
    bm25 = BM25(documents)
    _ = documents.tie_order

    def ours(threads: int) -> Any:
        bm25.threads = threads
        return bm25(questions, k)

    variants = [Variant("rivals", ours)]
    missing = _missing()
    if not missing:
        peer = _Peer()
        index = peer.build(texts)
        variants.append(Variant(_PEER, lambda threads: peer.search(index, questions.texts, k, threads)))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        if _PEER not in results:
            return {}
        run, theirs = results["rivals"], results[_PEER]
        best = np.zeros(len(questions), np.float32)
        found = np.diff(run.offsets) > 0
        best[found] = run.score[run.offsets[:-1][found]]
        gap = np.abs(best - theirs[:, 0]) / np.maximum(np.abs(theirs[:, 0]), 1e-6)
        return {"largest relative difference of best scores": float(gap.max())}

    return Workload(
        what=f"{len(questions)} questions, {len(texts):,} passages, top {k}",
        unit="queries/s",
        amount=len(questions),
        variants=variants,
        targets=[Target("no slower than bm25s with numba (the baselines: 'adopt it')", "speed", 1.0)],
        checks=checks,
        missing=missing,
        notes=["ours gives a Run with ties in a fixed order; bm25s gives arrays"],
    )


def _missing() -> list[str]:
    return [] if find_spec("bm25s") is not None else ["bm25s"]


CASES: dict[str, Case] = {"build": build, "search": search}
