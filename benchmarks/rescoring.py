"""Mining with a cross-encoder's margin, against sentence-transformers' `mine_hard_negatives(cross_encoder=...)`.

Both sides search finished vectors for 72 candidates a question, score these and the positive with the same small
cross-encoder, leave out everything above the positive's score less a margin, and give the 7 hardest of the rest as texts.
sentence-transformers scores one query after the other; ours takes the pairs of all queries together, sorted by length,
each once, in int8 where the processor multiplies that fast. `rivals, float32` is the same in the peer's precision.

The cross-encoder is all-MiniLM-L6-v2 with a head fitted to the cosines of the embedding model, so that its scores tell
documents apart; how far int8 changes them is among the checks.
"""

from __future__ import annotations

import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Case, Target, Variant, Workload
from benchmarks.mining import GivenVectors

_MARGIN = 0.02
_LAYER_WEIGHTS = 10_646_784


@cache
def _task(asked: int, size: int) -> tuple[Any, Any, NDArray[np.float32], NDArray[np.float32]]:
    """Return questions of the sample, `size` answers with theirs among them, and the vectors of both."""
    from rivals.data import Collection, Dataset, Judgements, load_sample
    from rivals.models import Encoder

    sample, generator = load_sample(), np.random.default_rng(5)
    texts = sample.documents.full_texts
    known = sample.judgements.positives
    lonely = np.flatnonzero(np.diff(known.offsets) == 1)
    asking = generator.choice(lonely, asked, replace=False)
    positive = known.document[known.offsets[asking]]
    asking, positive = asking[np.unique(positive, return_index=True)[1]], np.unique(positive)
    others = generator.permutation(np.setdiff1d(np.arange(len(texts)), positive))[: size - len(positive)]
    answers = list(dict.fromkeys(texts[row] for row in [*positive, *others]))
    questions = [sample.queries.full_texts[row] for row in asking]
    queries = Collection([f"q{i}" for i in range(len(questions))], questions, name="query")
    documents = Collection([f"d{i}" for i in range(len(answers))], answers)
    rows = np.arange(len(questions))
    judgements = Judgements.build(rows, rows, np.ones(len(rows)), queries=len(rows), documents=len(documents))
    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="fast")
    vectors = [encoder.encode(side.full_texts, progress=False, normalize=True) for side in (queries, documents)]
    return Dataset(queries, documents, judgements), encoder, *vectors


def fitted_cross_encoder(dataset: Any, queries: NDArray[np.float32], documents: NDArray[np.float32], size: int) -> Any:
    """Return a cross-encoder from MiniLM whose head predicts cosines from `size` pooled pairs, by ridge regression."""
    import torch

    from rivals.models import CrossEncoder

    model = CrossEncoder.load("all-MiniLM-L6-v2", device="cpu", dtype="fast", seed=0)
    generator = np.random.default_rng(6)
    query = generator.integers(0, len(queries), size)
    document = np.where(generator.random(size) < 0.3, query, generator.integers(0, len(documents), size))
    asked, read = dataset.queries.full_texts, dataset.documents.full_texts
    pairs = model.tokenize_pairs([asked[row] for row in query], [read[row] for row in document], 64)
    with torch.inference_mode():
        pooled = [model.model.bert(*pairs.pad(np.arange(i, i + 32))).pooler_output for i in range(0, size, 32)]
    features = torch.cat(pooled).double()
    target = torch.from_numpy((queries[query] * documents[document]).sum(1)).double()
    mean = features.mean(0)
    centred = features - mean
    gram = centred.T @ centred + 0.05 * len(target) * torch.eye(features.shape[1], dtype=torch.float64) * centred.var()
    weight = torch.linalg.solve(gram, centred.T @ (target - target.mean()))
    with torch.no_grad():
        model.model.classifier.weight.copy_(weight[None].float())
        model.model.classifier.bias.fill_(float(target.mean() - mean @ weight))
    return model


