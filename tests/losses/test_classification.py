"""Point-wise and class losses: hand-computed values, the losses of torch, the limits of paper 44's card."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    asymmetric_loss,
    binary_cross_entropy_loss,
    cross_entropy_loss,
    focal_loss,
    poly1_cross_entropy_loss,
    poly1_softmax_loss,
    sigmoid_focal_loss,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS, LABELS = normal(7, 4) * 2, torch.tensor([0, 3, 1, 1, 2, 0, 3])


# ---------------------------------------------------------------------------------- binary cross entropy


def test_equal_scores() -> None:
    assert binary_cross_entropy_loss(rows([0, 0, 0]), rows([1, 0, 0])).item() == pytest.approx(math.log(2))


def test_values_and_reductions() -> None:
    scores, relevance = rows([2, -1], [0.5, 9]), rows([1, 0], [0, 1])
    mask = torch.tensor([[True, True], [True, False]])
    terms = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5))]

    def loss(reduction: str) -> torch.Tensor:
        return binary_cross_entropy_loss(scores, relevance, mask, reduction=reduction)  # type: ignore[arg-type]

    assert loss("mean").item() == pytest.approx(sum(terms) / 3)
    assert loss("none").tolist() == pytest.approx([terms[0] + terms[1], terms[2]])
    assert loss("list_mean").item() == pytest.approx(((terms[0] + terms[1]) / 2 + terms[2]) / 2)


def test_equals_the_loss_of_torch_far_from_zero() -> None:
    scores, relevance = rows([800, -800, 30]), rows([0, 1, 1])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores, relevance)
    assert binary_cross_entropy_loss(scores, relevance).item() == pytest.approx(expected.item(), rel=1e-14)


def test_threshold_and_weight() -> None:
    scores, relevance = rows([1, 1]), rows([1, 2])
    expected = (math.log1p(math.e) + 4 * math.log1p(math.exp(-1))) / 2
    found = binary_cross_entropy_loss(scores, relevance, threshold=1.0, weight=rows([1, 4]))
    assert found.item() == pytest.approx(expected)


def test_a_constant_does_change_it() -> None:
    scores, relevance = rows([1, 0]), rows([1, 0])
    difference = binary_cross_entropy_loss(scores + 1, relevance) - binary_cross_entropy_loss(scores, relevance)
    assert difference.abs().item() > 0.01


def test_threshold_must_be_finite() -> None:
    with pytest.raises(RivalsError, match="threshold"):
        binary_cross_entropy_loss(rows([1, 0]), rows([1, 0]), threshold=float("nan"))


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_smoothed_binary_labels_are_those_of_torch(smoothing: float) -> None:
    scores, relevance = normal(3, 5), (normal(3, 5, seed=1) > 0).double()
    smooth = relevance * (1 - smoothing) + smoothing / 2
    expected = F.binary_cross_entropy_with_logits(scores, smooth)
    found = binary_cross_entropy_loss(scores, relevance, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


# ---------------------------------------------------------------------------------- focal, sigmoid form


def test_sigmoid_focal_by_hand() -> None:
    p = torch.tensor([0.9, 0.2, 0.6], dtype=torch.float64)
    expected = [0.25 * 0.1**2 * -math.log(0.9), 0.75 * 0.2**2 * -math.log(0.8), 0.25 * 0.4**2 * -math.log(0.6)]
    found = sigmoid_focal_loss(p.logit(), rows([1, 0, 1])[0], reduction="sum")
    assert found.item() == pytest.approx(sum(expected), rel=1e-12)


def test_sigmoid_focal_without_focus_is_cross_entropy() -> None:
    scores, relevance = normal(2, 4), (normal(2, 4, seed=3) > 0).double()
    plain = sigmoid_focal_loss(scores, relevance, gamma=0.0, alpha=None)
    assert plain.item() == pytest.approx(binary_cross_entropy_loss(scores, relevance).item(), rel=1e-14)


def test_sigmoid_focal_is_a_symmetric_asymmetric_loss() -> None:
    scores, relevance = normal(2, 4).requires_grad_(), (normal(2, 4, seed=3) > 0).double()
    ours = sigmoid_focal_loss(scores, relevance, gamma=2.5, alpha=None)
    other = asymmetric_loss(scores, relevance, gamma_pos=2.5, gamma_neg=2.5, clip=0.0, detach_weight=False)
    assert ours.item() == pytest.approx(other.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(ours, scores)[0], torch.autograd.grad(other, scores)[0])


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"alpha": 1.5}, {"alpha": float("nan")}])
def test_bad_options_of_sigmoid_focal(options: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        sigmoid_focal_loss(rows([1, 0]), rows([1, 0]), **options)


# ---------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_that_of_torch(smoothing: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    ours = cross_entropy_loss(logits, LABELS, label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, LABELS, label_smoothing=smoothing)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_class_weights_are_those_of_torch_in_the_sum(smoothing: float) -> None:
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)
    ours = cross_entropy_loss(LOGITS, LABELS, class_weight=weights, label_smoothing=smoothing, reduction="sum")
    theirs = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing, reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)


def test_masked_examples_are_those_torch_ignores() -> None:
    mask = torch.tensor([True, False, True, True, False, True, True])
    ignored = LABELS.masked_fill(~mask, -100)
    theirs = F.cross_entropy(LOGITS, ignored, label_smoothing=0.2)
    assert cross_entropy_loss(LOGITS, LABELS, mask, label_smoothing=0.2).item() == pytest.approx(theirs.item())
    per_row = cross_entropy_loss(LOGITS, LABELS, mask, weight=torch.arange(7.0), reduction="none")
    expected = F.cross_entropy(LOGITS, LABELS, reduction="none") * torch.arange(7.0) * mask
    torch.testing.assert_close(per_row, expected)


def test_poly1_by_hand_and_on_lists() -> None:
    own = LOGITS.log_softmax(1)[torch.arange(7), LABELS]
    expected = (-own + 0.7 * (1 - own.exp())).mean()
    assert poly1_cross_entropy_loss(LOGITS, LABELS, epsilon=0.7).item() == pytest.approx(expected.item(), rel=1e-12)
    lists = poly1_softmax_loss(LOGITS, F.one_hot(LABELS, 4), epsilon=0.7)
    assert lists.item() == pytest.approx(expected.item(), rel=1e-12)
    assert poly1_cross_entropy_loss(LOGITS, LABELS, epsilon=0.0).item() == pytest.approx(-own.mean().item())


def test_the_terms_of_poly_n_undo_those_of_the_cross_entropy() -> None:
    """With epsilon_j = -1/j up to n what is left is sum_{j > n} (1 - p)^j / j."""
    p = 0.8
    logits, labels = rows([math.log(p), math.log(1 - p)]), torch.tensor([0])
    left = poly1_cross_entropy_loss(logits, labels, epsilon=[-1.0, -1 / 2, -1 / 3])
    assert left.item() == pytest.approx(sum((1 - p) ** j / j for j in range(4, 60)), rel=1e-9)


@pytest.mark.parametrize("epsilon", [-1.5, (0.0, -0.6), float("inf")])
def test_bad_epsilon(epsilon: float) -> None:
    with pytest.raises(RivalsError, match="epsilon"):
        poly1_cross_entropy_loss(LOGITS, LABELS, epsilon=epsilon)


def test_focal_by_hand() -> None:
    own = LOGITS.softmax(1)[torch.arange(7), LABELS]
    expected = (-((1 - own) ** 3) * own.log()).mean()
    assert focal_loss(LOGITS, LABELS, gamma=3.0).item() == pytest.approx(expected.item(), rel=1e-10)
    assert focal_loss(LOGITS, LABELS, gamma=0.0).item() == pytest.approx(F.cross_entropy(LOGITS, LABELS).item())


def test_two_classes_are_the_sigmoid_form() -> None:
    scores, relevance = normal(6), torch.tensor([1, 0, 0, 1, 1, 0])
    logits = torch.stack([scores, torch.zeros(6)], 1)
    ours = focal_loss(logits, 1 - relevance, gamma=1.7)
    assert ours.item() == pytest.approx(sigmoid_focal_loss(scores, relevance, gamma=1.7, alpha=None).item(), rel=1e-10)


def test_an_exponent_for_every_example_is_without_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()

    def schedule(p: Tensor) -> Tensor:
        return torch.where(p < 0.2, 5.0, 3.0)

    own = logits.softmax(1)[torch.arange(7), LABELS]
    expected = (-((1 - own) ** schedule(own.detach())) * own.log()).mean()
    ours = focal_loss(logits, LABELS, gamma=schedule)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(expected, logits)[0])


def test_a_settled_example_keeps_a_finite_gradient_at_a_small_exponent() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0]), gamma=0.3)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


@pytest.mark.parametrize(
    ("function", "options", "name"),
    [
        (focal_loss, {"gamma": -0.1}, "gamma"),
        (cross_entropy_loss, {"label_smoothing": 1.0}, "label_smoothing"),
        (binary_cross_entropy_loss, {"label_smoothing": -0.1}, "label_smoothing"),
        (cross_entropy_loss, {"class_weight": torch.ones(3)}, "class_weight"),
        (cross_entropy_loss, {"class_weight": -torch.ones(4)}, "class_weight"),
    ],
)
def test_bad_options(function: object, options: dict[str, object], name: str) -> None:
    second = torch.ones(7, 4) if function is binary_cross_entropy_loss else LABELS
    with pytest.raises(RivalsError, match=name):
        function(LOGITS, second, **options)  # type: ignore[operator]


def test_labels_must_be_classes() -> None:
    with pytest.raises(RivalsError, match=r"labels must lie in 0\.\.3"):
        cross_entropy_loss(LOGITS, LABELS + 1)
