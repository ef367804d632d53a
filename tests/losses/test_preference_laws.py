"""The laws of losses, for every named preference loss; and what `preference_loss` refuses."""

from __future__ import annotations

from dataclasses import fields, replace
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import PREFERENCE_LOSSES, PreferenceForm, preference_loss

SIZE, WIDTH = 5, 4
CONSTANT_WEIGHTS = {"lipo_lambda": "weights by rank", "aft_detached": "detached losers", "aft_boundary": "fixed floor"}
CONSTANT_WEIGHTS["bco"] = "the batch's mean score is a constant"
named = pytest.mark.parametrize("name", PREFERENCE_LOSSES)


def problem(dtype: torch.dtype = torch.float64, scale: float = 8.0, seed: int = 3) -> dict[str, Tensor]:
    """Responses with distinct relevance in [0, 1), one of it 0 in every list; the last list is half empty."""
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(SIZE, WIDTH, generator=generator).argsort(-1)
    mask = torch.ones(SIZE, WIDTH, dtype=torch.bool)
    mask[-1, 2:] = False
    tensors: dict[str, Tensor] = {
        "logps": -scale * torch.rand(SIZE, WIDTH, generator=generator, dtype=torch.float64) - 0.01,
        "relevance": ranks.double() / WIDTH,
        "ref_logps": -scale * torch.rand(SIZE, WIDTH, generator=generator, dtype=torch.float64) - 0.01,
    }
    lengths = torch.randint(1, 9, (SIZE, WIDTH), generator=generator)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()} | {"lengths": lengths, "mask": mask}


def run(form: PreferenceForm, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    leaf = tensors["logps"].clone().requires_grad_()
    loss = form(**(tensors | {"logps": leaf}))
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@named
def test_padding_never_counts(name: str) -> None:
    tensors = problem()
    loss, gradient = run(PREFERENCE_LOSSES[name], tensors)
    for column, garbage in ((0, float("nan")), (2, float("inf")), (2, -1e4), (WIDTH, 0.0), (WIDTH, 1e4)):
        padded = {}
        for key, value in tensors.items():
            new = torch.full((SIZE, 1), garbage if value.is_floating_point() else 0).to(value.dtype)
            padded[key] = torch.cat([value[:, :column], new, value[:, column:]], 1)
        wide_loss, wide_gradient = run(PREFERENCE_LOSSES[name], padded)
        assert wide_loss.item() == pytest.approx(loss.item(), rel=1e-12)
        assert not wide_gradient[:, column].any()
        assert torch.allclose(torch.cat([wide_gradient[:, :column], wide_gradient[:, column + 1 :]], 1), gradient)


@named
def test_order_never_counts(name: str) -> None:
    tensors = problem()
    order = torch.tensor([2, 0, 3, 1])
    loss, gradient = run(PREFERENCE_LOSSES[name], tensors)
    moved_loss, moved_gradient = run(PREFERENCE_LOSSES[name], {key: v[:, order] for key, v in tensors.items()})
    assert moved_loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert torch.allclose(moved_gradient, gradient[:, order])


@named
def test_empty_lists_never_count(name: str) -> None:
    tensors = problem()
    longer = {key: torch.cat([value, value[:1]]) for key, value in tensors.items()}
    longer["mask"] = torch.cat([tensors["mask"], torch.zeros(1, WIDTH, dtype=torch.bool)])
    loss, gradient = run(PREFERENCE_LOSSES[name], tensors)
    longer_loss, longer_gradient = run(PREFERENCE_LOSSES[name], longer)
    assert longer_loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert torch.allclose(longer_gradient[:-1], gradient)
    assert not longer_gradient[-1].any()


@named
def test_reductions_agree(name: str) -> None:
    form, tensors = PREFERENCE_LOSSES[name], problem()
    if form.structure.startswith("sorted"):
        form = replace(form, nll_weight=0.0)
    each, total = (replace(form, reduction=reduction)(**tensors) for reduction in ("none", "sum"))  # type: ignore[arg-type]
    assert each.sum().item() == pytest.approx(total.item())
    assert form.structure.startswith("sorted") or each.shape == (SIZE,)


@named
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extremes_stay_finite(name: str, dtype: torch.dtype) -> None:
    for scale, seed in ((1.0, 3), (800.0, 4), (1e4, 4), (1e4, 5)):
        tensors = problem(dtype, scale) | {"logps": problem(dtype, scale, seed)["logps"]}
        loss, gradient = run(PREFERENCE_LOSSES[name], tensors)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [name for name in PREFERENCE_LOSSES if name not in CONSTANT_WEIGHTS])
def test_gradients_are_right(name: str) -> None:
    tensors = {key: value[-2:] for key, value in problem().items()}
    leaf = tensors.pop("logps").requires_grad_()
    assert torch.autograd.gradcheck(lambda logps: PREFERENCE_LOSSES[name](logps, **tensors), leaf)


