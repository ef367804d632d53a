"""Runs the laws of `tests/laws.py` on every public loss and measure."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rivals.losses
from rivals.errors import RivalsError
from tests import laws

ALL = laws.loss_subjects()
RANKING = laws.loss_subjects("lists")
MEASURES = laws.measure_subjects()
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
over_all = pytest.mark.parametrize("subject", ALL + MEASURES, ids=str)
over_losses = pytest.mark.parametrize("subject", ALL, ids=str)


@over_all
@few
@given(st.data(), st.integers(0, 6), st.sampled_from(laws.GARBAGE))
def test_padding_never_counts(subject: laws.Subject, data: Any, column: int, garbage: float) -> None:
    laws.padding_never_counts(subject, data.draw(laws.problems(subject.form)), column, garbage)


@pytest.mark.parametrize("subject", RANKING, ids=str)
@few
@given(laws.lists(), st.sampled_from([float("nan"), float("inf")]))
def test_padding_of_a_ranking_loss_may_hold_anything(
    subject: laws.Subject, problem: laws.Lists, garbage: float
) -> None:
    laws.padding_never_counts(subject, problem, 0, garbage)


@over_all
@few
@given(st.data(), st.integers(0, 1000))
def test_order_never_counts(subject: laws.Subject, data: Any, seed: int) -> None:
    laws.order_never_counts(subject, data.draw(laws.problems(subject.form)), seed)


@over_all
@few
@given(st.data())
def test_empty_lists_never_count(subject: laws.Subject, data: Any) -> None:
    laws.empty_lists_never_count(subject, data.draw(laws.problems(subject.form)))


@over_all
@few
@given(st.data())
def test_twice_is_the_same(subject: laws.Subject, data: Any) -> None:
    laws.twice_is_the_same(subject, data.draw(laws.problems(subject.form)))


@over_losses
@few
@given(st.data())
def test_reductions_agree(subject: laws.Subject, data: Any) -> None:
    laws.reductions_agree(subject, data.draw(laws.problems(subject.form)))


@over_losses
@few
@given(st.data())
def test_absent_entries_get_no_gradient(subject: laws.Subject, data: Any) -> None:
    laws.absent_entries_get_no_gradient(subject, data.draw(laws.problems(subject.form)))


@over_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@settings(few, max_examples=8)
@given(st.data(), st.sampled_from([1.0, 800.0, 1e4]))
def test_extremes_stay_finite(subject: laws.Subject, dtype: torch.dtype, data: Any, magnitude: float) -> None:
    laws.extremes_stay_finite(subject, data.draw(laws.problems(subject.form, dtype=dtype)), magnitude)


@pytest.mark.parametrize("subject", [s for s in RANKING if s.name in laws.SHIFT_INVARIANT], ids=str)
@few
@given(laws.lists(), st.floats(0.1, 50))
def test_shifts_change_nothing(subject: laws.Subject, problem: laws.Lists, shift: float) -> None:
    laws.shifts_change_nothing(subject, problem, shift)


@over_losses
@settings(few, max_examples=5)
@given(st.data())
def test_gradients_are_right(subject: laws.Subject, data: Any) -> None:
    laws.gradients_are_right(subject, data.draw(laws.problems(subject.form)))


# ---------------------------------------------------------------------------------- bad input


def _bad_inputs() -> dict[str, tuple[dict[str, Any], str]]:
    nan = torch.full((2, 3), float("nan"))
    return {
        "relevance of another shape": ({"relevance": torch.ones(2, 4)}, "relevance"),
        "negative relevance": ({"relevance": torch.tensor([[1.0, -1.0, 0.0]] * 2)}, "relevance"),
        "NaN relevance": ({"relevance": nan}, "relevance"),
        "relevance that is a list": ({"relevance": [[1, 0, 0]] * 2}, "relevance"),
        "mask of numbers": ({"mask": torch.ones(2, 3)}, "mask"),
        "mask of another shape": ({"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
        "weight of another shape": ({"weight": torch.ones(2)}, "weight"),
        "negative weight": ({"weight": -torch.ones(2, 3)}, "weight"),
        "NaN weight": ({"weight": nan}, "weight"),
        "unknown reduction": ({"reduction": "median"}, "reduction"),
    }


@over_losses
@pytest.mark.parametrize("bad", _bad_inputs())
def test_bad_input_is_named(subject: laws.Subject, bad: str) -> None:
    changed, name = _bad_inputs()[bad]
    if subject.form == "embeddings":
        leading = {"queries": torch.randn(2, 4), "documents": torch.randn(3, 4)}
    else:
        leading = {"scores": torch.randn(2, 3)}
    arguments = leading | {"relevance": torch.tensor([[1.0, 0.0, 0.0]] * 2)} | subject.options
    subject.function(**arguments)
    with pytest.raises(RivalsError, match=rf"\b{name}\b"):
        subject.function(**(arguments | changed))


@over_losses
def test_scores_must_be_floating_point(subject: laws.Subject) -> None:
    names = ("queries", "documents") if subject.form == "embeddings" else ("scores",)
    for name in names:
        arguments = {other: torch.randn(2, 2) for other in names} | {name: torch.ones(2, 2, dtype=torch.int64)}
        with pytest.raises(RivalsError, match=rf"\b{name}\b.*floating"):
            subject.function(**arguments, relevance=torch.eye(2), **subject.options)


@pytest.mark.parametrize("subject", MEASURES, ids=str)
def test_bad_input_of_a_measure_is_refused(subject: laws.Subject) -> None:
    scores, relevance = torch.randn(2, 3), torch.eye(2, 3)
    subject.function(scores, relevance, **subject.options)
    with pytest.raises(RivalsError, match="relevance"):
        subject.function(scores, torch.ones(2, 4), **subject.options)
    with pytest.raises(RivalsError, match="mask"):
        subject.function(scores, relevance, torch.ones(2, 4, dtype=torch.bool), **subject.options)


@over_losses
def test_nothing_at_all_is_worth_nothing(subject: laws.Subject) -> None:
    for shape in ((0, 3), (2, 0), (0, 0)):
        relevance, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        if subject.form == "embeddings":
            problem: Any = laws.Embeddings(torch.randn(shape[0], 4), torch.randn(shape[1], 4), relevance, mask)
        else:
            problem = laws.Lists(torch.randn(shape), relevance, mask)
        for reduction in laws.REDUCTIONS:
            assert subject(problem, reduction=reduction) == 0
        assert all((gradient == 0).all() for gradient in laws.gradients(subject, problem))


# ---------------------------------------------------------------------------------- collection


def test_every_public_loss_is_in_the_table() -> None:
    public = {name for name in rivals.losses.__all__ if name != "LOSSES"}
    assert {f"{name}_loss" for name in rivals.losses.LOSSES} == public
    assert all(function.__name__ == f"{name}_loss" for name, function in rivals.losses.LOSSES.items())
    assert set(laws.VARIANTS) | laws.SHIFT_INVARIANT <= set(rivals.losses.LOSSES)


def test_a_function_without_a_strategy_fails_collection() -> None:
    def odd_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return logits - targets

    with pytest.raises(LookupError, match=re.escape("odd_loss(logits, targets, ...) has no law strategy")):
        laws.classify(odd_loss)


def test_the_laws_catch_a_loss_that_breaks_them() -> None:
    def leaky_loss(
        scores: Any, relevance: Any, mask: Any = None, *, weight: Any = None, reduction: str = "mean"
    ) -> Any:
        return (scores * relevance).cumsum(-1).mean()

    leaky = laws.Subject("leaky", leaky_loss, laws.classify(leaky_loss))
    problem = laws.Lists(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[True, False, True]])
    )
    for check in (
        lambda: laws.padding_never_counts(leaky, problem, 0, 1e4),
        lambda: laws.order_never_counts(leaky, problem, 3),
        lambda: laws.empty_lists_never_count(leaky, problem),
        lambda: laws.absent_entries_get_no_gradient(leaky, problem),
        lambda: laws.shifts_change_nothing(leaky, problem, 1.0),
    ):
        with pytest.raises(AssertionError):
            check()
