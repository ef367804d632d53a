"""Mining hard negatives with the vectors given, against sentence-transformers' `mine_hard_negatives`.

Both sides get finished vectors, search them, leave the positive and everything within 5 % of its score out, and give
the 7 hardest of the rest as texts. A fifth of the documents are near copies of others, so that there is something to
leave out. Ours copies the vectors into its cheap format inside the time, and audits as well.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Case, Target, Variant, Workload
from benchmarks.top_k import unit_vectors

_NEGATIVES, _MARGIN = 7, 0.05


class GivenVectors:
    """Stands in for a model on both sides: `encode*` looks vectors up by text."""

    def __init__(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        import torch

        self._vectors = vectors
        self.device = torch.device("cpu")

    def encode(self, texts: list[str], *, role: str, progress: bool | str) -> NDArray[np.float32]:
        """Return the vectors of texts, as our encoders do."""
        return self._vectors[role]

    def fingerprint(self) -> str:
        """Return a name for these vectors."""
        return "given"

    def encode_query(self, texts: list[str], **_: Any) -> NDArray[np.float32]:
        """Return the queries' vectors, as sentence-transformers' models do."""
        return self._vectors["query"]

    def encode_document(self, texts: list[str], **_: Any) -> NDArray[np.float32]:
        """Return the documents' vectors, as sentence-transformers' models do."""
        return self._vectors["document"]

    def get_embedding_dimension(self) -> int:
        """Return the vectors' width."""
        return int(self._vectors["document"].shape[1])

    def similarity(self, left: Any, right: Any) -> Any:
        """Return all cosines, by the peer's own function."""
        from sentence_transformers.util import cos_sim

        return cos_sim(left, right)

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        """Return the cosines of pairs, by the peer's own function."""
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(left, right)


def workload(quick: bool) -> Workload:
    """Mine for 5,000 queries among 20,000 documents (20 among 400 when quick)."""
    from rivals.data import Collection, Dataset, Judgements
    from rivals.negatives import PositiveAware, Top, mine_hard_negatives
    from rivals.retrieve import Dense

    asked, size, centres = (20, 400, 8) if quick else (5_000, 20_000, 400)
    candidates = 10 * _NEGATIVES + 2  # what sentence-transformers looks at with one positive and a margin
    generator = np.random.default_rng(3)
    documents = unit_vectors(size, centres, 2)
    copies, originals = np.split(generator.permutation(size)[: size // 5 * 2], 2)  # near copies: suspects to leave out
    documents[copies] = documents[originals] + 0.01 * generator.standard_normal((size // 5, 384), dtype=np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    positive = generator.choice(size, asked, replace=False)
    queries = documents[positive] + 0.04 * generator.standard_normal((asked, documents.shape[1]), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    model = GivenVectors({"query": queries, "document": documents})
    questions = Collection(
        [f"q{i}" for i in range(asked)], [f"question number {i}" for i in range(asked)], name="query"
    )
    answers = Collection([f"d{i}" for i in range(size)], [f"answer number {i}" for i in range(size)])
    judgements = Judgements.build(np.arange(asked), positive, np.ones(asked), queries=asked, documents=size)
    dataset = Dataset(questions, answers, judgements)

    def ours(threads: int) -> dict[str, list[str]]:
        mined = mine_hard_negatives(
            Dense(model, answers, vectors=documents, show_progress=False),
            dataset,
            filters=PositiveAware(relative=_MARGIN),
            sampler=Top(_NEGATIVES),
            top_k=candidates,
            show=False,
        )
        full = mined.draw.mask.all(1)
        found = np.array(answers.texts, dtype=object)[mined.draw.candidate[full]].tolist()
        return dict(zip(np.array(questions.texts, dtype=object)[full], found, strict=True))

    variants = [Variant("rivals", ours)]
    missing = [name for name in ("sentence_transformers", "datasets") if find_spec(name) is None]
    if not missing:
        from datasets import Dataset as Table
        from sentence_transformers.util import mine_hard_negatives as mine_theirs

        pairs = Table.from_dict({"anchor": questions.texts, "positive": [answers.texts[row] for row in positive]})

        def theirs(faiss: bool) -> Any:
            return mine_theirs(
                pairs,
                model,  # type: ignore[arg-type]
                corpus=answers.texts,
                relative_margin=_MARGIN,
                num_negatives=_NEGATIVES,
                output_format="n-tuple",
                use_faiss=faiss,
                verbose=False,
            )

        variants.append(Variant("sentence-transformers", lambda threads: theirs(False)))
        if find_spec("faiss") is not None:
            variants.append(Variant("sentence-transformers, use_faiss=True", lambda threads: theirs(True)))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        own = results["rivals"]
        figures = {"queries with 7 negatives": len(own) / asked}
        if "sentence-transformers" in results:
            same = [
                own.get(row["anchor"]) == [row[f"negative_{i}"] for i in range(1, _NEGATIVES + 1)]
                for row in results["sentence-transformers"]
            ]
            figures["queries with the same list"] = sum(same) / max(len(same), len(own), 1)
        return figures

    return Workload(
        what=f"{asked:,} queries x {size:,} documents, vectors given, {_NEGATIVES} negatives, relative margin 5 %",
        unit="queries/s",
        amount=asked,
        flops=2.0 * asked * size * documents.shape[1],
        variants=variants,
        targets=[Target("at least 3x sentence-transformers", "speed", 3.0)],
        checks=checks,
        missing=missing,
        rounds=5,
    )


CASES: dict[str, Case] = {"": workload}
