"""The laws every loss and every measure obeys, and the collection of what they are checked on.

Subjects are found by themselves: every entry of `rivals.losses.LOSSES` and `rivals.measures.MEASURES`, classified by
the names of its leading arguments. A public function of another form is an error here, not a silent gap: give it a
strategy. `tests/test_laws.py` runs every law on every subject; a law is a function (subject, problem) that asserts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from rivals.losses import LOSSES
from rivals.measures import MEASURES

REDUCTIONS = ("mean", "sum", "list_mean")
GARBAGE = (0.0, 1e4, -1e4, 3.7)

#: Options under which a loss is checked besides its defaults, by its name in LOSSES.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "binary_cross_entropy": ({"threshold": 1.0},),
    "in_batch_info_nce": (
        {"positives": "all", "temperature": 0.5},
        {"directions": ("query_to_document", "document_to_query"), "normalize": False, "temperature": 2.0},
        {"fused": True},
        {"fused": True, "positives": "all", "directions": ("document_to_query",), "temperature": 0.01},
        {
            "joint": True,
            "directions": ("query_to_document", "document_to_query", "query_to_query", "document_to_document"),
        },
    ),
    "info_nce": ({"positives": "all"}, {"temperature": 2.0}),
    "poly1_softmax": ({"epsilon": 0.3},),
    "softmax": ({"normalize_labels": True, "temperature": 0.5},),
}
#: Losses that do not change when a constant is added to all scores of a list.
SHIFT_INVARIANT = {"info_nce", "softmax", "poly1_softmax", "pairwise_logistic"}


@dataclass(frozen=True)
class Subject:
    """A function under law, with fixed options. `form` is "lists", "embeddings" or "measure"."""

    name: str
    function: Callable[..., Any]
    form: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, problem: Lists | Embeddings, **options: Any) -> Any:
        return self.function(*problem.arguments(), **(self.options | problem.extras(self) | options))

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.options.items())
        return self.name + (f"[{given}]" if given else "")


@dataclass(frozen=True)
class Lists:
    """Scores, relevance and mask [Q, C], and perhaps weights."""

    scores: Tensor
    relevance: Tensor
    mask: Tensor
    weight: Tensor | None = None

    def arguments(self) -> tuple[Tensor, ...]:
        return self.scores, self.relevance, self.mask

    def extras(self, subject: Subject) -> dict[str, Any]:
        return {} if self.weight is None or subject.form == "measure" else {"weight": self.weight}

    def inputs(self) -> tuple[Tensor, ...]:
        return (self.scores,)

    def with_inputs(self, scores: Tensor) -> Lists:
        return replace(self, scores=scores)

    def columns(self, change: Callable[[Tensor], Tensor]) -> Lists:
        """Apply a change to the last dimension of everything."""
        weight = None if self.weight is None else change(self.weight)
        return Lists(change(self.scores), change(self.relevance), change(self.mask), weight)

    def padded(self, column: int, garbage: float) -> Lists:
        """Insert an absent candidate that holds garbage."""
        wide = self.columns(lambda values: _insert(values, column, garbage if values.is_floating_point() else 0))
        return replace(wide, relevance=_insert(self.relevance, column, abs(garbage)))

    def with_empty_list(self) -> Lists:
        """Append a list whose candidates are all absent."""
        wide = self.map(lambda values: torch.cat([values, values.new_ones(1, values.shape[1])]))
        return replace(wide, mask=torch.cat([self.mask, torch.zeros_like(self.mask[:1])]))

    def map(self, change: Callable[[Tensor], Tensor]) -> Lists:
        weight = None if self.weight is None else change(self.weight)
        return Lists(change(self.scores), change(self.relevance), change(self.mask), weight)


@dataclass(frozen=True)
class Embeddings:
    """Queries [Q, D], documents [C, D], relevance and mask [Q, C], and perhaps weights; private negatives by option."""

    queries: Tensor
    documents: Tensor
    relevance: Tensor
    mask: Tensor
    weight: Tensor | None = None

    def arguments(self) -> tuple[Tensor, ...]:
        return self.queries, self.documents, self.relevance, self.mask

    def extras(self, subject: Subject) -> dict[str, Any]:
        return {} if self.weight is None else {"weight": self.weight}

    def inputs(self) -> tuple[Tensor, ...]:
        return self.queries, self.documents

    def with_inputs(self, queries: Tensor, documents: Tensor) -> Embeddings:
        return replace(self, queries=queries, documents=documents)

    def columns(self, change: Callable[[Tensor], Tensor]) -> Embeddings:
        weight = None if self.weight is None else change(self.weight)
        documents = change(self.documents.T).T
        return Embeddings(self.queries, documents, change(self.relevance), change(self.mask), weight)

    def padded(self, column: int, garbage: float) -> Embeddings:
        """Insert a document that is absent for every query and holds garbage."""
        return self.columns(lambda values: _insert(values, column, garbage if values.is_floating_point() else 0))

    def with_empty_list(self) -> Embeddings:
        """Append a query for which every document is absent."""

        def append(values: Tensor) -> Tensor:
            return torch.cat([values, torch.zeros_like(values[:1]) if values.dtype == torch.bool else values[:1]])

        weight = None if self.weight is None else append(self.weight)
        return Embeddings(append(self.queries), self.documents, append(self.relevance), append(self.mask), weight)


def _insert(values: Tensor, column: int, value: float) -> Tensor:
    new = torch.full_like(values[:, :1], value)
    return torch.cat([values[:, :column], new, values[:, column:]], dim=1)


# ---------------------------------------------------------------------------------- collection


def classify(function: Callable[..., Any], *, measure: bool = False) -> str:
    """Return the form of a public function, by the names of its leading arguments; an unknown form raises."""
    names = tuple(inspect.signature(function).parameters)
    if names[:3] == ("scores", "relevance", "mask"):
        return "measure" if measure else "lists"
    if names[:4] == ("queries", "documents", "relevance", "mask") and not measure:
        return "embeddings"
    raise LookupError(f"{function.__name__}({', '.join(names[:4])}, ...) has no law strategy; add one to tests/laws.py")


def loss_subjects(form: str | None = None) -> list[Subject]:
    """Return every loss, plain and with its variants."""
    subjects = [
        Subject(name, function, classify(function), options)
        for name, function in LOSSES.items()
        for options in ({}, *VARIANTS.get(name, ()))
    ]
    return [subject for subject in subjects if form in (None, subject.form)]


def measure_subjects() -> list[Subject]:
    """Return every measure, plain and, where it takes one, with a cut-off."""
    return [
        Subject(name, function, classify(function, measure=True), options)
        for name, function in MEASURES.items()
        for options in ({}, {"k": 3})
        if not options or "k" in inspect.signature(function).parameters
    ]


# ---------------------------------------------------------------------------------- strategies


@st.composite
def lists(draw: st.DrawFn, dtype: torch.dtype = torch.float64, weighted: bool | None = None) -> Lists:
    """Up to 4 lists of up to 6: scores without ties, relevance 0..3, some candidates and sometimes lists absent."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = draw(st.sampled_from([0.1, 1.0, 20.0]))
    scores = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
    relevance, mask, weight = _judged(draw, shape, generator, dtype, weighted)
    return Lists(scores.to(dtype), relevance, mask, weight)


