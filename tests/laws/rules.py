"""The laws themselves: functions (subject, problem) that assert.

A subject that takes no `reduction` is checked with its only one. A law that a subject cannot obey is exempted in its
options, with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.laws.collection import Subject
from tests.laws.forms import Lists

REDUCTIONS = ("mean", "sum", "list_mean")


def padding_never_counts(subject: Subject, problem: Any, column: int, garbage: float) -> None:
    """An absent candidate (or example) added anywhere changes no value, and no gradient of what is there."""
    wide = problem.padded(column, garbage)
    for options in _reductions(subject):
        assert_equal(subject(wide, **options), subject(problem, **options))
    if subject.form != "measure":
        inside, outside = gradients(subject, problem), gradients(subject, wide)
        assert_equal(torch.cat([g.flatten() for g in outside]).sum(), torch.cat([g.flatten() for g in inside]).sum())


def order_never_counts(subject: Subject, problem: Any, seed: int) -> None:
    """Permuting the candidates (or examples) changes nothing."""
    for options in _reductions(subject):
        assert_equal(subject(problem.reordered(seed), **options), subject(problem, **options))


def empty_lists_never_count(subject: Subject, problem: Any) -> None:
    """A list without any candidate changes nothing; by itself it is worth 0."""
    longer = problem.with_empty_list()
    if subject.form == "measure":
        found = subject(longer)
        assert_equal(found[:-1] if found.dim() else found, subject(problem))  # one value a list, or one for all
        return
    for options in _reductions(subject):
        assert_equal(subject(longer, **options), subject(problem, **options))


def reductions_agree(subject: Subject, problem: Any) -> None:
    """ "sum" is the sum of "none", wherever the subject can give "none"."""
    if "reduction" not in subject.takes:
        return
    if len(subject.options.get("directions", ())) > 1 and not subject.options.get("joint"):
        return
    per_list = subject
    if "fused" in subject.options:
        per_list = replace(subject, options=subject.options | {"fused": False})
    assert_equal(per_list(problem, reduction="none").sum(), subject(problem, reduction="sum"))


def absent_entries_get_no_gradient(subject: Subject, problem: Any) -> None:
    """No gradient is NaN, and that of an absent entry is exactly 0."""
    for gradient, absent in zip(gradients(subject, problem), problem.absent(), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[absent] == 0).all()


def extremes_stay_finite(subject: Subject, problem: Any, magnitude: float) -> None:
    """Value and gradient are finite at inputs of +-magnitude in the problem's dtype; the value is at least float32."""
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


def gradients(subject: Subject, problem: Any, **options: Any) -> list[Tensor]:
    """Return the gradient of the subject's value with respect to scores or embeddings."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in problem.inputs()]
    value = subject(problem.with_inputs(*leaves), **options)
    return list(torch.autograd.grad(value.sum(), leaves))


def assert_equal(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> None:
    """Assert closeness, relative and absolute, NaN equal to NaN, with the values in the message."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def _reductions(subject: Subject) -> list[dict[str, str]]:
    if subject.form == "measure" or "reduction" not in subject.takes:
        return [{}]
    return [{"reduction": reduction} for reduction in REDUCTIONS]