@named
def test_the_function_says_the_same_as_the_form(name: str) -> None:
    form, tensors = PREFERENCE_LOSSES[name], problem()
    options: dict[str, Any] = {field.name: getattr(form, field.name) for field in fields(form)}
    assert torch.equal(preference_loss(**tensors, **options), form(**tensors))


def test_the_function_and_the_form_have_the_same_defaults() -> None:
    function = signature(preference_loss).parameters
    for field in fields(PreferenceForm):
        assert function[field.name].default == field.default, field.name
    with pytest.raises(AttributeError):
        PREFERENCE_LOSSES["dpo"].beta = 1.0  # type: ignore[misc]


@named
def test_no_pair_is_worth_nothing(name: str) -> None:
    tensors = problem() | {"relevance": torch.ones(SIZE, WIDTH)}
    form = replace(PREFERENCE_LOSSES[name], nll_weight=0.0)
    if form.structure in ("list_mle", "softmax", "pointwise"):
        return  # these need no pair
    loss, gradient = run(form, tensors)
    assert loss == 0
    assert not gradient.any()


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"score": "reward"}, "score"),
        ({"structure": "triples"}, "structure"),
        ({"link": "tanh"}, "link"),
        ({"structure": "list_mle", "link": "hinge"}, "link"),
        ({"structure": "pairs", "link": "nca"}, "link"),
        ({"link": "robust", "label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"margin": float("inf")}, "margin"),
        ({"constraint": "boundary", "boundary": -0.1}, "boundary"),
        ({"constraint": "detach", "structure": "softmax"}, "constraint"),
        ({"constraint": "detach", "link": "apo_down"}, "constraint"),
        ({"pair_weight": "ndcg"}, "pair_weight"),
        ({"pair_weight": "dcg", "structure": "softmax"}, "pair_weight"),
        ({"pair_weight": lambda s, r, m: s}, "pair_weight"),
        ({"pair_weight": lambda s, r, m: -torch.ones(SIZE, WIDTH, WIDTH)}, "pair_weight"),
        ({"gate_temperature": 0.0}, "gate_temperature"),
        ({"nll_weight": -1.0}, "nll_weight"),
        ({"reference_point": float("nan")}, "reference_point"),
        ({"reference_point": torch.zeros(2), "structure": "pointwise"}, "reference_point"),
        ({"ties": "shuffle"}, "ties"),
        ({"reduction": "median"}, "reduction"),
        ({"structure": "sorted_scores", "reduction": "none", "nll_weight": 1.0}, "nll_weight"),
        ({"score": "manual", "nll_weight": 1.0}, "nll_logps"),
        ({"nll_weight": 1.0, "nll_logps": torch.zeros(2)}, "nll_logps"),
        ({"nll_weight": 1.0, "nll_logps": -torch.ones(SIZE)}, "nll_lengths"),
        ({"nll_weight": 1.0, "nll_logps": torch.ones(SIZE), "nll_lengths": torch.ones(SIZE)}, "nll_logps"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        preference_loss(**problem(), **options)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"logps": torch.ones(SIZE, WIDTH, dtype=torch.int64)}, {}, "logps.*floating"),
        ({"logps": torch.full((SIZE, WIDTH), float("nan"))}, {}, "logps must be finite"),
        ({"logps": torch.ones(SIZE, WIDTH)}, {"score": "log_prob"}, "none above 0"),
        ({"logps": torch.ones(SIZE, WIDTH)}, {"nll_weight": 1.0}, "none above 0"),
        ({"relevance": torch.ones(SIZE, WIDTH + 1)}, {}, "relevance"),
        ({"relevance": torch.full((SIZE, WIDTH), float("nan"))}, {}, "relevance"),
        ({"relevance": 2 * torch.ones(SIZE, WIDTH)}, {"structure": "pointwise", "link": "cross_entropy"}, "relevance"),
        ({"relevance": -torch.ones(SIZE, WIDTH)}, {"structure": "softmax"}, "relevance"),
        ({"ref_logps": None}, {}, "ref_logps"),
        ({"ref_logps": torch.full((SIZE, WIDTH), float("inf"))}, {}, "ref_logps"),
        ({"lengths": None}, {"score": "mean_log_prob"}, "lengths"),
        ({"lengths": None}, {"nll_weight": 1.0}, "lengths"),
        ({"lengths": torch.zeros(SIZE, WIDTH)}, {}, "lengths must be above 0"),
        ({"mask": torch.ones(SIZE, WIDTH)}, {}, "mask"),
        ({"mask": torch.zeros(SIZE, WIDTH, dtype=torch.bool)}, {}, "no response at all"),
    ],
)
def test_bad_tensors_are_named(changed: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        preference_loss(**(problem() | changed), **options)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(RivalsError, match="no response at all"):
        preference_loss(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 2))
