"""Encoding texts of mixed lengths with all-MiniLM-L6-v2, against sentence-transformers as it comes.

Texts are questions and answers of the embedded sample in equal parts, so lengths run from 5 tokens to the model's 256.
The rate counts real tokens (special ones included, padding not).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload

_LAYER_WEIGHTS = 10_646_784  # MiniLM-L6's parameters outside its embeddings: 2 operations a token each


def mixed_texts(count: int) -> list[str]:
    """Return questions and answers of the embedded sample, half and half, in a fixed random order."""
    from rivals.data import load_sample

    sample, generator = load_sample(), np.random.default_rng(0)
    half = count // 2
    questions = generator.choice(len(sample.queries), half, replace=False)
    answers = generator.choice(len(sample.documents), count - half, replace=False)
    texts = [sample.queries.full_texts[row] for row in questions] + [
        sample.documents.full_texts[row] for row in answers
    ]
    return [texts[place] for place in generator.permutation(count)]


def workload(quick: bool) -> Workload:
    """Encode 256 texts (8 when quick)."""
    from rivals.models import Encoder, resolve_model

    texts = mixed_texts(8 if quick else 256)
    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")
    tokens = int(encoder.tokenize(texts).lengths.sum())
    variants = [Variant("rivals", lambda threads: encoder.encode(texts, progress=False))]
    missing = []
    if find_spec("sentence_transformers") is None:
        missing.append("sentence-transformers")
    else:
        from sentence_transformers import SentenceTransformer

        folder = str(resolve_model("all-MiniLM-L6-v2"))
        plain = SentenceTransformer(folder, device="cpu")
        half = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "bfloat16"})
        variants += [
            Variant("sentence-transformers", lambda threads: plain.encode(texts)),
            Variant("sentence-transformers, bfloat16 by hand", lambda threads: half.encode(texts)),
        ]

    def checks(results: dict[str, Any]) -> dict[str, float]:
        if "sentence-transformers" not in results:
            return {}
        cosine = (results["rivals"] * results["sentence-transformers"]).sum(1)
        return {"least cosine with sentence-transformers": float(cosine.min())}

    return Workload(
        what=f"{len(texts)} texts, {tokens:,} tokens, all-MiniLM-L6-v2",
        unit="tokens/s",
        amount=tokens,
        flops=2.0 * _LAYER_WEIGHTS * tokens,
        variants=variants,
        targets=[Target("at least 3x sentence-transformers' default tokens per second", "speed", 3.0)],
        checks=checks,
        missing=missing,
        notes=["tokenising is part of the time; each side batches as it does by default"],
        rounds=3,
    )


CASES: dict[str, Case] = {"": workload}
