"""Hinge losses: hand-computed values, torch's multi-margin loss, the checks of paper 39's card."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import hinge_loss, hinge_rank_loss, multiclass_hinge_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rank_term(p: Tensor, y: Tensor) -> float:
    """The rank term of one set by the card, entry by entry."""
    p = p.clamp(1e-7, 1 - 1e-7)
    best = max([float(s) for s, t in zip(p, y, strict=True) if t == 0], default=0.0)
    gaps = [min(float(s) - best, 0.0) ** 2 for s, t in zip(p, y, strict=True) if t == 1]
    return sum(gaps) / (len(gaps) + 1)


def test_hinge_by_hand() -> None:
    scores, relevance = rows([0.3, -0.5, 2.0, -3.0]), rows([1, 1, 0, 0])
    short = [0.7, 1.5, 3.0, 0.0]
    assert hinge_loss(scores, relevance).item() == pytest.approx(sum(short) / 4)
    squared = hinge_loss(scores, relevance, power=2, weight=rows([2, 1, 1, 1]))
    assert squared.item() == pytest.approx((2 * 0.49 + 2.25 + 9) / 4)


def test_hinge_is_twice_the_multiclass_one_over_two_logits() -> None:
    scores, relevance = torch.randn(9, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 2
    logits = torch.stack([scores, torch.zeros(9)], 1)
    for margin in (0.5, 1.0):
        ours = hinge_loss(scores, relevance, margin=margin)
        assert ours.item() == pytest.approx(2 * multiclass_hinge_loss(logits, 1 - relevance, margin=margin).item())


@pytest.mark.parametrize("power", [1, 2])
def test_multiclass_hinge_is_that_of_torch(power: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 5, (8,), generator=generator)
    ours = multiclass_hinge_loss(logits, labels, power=power, margin=0.7)  # type: ignore[arg-type]
    theirs = F.multi_margin_loss(logits, labels, p=power, margin=0.7)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


def test_the_rank_term_of_paper_39() -> None:
    assert hinge_rank_loss(rows([0.9, 0.8, 0.1, 0.2]), rows([1, 1, 0, 0]), activation=None).item() == 0
    p = rows([0.3, 0.6]).requires_grad_()
    loss = hinge_rank_loss(p, rows([1, 0]), activation=None)
    assert loss.item() == pytest.approx(0.045, rel=1e-12)
    assert torch.autograd.grad(loss, p)[0][0].tolist() == pytest.approx([-0.3, 0.3], rel=1e-12)
    every = hinge_rank_loss(p, rows([1, 0]), activation=None, normalise="positives")
    assert every.item() == pytest.approx(0.09, rel=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_kind_alone_is_worth_nothing(label: float) -> None:
    assert hinge_rank_loss(rows([0.3, 0.6]), rows([label, label]), activation=None).item() == 0


def test_levels_of_the_rank_term() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    relevance = (torch.rand(5, 6, generator=generator) < 0.4).double()
    mask = torch.rand(5, 6, generator=generator) < 0.8
    p, there = scores.sigmoid(), mask

    def term(select: tuple[object, ...]) -> float:
        kept = there[select]
        return rank_term(p[select][kept], relevance[select][kept])

    by_list = hinge_rank_loss(scores, relevance, mask, reduction="none")
    assert by_list.tolist() == pytest.approx([term((i,)) for i in range(5)], abs=1e-12)
    by_label = hinge_rank_loss(scores, relevance, mask, level="label", reduction="none")
    assert by_label.tolist() == pytest.approx([term((slice(None), k)) for k in range(6)], abs=1e-12)
    assert hinge_rank_loss(scores, relevance, mask, level="set").item() == pytest.approx(term((...,)))


def test_the_best_negative_gets_the_whole_pull_and_ties_share_it() -> None:
    p = rows([0.3, 0.6, 0.6, 0.1]).requires_grad_()
    gradient = torch.autograd.grad(hinge_rank_loss(p, rows([1, 0, 0, 0]), activation=None), p)[0]
    assert gradient[0].tolist() == pytest.approx([-0.3, 0.15, 0.15, 0.0])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"level": "batch"}, "level"),
        ({"normalise": "all"}, "normalise"),
        ({"activation": "softmax"}, "activation"),
        ({"activation": None}, "scores"),
    ],
)
def test_bad_options_of_the_rank_term(options: dict[str, object], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        hinge_rank_loss(rows([2.0, 0.5]), rows([1, 0]), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"power": 3}])
def test_bad_options_of_hinges(options: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        hinge_loss(rows([1, 0]), rows([1, 0]), **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match=next(iter(options))):
        multiclass_hinge_loss(rows([1, 0]), torch.tensor([0]), **options)  # type: ignore[arg-type]
