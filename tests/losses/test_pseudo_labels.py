"""Entropy maximisation and asymmetric pseudo-labels: the checks of paper 91's card."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    AsymmetricPseudoLabeller,
    asymmetric_pseudo_labels,
    binary_cross_entropy_loss,
    entropy_maximisation_loss,
)


def nl(x: float, eps: float = 1e-5) -> float:
    return -math.log(x + eps)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slope(loss: Tensor, scores: Tensor) -> float:
    return torch.autograd.grad(loss, scores)[0].item()


def test_an_undecided_unknown_label() -> None:
    scores = rows([0]).requires_grad_()
    loss = entropy_maximisation_loss(scores, rows([0]), alpha=1.0)
    assert loss.item() == pytest.approx(-0.6931272, abs=1e-7)
    assert slope(loss, scores) == pytest.approx(0, abs=1e-6)


def test_a_positive_and_a_pseudo_label() -> None:
    assert entropy_maximisation_loss(rows([0]), rows([1])).item() == pytest.approx(0.6931272, abs=1e-7)
    scores = rows([math.log(0.25)]).requires_grad_()
    loss = entropy_maximisation_loss(scores, rows([0]), pseudo=rows([0.2]), beta=1.0)
    assert loss.item() == pytest.approx(0.2 * nl(0.2) + 0.8 * nl(0.8))
    assert loss.item() == pytest.approx(0.5004, abs=1e-4)
    assert slope(loss, scores) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("p", "sign"), [(0.9, 1), (0.1, -1)])
def test_unknown_labels_are_pulled_to_the_middle(p: float, sign: int) -> None:
    scores = rows([math.log(p / (1 - p))]).requires_grad_()
    assert slope(entropy_maximisation_loss(scores, rows([0])), scores) * sign > 0


def test_every_kind_of_entry_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 6, generator=generator, dtype=torch.float64) * 3
    relevance = (torch.rand(3, 6, generator=generator) < 0.3).double()
    unknown, mask = torch.rand(3, 6, generator=generator) < 0.6, torch.rand(3, 6, generator=generator) < 0.9
    pseudo = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    pseudo[torch.rand(3, 6, generator=generator) < 0.5] = float("nan")
    total = 0.0
    for i in range(3):
        for k in range(6):
            p, s = scores[i, k].sigmoid().item(), pseudo[i, k].item()
            if not mask[i, k]:
                continue
            if not unknown[i, k]:
                total += nl(p) if relevance[i, k] else nl(1 - p)
            elif math.isnan(s):
                total -= 0.3 * (p * nl(p) + (1 - p) * nl(1 - p))
            else:
                total += 0.7 * (s * nl(p) + (1 - s) * nl(1 - p))
    options: dict[str, Any] = {"unknown": unknown, "pseudo": pseudo, "alpha": 0.3, "beta": 0.7}
    mean = entropy_maximisation_loss(scores, relevance, mask, **options)
    assert mean.item() == pytest.approx(total / mask.sum().item(), rel=1e-9)
    leaf = scores.clone().masked_fill(~mask, float("nan")).requires_grad_()
    garbage = pseudo.masked_fill(~mask, 9.0)
    padded = entropy_maximisation_loss(leaf, relevance, mask, **(options | {"pseudo": garbage}))
    assert padded.item() == pytest.approx(mean.item())
    assert (torch.autograd.grad(padded, leaf)[0][~mask] == 0).all()


def test_only_positives_count_without_alpha() -> None:
    scores, relevance = rows([1.0, -2.0, 0.5]), rows([0, 1, 0])
    loss = entropy_maximisation_loss(scores, relevance, alpha=0.0, reduction="sum")
    assert loss.item() == pytest.approx(nl(torch.tensor(-2.0).sigmoid().item()), rel=1e-6)


@pytest.mark.parametrize(("eps", "tolerance"), [(1e-5, 1e-4), (0.0, 1e-12)])
def test_nothing_unknown_is_cross_entropy(eps: float, tolerance: float) -> None:
    scores, relevance = rows([1.0, -2.0, 0.5], [3.0, -1.0, 2.0]), rows([0, 1, 0], [1, 0, 0])
    known = torch.zeros(2, 3, dtype=torch.bool)
    loss = entropy_maximisation_loss(scores, relevance, unknown=known, eps=eps)
    assert loss.item() == pytest.approx(binary_cross_entropy_loss(scores, relevance).item(), abs=tolerance)


def test_exact_logarithms_keep_their_gradient() -> None:
    scores = rows([-40.0]).requires_grad_()
    assert slope(entropy_maximisation_loss(scores, rows([1]), eps=0.0), scores) == pytest.approx(-1)
    assert abs(slope(entropy_maximisation_loss(scores, rows([1])), scores)) < 1e-9


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"beta": -1.0}, "beta"),
        ({"eps": -1.0}, "eps"),
        ({"pseudo": torch.ones(3)}, "pseudo"),
        ({"pseudo": torch.full((1, 2), 1.5)}, "pseudo"),
        ({"unknown": torch.ones(1, 2)}, "unknown"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        entropy_maximisation_loss(rows([1, 0]), rows([1, 0]), **options)


# ---------------------------------------------------------------------------------- pseudo-labels


def reference(p: Tensor, unknown: Tensor, pseudo: Tensor, rounds: int, fraction: float) -> Tensor:
    """One round by the card, label by label."""
    result = pseudo.clone()
    for k in range(p.shape[1]):
        number = int(fraction * int(unknown[:, k].sum()) / rounds)
        free = [n for n in range(len(p)) if unknown[n, k] and torch.isnan(pseudo[n, k])]
        for n in sorted(free, key=lambda n, k=k: p[n, k].item())[:number]:
            result[n, k] = p[n, k]
    return result


def test_three_rounds_label_nine_of_ten() -> None:
    generator = torch.Generator().manual_seed(0)
    unknown = torch.ones(11, 1, dtype=torch.bool)
    unknown[4] = False  # an annotated positive
    labeller = AsymmetricPseudoLabeller(unknown, epochs=8, warmup=5)
    first = torch.rand(11, 1, generator=generator)
    for epoch in range(1, 5):
        assert labeller.update(first, epoch=epoch).isnan().all()
    for number, epoch in ((3, 5), (6, 6), (9, 7)):
        p = torch.rand(11, 1, generator=generator) if epoch > 5 else first
        before = labeller.pseudo.clone()
        after = labeller.update(p, epoch=epoch).clone()
        assert (~after.isnan()).sum() == number
        assert torch.equal(after[~before.isnan()], before[~before.isnan()])  # for good
        new = before.isnan() & ~after.isnan()
        assert p[new].max() < p[unknown & after.isnan()].min()
    assert labeller.pseudo[4].isnan()
    fresh = AsymmetricPseudoLabeller(unknown, epochs=8, warmup=5)
    fresh.load_state_dict(labeller.state_dict())
    torch.testing.assert_close(fresh.pseudo, labeller.pseudo, equal_nan=True)


def test_a_round_against_the_card() -> None:
    generator = torch.Generator().manual_seed(1)
    p, unknown = torch.rand(23, 4, generator=generator), torch.rand(23, 4, generator=generator) < 0.7
    pseudo = torch.full((23, 4), float("nan"))
    for _ in range(3):
        expected = reference(p, unknown, pseudo, 4, 0.8)
        pseudo = asymmetric_pseudo_labels(p, unknown, pseudo, rounds=4, negative_fraction=0.8)
        torch.testing.assert_close(pseudo, expected, equal_nan=True)
        p = torch.rand(23, 4, generator=generator)


def test_a_positive_fraction_takes_the_most_probable() -> None:
    p = torch.tensor([[0.1], [0.9], [0.5], [0.95]])
    unknown = torch.tensor([[True], [True], [True], [False]])
    labels = asymmetric_pseudo_labels(p, unknown, rounds=1, negative_fraction=0.4, positive_fraction=0.4)
    assert labels.isnan()[:, 0].tolist() == [False, False, True, True]
    assert labels[:2, 0].tolist() == pytest.approx([0.1, 0.9])


def test_the_unknown_at_the_start_can_be_given() -> None:
    p, unknown = torch.tensor([[0.1], [0.2], [0.3]]), torch.ones(3, 1, dtype=torch.bool)
    labels = asymmetric_pseudo_labels(p, unknown, rounds=2, negative_fraction=1.0, initial=torch.tensor([5]))
    assert (~labels.isnan()).sum() == 2


def test_the_labels_fit_the_loss() -> None:
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    relevance = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    labels = asymmetric_pseudo_labels(scores.sigmoid(), relevance == 0, rounds=1)
    assert (~labels.isnan()).sum() == 9
    settled = entropy_maximisation_loss(scores, relevance, pseudo=labels)
    assert settled.item() > entropy_maximisation_loss(scores, relevance).item()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rounds": 0}, "rounds"),
        ({"negative_fraction": 1.1}, "negative_fraction"),
        ({"negative_fraction": 0.7, "positive_fraction": 0.7}, "sum"),
        ({"initial": torch.ones(2)}, "initial"),
        ({"pseudo": torch.ones(2)}, "pseudo"),
        ({"probabilities": torch.full((3, 1), 2.0)}, "probabilities"),
        ({"unknown": torch.ones(3, 1)}, "unknown"),
    ],
)
def test_bad_rounds(options: dict[str, Any], name: str) -> None:
    sound = {"probabilities": torch.rand(3, 1), "unknown": torch.ones(3, 1, dtype=torch.bool), "rounds": 1}
    asymmetric_pseudo_labels(**sound)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match=name):
        asymmetric_pseudo_labels(**(sound | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("epochs", "warmup"), [(5, 5), (5, 0)])
def test_bad_labellers(epochs: int, warmup: int) -> None:
    with pytest.raises(RivalsError, match="warmup"):
        AsymmetricPseudoLabeller(torch.ones(2, 2, dtype=torch.bool), epochs=epochs, warmup=warmup)
    with pytest.raises(RivalsError, match="unknown"):
        AsymmetricPseudoLabeller(torch.ones(2, 2), epochs=5, warmup=1)