@st.composite
def embeddings(draw: st.DrawFn, dtype: torch.dtype = torch.float64, weighted: bool | None = None) -> Embeddings:
    """Up to 4 queries and 6 documents of width 5, with several positives and absent documents."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    queries = torch.randn(shape[0], 5, generator=generator, dtype=torch.float64)
    documents = torch.randn(shape[1], 5, generator=generator, dtype=torch.float64)
    relevance, mask, weight = _judged(draw, shape, generator, dtype, weighted)
    return Embeddings(queries.to(dtype), documents.to(dtype), relevance, mask, weight)


def problems(form: str, **options: Any) -> st.SearchStrategy[Any]:
    """Return the strategy for a form."""
    return embeddings(**options) if form == "embeddings" else lists(**options)


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


# ---------------------------------------------------------------------------------- laws


def padding_never_counts(subject: Subject, problem: Any, column: int, garbage: float) -> None:
    """An absent candidate added anywhere changes no value, and no gradient of what is there."""
    wide = problem.padded(column % (problem.mask.shape[1] + 1), garbage)
    for options in _reductions(subject):
        assert_equal(subject(wide, **options), subject(problem, **options))
    if subject.form != "measure":
        inside, outside = gradients(subject, problem), gradients(subject, wide)
        assert_equal(torch.cat([g.flatten() for g in outside]).sum(), torch.cat([g.flatten() for g in inside]).sum())


def order_never_counts(subject: Subject, problem: Any, seed: int) -> None:
    """Permuting the candidates changes nothing."""
    order = torch.randperm(problem.mask.shape[1], generator=torch.Generator().manual_seed(seed))
    for options in _reductions(subject):
        assert_equal(subject(problem.columns(lambda values: values[:, order]), **options), subject(problem, **options))


def empty_lists_never_count(subject: Subject, problem: Any) -> None:
    """A list without any candidate changes nothing; by itself it is worth 0."""
    longer = problem.with_empty_list()
    if subject.form == "measure":
        assert_equal(subject(longer)[:-1], subject(problem))
        return
    for options in _reductions(subject):
        assert_equal(subject(longer, **options), subject(problem, **options))


def reductions_agree(subject: Subject, problem: Any) -> None:
    """ "sum" is the sum of "none", wherever the subject can give "none"."""
    if len(subject.options.get("directions", ())) > 1 and not subject.options.get("joint"):
        return
    per_list = Subject(subject.name, subject.function, subject.form, subject.options | {"fused": False})
    if "fused" not in subject.options:
        per_list = subject
    assert_equal(per_list(problem, reduction="none").sum(), subject(problem, reduction="sum"))


def absent_entries_get_no_gradient(subject: Subject, problem: Any) -> None:
    """No gradient is NaN, and that of an absent candidate is exactly 0."""
    found = gradients(subject, problem)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    if subject.form == "lists":
        assert (found[0][~problem.mask] == 0).all()
    else:
        assert (found[0][~problem.mask.any(1)] == 0).all()
        assert (found[1][~problem.mask.any(0)] == 0).all()


def extremes_stay_finite(subject: Subject, problem: Any, magnitude: float) -> None:
    """Value and gradient are finite at scores of +-magnitude in the problem's dtype; the value is at least float32."""
    pushed = problem.with_inputs(*(tensor.sign() * magnitude for tensor in problem.inputs()))
    value = subject(pushed)
    assert value.dtype == torch.promote_types(problem.inputs()[0].dtype, torch.float32)
    assert torch.isfinite(value).all()
    for gradient, tensor in zip(gradients(subject, pushed), pushed.inputs(), strict=True):
        assert gradient.dtype == tensor.dtype
        assert torch.isfinite(gradient).all()