def workload(quick: bool) -> Workload:
    """Rescore the candidates of 3 questions among 250 answers (2 among 30 when quick)."""
    from rivals.negatives import PositiveAware, Top, mine_hard_negatives
    from rivals.negatives.rescore import Rescore
    from rivals.retrieve import Dense

    dataset, _, queries, documents = _task(*((2, 30) if quick else (3, 250)))
    model = fitted_cross_encoder(dataset, queries, documents, 32 if quick else 256)
    negatives = 1 if quick else 7
    candidates = 10 * negatives + 2  # what sentence-transformers looks at with one positive and a margin
    given = GivenVectors({"query": queries, "document": documents})
    texts, questions = dataset.documents.full_texts, dataset.queries.full_texts

    def ours(dtype: str) -> tuple[dict[str, list[str]], Any]:
        model.dtype = dtype
        mined = mine_hard_negatives(
            Dense(given, dataset.documents, vectors=documents, show_progress=False),
            dataset,
            filters=(Rescore(model), PositiveAware(absolute=_MARGIN)),
            sampler=Top(negatives),
            top_k=candidates,
            show=False,
            allow_none=True,
        )
        full = mined.draw.mask.all(1)
        found = zip(mined.draw.candidate[full].tolist(), np.flatnonzero(full).tolist(), strict=True)
        return {questions[query]: [texts[row] for row in rows] for rows, query in found}, mined.run

    variants = [
        Variant("rivals", lambda threads: ours("fast")),
        Variant("rivals, float32", lambda threads: ours("float32")),
    ]
    missing = [name for name in ("sentence_transformers", "datasets") if find_spec(name) is None]
    if not missing:
        from datasets import Dataset as Table
        from sentence_transformers import CrossEncoder as Theirs
        from sentence_transformers.util import mine_hard_negatives as mine_theirs

        with tempfile.TemporaryDirectory(prefix="rivals-benchmark-") as folder:
            peer = Theirs(str(model.save(Path(folder) / "model")), device="cpu")
        known = dataset.judgements.document
        pairs = Table.from_dict({"anchor": questions, "positive": [texts[row] for row in known]})

        def theirs() -> Any:
            return mine_theirs(
                pairs,
                given,  # type: ignore[arg-type]
                corpus=texts,
                cross_encoder=peer,
                absolute_margin=_MARGIN,
                num_negatives=negatives,
                output_format="n-tuple",
                verbose=False,
            )

        variants.append(Variant("sentence-transformers", lambda threads: theirs()))

    pairs_scored = len(questions) * candidates

    def checks(results: dict[str, Any]) -> dict[str, float]:
        (fast, fast_run), (exact, exact_run) = results["rivals"], results["rivals, float32"]
        figures = {
            "rank correlation of our scores with float32": _correlation(fast_run, exact_run),
            "negatives kept in common with float32": _common(fast, exact),
        }
        if "sentence-transformers" in results:
            lists = {
                row["anchor"]: [row[f"negative_{i}"] for i in range(1, negatives + 1)]
                for row in results["sentence-transformers"]
            }
            same = [exact.get(query) == listed for query, listed in lists.items()]
            figures["queries with the same list in float32"] = sum(same) / max(len(same), len(exact), 1)
            figures["negatives in common with sentence-transformers"] = _common(fast, lists)
        return figures

    tokens = int(model.tokenize_pairs(*_pairs_of(dataset, candidates, queries, documents)).lengths.sum())
    return Workload(
        what=f"{len(questions)} questions x {candidates} candidates of {len(texts)} answers, {tokens:,} tokens, MiniLM "
        "cross-encoder",
        unit="pairs/s",
        amount=pairs_scored,
        flops=2.0 * _LAYER_WEIGHTS * tokens,
        variants=variants,
        targets=[Target("at least 3x sentence-transformers' path", "speed", 3.0)],
        checks=checks,
        missing=missing,
        notes=["tokenising, searching and the margin filter are part of the time; batches as each side makes them"],
        rounds=3,
    )


def _pairs_of(
    dataset: Any, candidates: int, queries: NDArray[np.float32], documents: NDArray[np.float32]
) -> tuple[list[str], list[str]]:
    nearest = np.argsort(-(queries @ documents.T), axis=1)[:, :candidates]
    asked = [text for text in dataset.queries.full_texts for _ in range(candidates)]
    return asked, [dataset.documents.full_texts[row] for row in nearest.ravel()]


def _correlation(one: Any, other: Any) -> float:
    """The mean over queries of Spearman's correlation of two runs with the same candidates."""
    from scipy.stats import spearmanr

    values = []
    for query in range(len(one.queries)):
        sides = []
        for run in (one, other):
            inside = slice(run.offsets[query], run.offsets[query + 1])
            sides.append(run.score[inside][np.argsort(run.document[inside])])
        values.append(float(spearmanr(*sides).statistic))
    return float(np.mean(values))


def _common(one: dict[str, list[str]], other: dict[str, list[str]]) -> float:
    """The share of negatives that both name, over the queries that either has."""
    queries = {*one, *other}
    shares = [
        len({*one.get(query, ())} & {*other.get(query, ())}) / len(one.get(query, ()) or other[query])
        for query in queries
    ]
    return float(np.mean(shares)) if shares else 1.0


CASES: dict[str, Case] = {"": workload}
