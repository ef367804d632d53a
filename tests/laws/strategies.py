"""Draws problems: small, with ties in labels, absent candidates, empty lists and lists without a positive."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.laws.collection import Subject
from tests.laws.forms import Embeddings, Labelled, Lists


def problems(subject: Subject, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Any]:
    """Return the strategy for a subject's form, with weights and further tensors if it takes them."""
    weighted = None if "weight" in subject.takes else False
    if subject.form == "embeddings":
        return embeddings(dtype=dtype, weighted=weighted)
    if subject.form in ("labelled", "classes"):
        return labelled(dtype=dtype, weighted=weighted, classes=subject.form == "classes")
    return lists(
        dtype=dtype,
        weighted=weighted,
        targets=subject.form == "targets",
        extra=tuple(sorted(subject.law.extra.items())),
        relevance=subject.law.relevance,
        cosine=subject.law.cosine,
    )


@st.composite
def lists(
    draw: st.DrawFn,
    dtype: torch.dtype = torch.float64,
    weighted: bool | None = None,
    targets: bool = False,
    extra: tuple[tuple[str, str], ...] = (),
    relevance: str = "graded",
    cosine: bool = False,
) -> Lists:
    """Up to 4 lists of up to 6: scores without ties, relevance 0..3, some candidates and sometimes lists absent."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = draw(st.sampled_from([0.1, 1.0, 20.0]))
    scores = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
    if cosine:
        scores = 0.95 * scores.tanh()
    judged, mask, weight = _judged(draw, shape, generator, dtype, weighted)
    if relevance == "binary":
        judged = (judged > 0).to(dtype)
    if targets:
        judged = (torch.randn(shape, generator=generator, dtype=torch.float64) * 2).to(dtype)
    further = {name: _extra(kind, shape, generator, dtype) for name, kind in extra}
    return Lists(scores.to(dtype), judged, mask, weight, further)


@st.composite
def embeddings(draw: st.DrawFn, dtype: torch.dtype = torch.float64, weighted: bool | None = None) -> Embeddings:
    """Up to 4 queries and 6 documents of width 5, with several positives and absent documents."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    queries = torch.randn(shape[0], 5, generator=generator, dtype=torch.float64)
    documents = torch.randn(shape[1], 5, generator=generator, dtype=torch.float64)
    relevance, mask, weight = _judged(draw, shape, generator, dtype, weighted)
    return Embeddings(queries.to(dtype), documents.to(dtype), relevance, mask, weight)


@st.composite
def labelled(
    draw: st.DrawFn, dtype: torch.dtype = torch.float64, weighted: bool | None = None, classes: bool = False
) -> Labelled:
    """Up to 9 examples of up to 4 classes (or of 2 to 5 logits), some absent, some classes with one example."""
    size = draw(st.integers(1, 9))
    width = draw(st.integers(2, 5)) if classes else 5
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = torch.randn(size, width, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.3, 1.0, 5.0]))
    labels = torch.randint(0, width if classes else draw(st.integers(1, 4)), (size,), generator=generator)
    mask = torch.rand(size, generator=generator) < draw(st.sampled_from([0.5, 0.9, 1.0]))
    if weighted is None:
        weighted = draw(st.booleans())
    weight = (torch.rand(size, generator=generator) * 2).to(dtype) if weighted else None
    return Labelled(rows.to(dtype), labels, mask, weight)


def _extra(kind: str, shape: tuple[int, int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    if kind == "normal":
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if kind == "positive":
        return (0.1 + 0.9 * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if kind == "bool":
        return torch.rand(shape, generator=generator) < 0.6
    raise LookupError(f"further tensors are normal, positive or bool; got {kind!r}")


def _judged(
    draw: st.DrawFn, shape: tuple[int, int], generator: torch.Generator, dtype: torch.dtype, weighted: bool | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    share = draw(st.sampled_from([0.0, 0.3, 0.8]))
    relevance = torch.randint(1, 4, shape, generator=generator) * (torch.rand(shape, generator=generator) < share)
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.5, 0.9, 1.0]))
    if weighted is None:
        weighted = draw(st.booleans())
    weight = None
    if weighted:
        weight = torch.rand(shape, generator=generator) * 2 * (torch.rand(shape, generator=generator) < 0.9)
    return relevance.to(dtype), mask, None if weight is None else weight.to(dtype)