def shifts_change_nothing(subject: Subject, problem: Lists, shift: float) -> None:
    """A constant added to every score of a list leaves the loss, and its gradient sums to 0 over each list."""
    lift = torch.linspace(-shift, shift, len(problem.scores), dtype=problem.scores.dtype)[:, None]
    assert_equal(subject(replace(problem, scores=problem.scores + lift)), subject(problem), tolerance=1e-8)
    (gradient,) = gradients(subject, problem)
    assert_equal(gradient.sum(1), torch.zeros_like(gradient[:, 0]))


def gradients_are_right(subject: Subject, problem: Any) -> None:
    """Autograd agrees with finite differences in float64."""
    leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in problem.inputs())
    assert torch.autograd.gradcheck(lambda *inputs: subject(problem.with_inputs(*inputs)), leaves, atol=1e-6, rtol=1e-5)


def twice_is_the_same(subject: Subject, problem: Any) -> None:
    """The same input gives the same bits, value and gradient; inputs are left as they were."""
    before = [tensor.clone() for tensor in problem.arguments()]
    first, second = subject(problem), subject(problem)
    assert torch.equal(torch.nan_to_num(first, nan=-1.0), torch.nan_to_num(second, nan=-1.0))
    if subject.form != "measure":
        pairs = zip(gradients(subject, problem), gradients(subject, problem), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)
    assert all(torch.equal(old, new) for old, new in zip(before, problem.arguments(), strict=True))


# ---------------------------------------------------------------------------------- helpers


def gradients(subject: Subject, problem: Any, **options: Any) -> list[Tensor]:
    """Return the gradient of the subject's value with respect to scores or embeddings."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in problem.inputs()]
    value = subject(problem.with_inputs(*leaves), **options)
    return list(torch.autograd.grad(value.sum(), leaves))


def assert_equal(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> None:
    """Assert closeness, relative and absolute, NaN equal to NaN, with the values in the message."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def _reductions(subject: Subject) -> list[dict[str, str]]:
    return [{}] if subject.form == "measure" else [{"reduction": reduction} for reduction in REDUCTIONS]
