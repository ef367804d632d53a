"""Adaptive multi-head losses: the checks of paper 16's card and every form written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import (
    PairTemperature,
    in_batch_info_nce_loss,
    multi_head_contrastive_loss,
    multi_head_redundancy_loss,
    multi_head_siamese_loss,
    temperature_penalty,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def temperature_of(dim: int) -> PairTemperature:
    torch.manual_seed(0)
    return PairTemperature(dim, hidden=8).double()


def test_the_penalty() -> None:
    t = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert temperature_penalty(t, 4).tolist() == pytest.approx([0.6137056388801094, 1.0], abs=1e-12)
    around = temperature_penalty(torch.linspace(0.1, 2, 191, dtype=torch.float64), 4)
    assert around.argmin().item() == 40  # at 0.5 = 2 / 4


def test_the_value_of_the_card() -> None:
    """Positive 0.8 at temperature 0.5, hardest negative 0.3 at temperature 1, width 4."""

    def heat(left: Tensor, right: Tensor) -> Tensor:
        cosine = (left * right).sum(-1)
        return torch.where(cosine > 0.5, 0.5, 1.0).to(left.dtype)

    def at(cosine: float) -> list[float]:
        return [cosine, math.sqrt(1 - cosine**2), 0.0, 0.0]

    anchor, positive = torch.tensor([[at(1.0)]]).double(), torch.tensor([[at(0.8)]]).double()
    negatives = torch.tensor([[at(0.1), at(0.3)]]).double()
    loss = multi_head_contrastive_loss(anchor, positive, negatives, temperature=heat, beta=0.1)
    assert loss.item() == pytest.approx(-1.3386294361119893, abs=1e-6)


def written_out(
    anchors: Tensor, positives: Tensor, negatives: Tensor, heat: Any, beta: float, include: bool, softness: float
) -> Tensor:
    """One head and one anchor at a time; negatives [H, B, N, D]."""
    heads, count, width = anchors.shape
    total = anchors.new_zeros(count)
    for i in range(count):
        for h in range(heads):
            rivals = negatives[h, i]
            if include:
                rivals = torch.cat([rivals, positives[h, i][None]])
            scores = F.cosine_similarity(anchors[h, i][None], rivals)
            n = scores.argmax()
            score = scores[n] if softness == 0 else softness * (scores / softness).logsumexp(0)
            t_n, t_p = heat(anchors[h, i], rivals[n]), heat(anchors[h, i], positives[h, i])
            own = F.cosine_similarity(anchors[h, i], positives[h, i], dim=0)
            total[i] += (
                score / t_n - own / t_p + beta * (temperature_penalty(t_p, width) - temperature_penalty(t_n, width))
            )
    return total.mean()


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("softness", [0.0, 0.3])
def test_equals_the_table_written_out(include: bool, softness: float) -> None:
    anchors, positives = normal(3, 4, 5).requires_grad_(), normal(3, 4, 5, seed=1).requires_grad_()
    bank, private, heat = normal(3, 6, 5, seed=2), normal(3, 4, 2, 5, seed=3), temperature_of(5)
    options: dict[str, Any] = {"beta": 0.07, "include_positive": include, "softness": softness}
    own = torch.eye(4, dtype=torch.bool)
    batch = torch.stack([positives[:, ~own[i]] for i in range(4)], 1)
    shared = bank[:, None].expand(-1, 4, -1, -1)
    leaves = [anchors, positives, *heat.parameters()]
    for given, negatives in ((bank, shared), (private, private), (None, batch)):
        found = multi_head_contrastive_loss(anchors, positives, given, temperature=heat, **options)
        expected = written_out(anchors, positives, negatives, heat, 0.07, include, softness)
        assert found.item() == pytest.approx(expected.item(), abs=1e-10)
        pairs = zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_masked_negatives_are_not_there() -> None:
    anchors, positives, bank = normal(2, 3, 4), normal(2, 3, 4, seed=1), normal(2, 5, 4, seed=2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    fewer = multi_head_contrastive_loss(anchors, positives, bank[:, :3], temperature=0.5)
    found = multi_head_contrastive_loss(anchors, positives, bank, mask, temperature=0.5)
    assert found.item() == pytest.approx(fewer.item(), abs=1e-12)
    mask[1] = False
    per_anchor = multi_head_contrastive_loss(anchors, positives, bank, mask, temperature=0.5, reduction="none")
    assert per_anchor[1] == 0
    mean = multi_head_contrastive_loss(anchors, positives, bank, mask, temperature=0.5)
    assert mean.item() == pytest.approx(per_anchor.sum().item() / 2, abs=1e-12)


def test_the_limit_of_the_decoupled_loss() -> None:
    queries, documents = normal(1, 6, 4), normal(1, 6, 4, seed=1)
    gap = multi_head_contrastive_loss(queries, documents, temperature=1.0, beta=0.0)
    for t in (0.05, 0.005):
        soft = t * in_batch_info_nce_loss(queries[0], documents[0], temperature=t, positives="decoupled")
        assert abs(soft - gap) <= t * math.log(5)
    heated = multi_head_contrastive_loss(queries, documents, temperature=0.25, beta=0.0)
    assert heated.item() == pytest.approx(4 * gap.item(), abs=1e-12)
    soft = multi_head_contrastive_loss(queries, documents, temperature=0.25, beta=0.0, softness=1e-6)
    assert soft.item() == pytest.approx(heated.item(), abs=1e-4)
    with_positive = multi_head_contrastive_loss(queries, documents, temperature=1.0, beta=0.0, include_positive=True)
    assert with_positive >= gap


def test_heads_add_up_and_gradients_are_those_of_the_card() -> None:
    anchors, positives, bank = normal(1, 2, 4), normal(1, 2, 4, seed=1), normal(1, 5, 4, seed=2)
    one = multi_head_contrastive_loss(anchors, positives, bank, temperature=0.5)
    two = multi_head_contrastive_loss(*(t.expand(2, -1, -1) for t in (anchors, positives, bank)), temperature=0.5)
    assert two.item() == pytest.approx(2 * one.item(), abs=1e-12)
    private = F.normalize(normal(1, 2, 5, 4, seed=3), dim=-1).requires_grad_()
    loss = multi_head_contrastive_loss(anchors, positives, private, temperature=0.5, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, private)
    cosine = (F.normalize(anchors, dim=-1)[:, :, None] * private).sum(-1)
    touched = (gradient.abs().sum(-1) > 0)[0]
    assert torch.equal(touched, F.one_hot(cosine[0].argmax(-1), 5).bool())
    width = multi_head_contrastive_loss(anchors, positives, bank, temperature=temperature_of(4), normalize_penalty=True)
    scaled = multi_head_contrastive_loss(anchors, positives, bank, temperature=temperature_of(4), beta=0.1 * 2 / 4)
    assert width.item() == pytest.approx(scaled.item(), abs=1e-12)


def test_temperatures_stay_inside_and_are_shared_by_heads() -> None:
    heat = temperature_of(4)
    left, right = normal(3, 5, 4) * 100, normal(3, 5, 4, seed=1) * 100
    found = heat(left, right)
    assert found.shape == (3, 5)
    assert (found >= 0.05).all()
    assert (found <= 2.0).all()
    torch.testing.assert_close(heat(left[1], right[1]), found[1])
    other = PairTemperature(4, network=nn.Linear(8, 1), low=0.5, high=1.0)
    assert ((other(left.float(), right.float()) - 0.75).abs() <= 0.25).all()


def test_the_siamese_form() -> None:
    views = [normal(2, 3, 4, seed=seed).requires_grad_() for seed in range(4)]
    heat = temperature_of(4)
    loss = multi_head_siamese_loss(*views, temperature=heat, beta=0.2)
    z, other, h, h_other = views
    expected = z.new_zeros(3)
    for head in range(2):
        for view, goal in ((z, h_other), (other, h)):
            t = heat(view[head], goal[head])
            expected = expected - F.cosine_similarity(view[head], goal[head]) / (2 * t)
            expected = expected + 0.2 * temperature_penalty(t, 4)
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-12)
    assert torch.autograd.grad(loss, (h, h_other), allow_unused=True) == (None, None)
    simsiam = -(F.cosine_similarity(z[0], h_other[0]) + F.cosine_similarity(other[0], h[0])).mean() / 2
    plain = multi_head_siamese_loss(*(view[:1] for view in views), temperature=1.0, beta=0.0)
    assert plain.item() == pytest.approx(simsiam.item(), abs=1e-12)


def test_the_redundancy_form() -> None:
    first, second = normal(2, 9, 3), normal(2, 9, 3, seed=1)
    a, b = ((v - v.mean(1, keepdim=True)) / v.std(1, correction=0, keepdim=True) for v in (first, second))
    correlation = a.mT @ b / 9
    own = torch.eye(3, dtype=torch.bool)
    twins = ((1 - correlation[:, own]) ** 2).sum() + 0.01 * (correlation[:, ~own] ** 2).sum()
    assert multi_head_redundancy_loss(first, second, off_diagonal=0.01).item() == pytest.approx(twins.item(), abs=1e-12)
    heat = normal(2, 3, 3, seed=2).abs() + 0.1
    expected = ((1 - correlation / heat) ** 2 + 0.3 * temperature_penalty(heat, 3))[:, own].sum()
    expected = expected + (0.01 * correlation**2 / heat - 0.3 * temperature_penalty(heat, 3))[:, ~own].sum()
    found = multi_head_redundancy_loss(first, second, temperature=heat, off_diagonal=0.01, beta=0.3)
    assert found.item() == pytest.approx(expected.item(), abs=1e-10)
    still = multi_head_redundancy_loss(torch.ones(1, 4, 3), torch.ones(1, 4, 3))
    assert still.item() == 3.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_and_extremes(dtype: torch.dtype) -> None:
    def check(loss: Tensor, *leaves: Tensor) -> None:
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, leaves))

    for scale in (0.0, 1.0, 1e4):
        first, second = ((normal(2, 4, 5, seed=s).sign() * scale).to(dtype).requires_grad_() for s in (0, 1))
        heat = PairTemperature(5)
        check(multi_head_contrastive_loss(first, second, temperature=heat), first, second)
        check(multi_head_siamese_loss(first, second, second, first, temperature=heat), first, second)
        check(multi_head_redundancy_loss(first, second), first, second)


def test_nothing_and_gradients() -> None:
    empty = torch.zeros(2, 0, 5)
    assert multi_head_contrastive_loss(empty, empty, temperature=1.0).item() == 0
    assert multi_head_siamese_loss(empty, empty, empty, empty, temperature=1.0).item() == 0
    first, second = normal(2, 4, 3).requires_grad_(), normal(2, 4, 3, seed=1).requires_grad_()
    heat = temperature_of(3)
    for loss in (
        lambda a, b: multi_head_contrastive_loss(a, b, temperature=heat),
        lambda a, b: multi_head_redundancy_loss(a, b, temperature=0.7, beta=0.1),
        lambda a, b: multi_head_siamese_loss(a, b, normal(2, 4, 3), normal(2, 4, 3), temperature=heat),
    ):
        assert torch.autograd.gradcheck(loss, (first, second))


VIEWS = torch.randn(2, 3, 4)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"positives": VIEWS[:1]}, "positives"),
    ({"anchors": VIEWS[0]}, "anchors"),
    ({"negatives": VIEWS[:, :0]}, "negatives"),
    ({"negatives": VIEWS[:1]}, "negatives"),
    ({"negatives": VIEWS[:, :, None].expand(-1, -1, 2, -1)[:, :2]}, "negatives"),
    ({"anchors": VIEWS[:, :1], "positives": VIEWS[:, :1]}, "negatives"),
    ({"mask": torch.ones(3, 2, dtype=torch.bool)}, "mask"),
    ({"mask": torch.ones(3, 3)}, "mask"),
    ({"temperature": 0.0}, "temperature"),
    ({"beta": -1.0}, "beta"),
    ({"softness": -1.0}, "softness"),
    ({"reduction": "median"}, "reduction"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, name) in enumerate(BAD)])
def test_bad_arguments_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        multi_head_contrastive_loss(**({"anchors": VIEWS, "positives": VIEWS, "temperature": 1.0} | options))


def test_bad_arguments_of_the_other_forms() -> None:
    with pytest.raises(RivalsError, match="low"):
        PairTemperature(3, low=0.0)
    with pytest.raises(RivalsError, match="high"):
        PairTemperature(3, low=0.5, high=0.5)
    with pytest.raises(RivalsError, match="width"):
        temperature_penalty(torch.ones(1), 0)
    with pytest.raises(RivalsError, match="target_second"):
        multi_head_siamese_loss(VIEWS, VIEWS, VIEWS, VIEWS[:1], temperature=1.0)
    with pytest.raises(RivalsError, match="target_first"):
        multi_head_siamese_loss(VIEWS, VIEWS, VIEWS[:, :1], VIEWS[:, :1], temperature=1.0)
    with pytest.raises(RivalsError, match="temperature"):
        multi_head_redundancy_loss(VIEWS, VIEWS, temperature=torch.tensor(-1.0))
    with pytest.raises(RivalsError, match="temperature"):
        multi_head_redundancy_loss(VIEWS, VIEWS, temperature=0.0)
    with pytest.raises(RivalsError, match="off_diagonal"):
        multi_head_redundancy_loss(VIEWS, VIEWS, off_diagonal=-1.0)
