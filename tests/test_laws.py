"""Runs the laws of `tests/laws.py` on every public loss and measure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rivals.losses
from rivals.errors import RivalsError
from tests import laws

ALL = laws.loss_subjects()
RANKING = [subject for subject in ALL if subject.form in ("lists", "targets")]
MEASURES = laws.measure_subjects()
few = settings(max_examples=10, deadline=None, derandomize=True, database=None)
over_losses = pytest.mark.parametrize("subject", ALL, ids=str)


def draw(data: Any, subject: laws.Subject, dtype: torch.dtype = torch.float64) -> Any:
    return data.draw(laws.problems(subject, dtype))


def over(law: str, subjects: list[laws.Subject]) -> Any:
    """Parametrise a test over the subjects that are not exempt from a law."""
    return pytest.mark.parametrize("subject", [s for s in subjects if law not in s.law.exempt], ids=str)


@over("padding_never_counts", ALL + MEASURES)
@few
@given(st.data(), st.integers(0, 6), st.sampled_from(laws.GARBAGE))
def test_padding_never_counts(subject: laws.Subject, data: Any, column: int, garbage: float) -> None:
    laws.padding_never_counts(subject, draw(data, subject), column, garbage)


@over("padding_never_counts", RANKING)
@few
@given(st.data(), st.sampled_from([float("nan"), float("inf")]))
def test_padding_of_a_ranking_loss_may_hold_anything(subject: laws.Subject, data: Any, garbage: float) -> None:
    laws.padding_never_counts(subject, draw(data, subject), 0, garbage)


@over("order_never_counts", ALL + MEASURES)
@few
@given(st.data(), st.integers(0, 1000))
def test_order_never_counts(subject: laws.Subject, data: Any, seed: int) -> None:
    laws.order_never_counts(subject, draw(data, subject), seed)


@over("empty_lists_never_count", ALL + MEASURES)
@few
@given(st.data())
def test_empty_lists_never_count(subject: laws.Subject, data: Any) -> None:
    laws.empty_lists_never_count(subject, draw(data, subject))


@over("twice_is_the_same", ALL + MEASURES)
@few
@given(st.data())
def test_twice_is_the_same(subject: laws.Subject, data: Any) -> None:
    laws.twice_is_the_same(subject, draw(data, subject))


@over("reductions_agree", ALL)
@few
@given(st.data())
def test_reductions_agree(subject: laws.Subject, data: Any) -> None:
    laws.reductions_agree(subject, draw(data, subject))


@over("absent_entries_get_no_gradient", ALL)
@few
@given(st.data())
def test_absent_entries_get_no_gradient(subject: laws.Subject, data: Any) -> None:
    laws.absent_entries_get_no_gradient(subject, draw(data, subject))


@over("extremes_stay_finite", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@settings(few, max_examples=8)
@given(st.data(), st.sampled_from([1.0, 800.0, 1e4]))
def test_extremes_stay_finite(subject: laws.Subject, dtype: torch.dtype, data: Any, magnitude: float) -> None:
    magnitude = 1.0 if subject.law.cosine else magnitude
    laws.extremes_stay_finite(subject, draw(data, subject, dtype), magnitude)


@pytest.mark.parametrize("subject", [s for s in RANKING if s.law.shift_invariant], ids=str)
@few
@given(st.data(), st.floats(0.1, 50))
def test_shifts_change_nothing(subject: laws.Subject, data: Any, shift: float) -> None:
    laws.shifts_change_nothing(subject, draw(data, subject), shift)


@over("gradients_are_right", ALL)
@settings(few, max_examples=5)
@given(st.data())
def test_gradients_are_right(subject: laws.Subject, data: Any) -> None:
    laws.gradients_are_right(subject, draw(data, subject))


# ---------------------------------------------------------------------------------- bad input


def _bad_inputs() -> dict[str, tuple[dict[str, Any], str]]:
    nan = torch.full((2, 3), float("nan"))
    return {
        "relevance of another shape": ({"relevance": torch.ones(2, 4)}, "relevance"),
        "negative relevance": ({"relevance": torch.tensor([[1.0, -1.0, 0.0]] * 2)}, "relevance"),
        "NaN relevance": ({"relevance": nan}, "relevance"),
        "relevance that is a list": ({"relevance": [[1, 0, 0]] * 2}, "relevance"),
        "targets of another shape": ({"targets": torch.ones(2, 4)}, "targets"),
        "NaN targets": ({"targets": nan}, "targets"),
        "labels of another shape": ({"labels": torch.zeros(4, dtype=torch.int64)}, "labels"),
        "labels that are no whole numbers": ({"labels": torch.tensor([0.5, 0.0])}, "labels"),
        "mask of numbers": ({"mask": torch.ones(2, 3)}, "mask"),
        "mask of another shape": ({"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
        "weight of another shape": ({"weight": torch.ones(7)}, "weight"),
        "negative weight": ({"weight": -torch.ones(2, 3)}, "weight"),
        "NaN weight": ({"weight": nan}, "weight"),
        "unknown reduction": ({"reduction": "median"}, "reduction"),
    }


def _sound_input(subject: laws.Subject) -> dict[str, Any]:
    relevance = torch.tensor([[1.0, 0.0, 0.0]] * 2)
    extra = {
        name: torch.ones(2, 3, dtype=torch.bool if kind == "bool" else None) for name, kind in subject.law.extra.items()
    }
    leading: dict[str, Any] = {
        "lists": {"scores": torch.rand(2, 3), "relevance": relevance},
        "targets": {"scores": torch.randn(2, 3), "targets": torch.randn(2, 3)},
        "embeddings": {"queries": torch.randn(2, 4), "documents": torch.randn(3, 4), "relevance": relevance},
        "labelled": {"embeddings": torch.randn(2, 3), "labels": torch.tensor([0, 1])},
        "classes": {"logits": torch.randn(2, 3), "labels": torch.tensor([0, 1])},
    }[subject.form]
    return leading | extra | subject.options


@over_losses
@pytest.mark.parametrize("bad", _bad_inputs())
def test_bad_input_is_named(subject: laws.Subject, bad: str) -> None:
    changed, name = _bad_inputs()[bad]
    sound = _sound_input(subject)
    subject.function(**sound)
    if name not in subject.takes or name in subject.options:
        return  # this subject has no such argument
    with pytest.raises(RivalsError, match=rf"\b{name}\b"):
        subject.function(**(sound | changed))


@over_losses
def test_scores_must_be_floating_point(subject: laws.Subject) -> None:
    sound = _sound_input(subject)
    for name in sound.keys() & {"scores", "queries", "documents", "embeddings", "logits"}:
        with pytest.raises(RivalsError, match=rf"\b{name}\b.*floating"):
            subject.function(**(sound | {name: torch.ones(sound[name].shape, dtype=torch.int64)}))


@pytest.mark.parametrize("subject", MEASURES, ids=str)
def test_bad_input_of_a_measure_is_refused(subject: laws.Subject) -> None:
    scores, relevance = torch.randn(2, 3), torch.eye(2, 3)
    subject.function(scores, relevance, **subject.options)
    with pytest.raises(RivalsError, match="relevance"):
        subject.function(scores, torch.ones(2, 4), **subject.options)
    with pytest.raises(RivalsError, match="mask"):
        subject.function(scores, relevance, torch.ones(2, 4, dtype=torch.bool), **subject.options)


@over("nothing_is_worth_nothing", ALL)
def test_nothing_at_all_is_worth_nothing(subject: laws.Subject) -> None:
    for shape in ((0, 3), (2, 0), (0, 0)):
        relevance, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        if subject.form == "embeddings":
            problem: Any = laws.Embeddings(torch.randn(shape[0], 4), torch.randn(shape[1], 4), relevance, mask)
        elif subject.form in ("labelled", "classes"):
            present = torch.zeros(shape[0], dtype=torch.bool)
            problem = laws.Labelled(torch.randn(shape[0], 4), torch.zeros(shape[0], dtype=torch.int64), present)
        else:
            extra = {
                n: torch.zeros(shape, dtype=torch.bool if k == "bool" else None) for n, k in subject.law.extra.items()
            }
            problem = laws.Lists(torch.randn(shape), relevance, mask, None, extra)
        for options in [{"reduction": r} for r in laws.REDUCTIONS] if "reduction" in subject.takes else [{}]:
            assert subject(problem, **options) == 0
        assert all((gradient == 0).all() for gradient in laws.gradients(subject, problem))


# ---------------------------------------------------------------------------------- collection


def test_every_public_loss_is_in_the_table() -> None:
    public = {name for name in rivals.losses.__all__ if name.endswith("_loss")}
    assert {f"{name}_loss" for name in rivals.losses.LOSSES} == public
    assert all(function.__name__ == f"{name}_loss" for name, function in rivals.losses.LOSSES.items())


def test_every_declaration_is_about_a_loss_and_every_exemption_about_a_law() -> None:
    known = {name.removeprefix("test_") for name in globals() if name.startswith("test_")} | {
        "nothing_is_worth_nothing"
    }
    assert set(laws.OPTIONS) <= set(rivals.losses.LOSSES)
    for name, options in laws.OPTIONS.items():
        assert set(options.exempt) <= known, name
        assert all(options.exempt.values()), name


@pytest.mark.parametrize("subject", laws.loss_subjects("own"), ids=str)
def test_a_loss_of_its_own_form_has_tests_of_its_own(subject: laws.Subject) -> None:
    path = Path(__file__).parent / subject.law.own_laws
    assert subject.function.__name__ in path.read_text(encoding="utf-8")


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
