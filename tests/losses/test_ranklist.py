"""RankList: the checks of paper 56, loops over comparisons, and its skip schedule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import SkipSchedule, pairwise_logistic_loss, ranklist_loss
from rivals.losses.ranklist import _range_logsumexp


def problem(size: int = 9, levels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, size, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, levels, (4, size), generator=generator).double() * 0.5 - 1.0
    mask = torch.rand(4, size, generator=generator) < 0.8
    mask[1] = False
    return scores, labels, mask


def comparisons(
    labels: list[float], there: list[bool], max_skip: int | None, margin: float
) -> list[tuple[int, int, int]]:
    """All (better, worse, levels apart) by definition."""
    real = [i for i, present in enumerate(there) if present]
    level = {label: place for place, label in enumerate(sorted({labels[i] for i in real}, reverse=True))}
    found = []
    for i, j in itertools.product(real, repeat=2):
        gap = level[labels[j]] - level[labels[i]]
        if gap > 0 and (max_skip is None or gap <= max_skip) and labels[i] - labels[j] >= margin:
            found.append((i, j, gap))
    return found


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("max_skip", [None, 1, 2, 7])
def test_by_loops(max_skip: int | None, margin: float) -> None:
    scores, labels, mask = problem()
    pairwise, merged = [], []
    for s, y, there in zip(*(part.tolist() for part in (scores, labels, mask)), strict=True):
        found = comparisons(y, there, max_skip, margin)
        costs = [(2.0 if gap == 1 else 0.5) * math.log1p(math.exp(s[j] - s[i])) for i, j, gap in found]
        pairwise.append(sum(costs) / max(len(costs), 1))
        by_anchor = {i: sum(math.exp(s[j] - s[i]) for a, j, _ in found if a == i) for i, _, _ in found}
        merged.append(sum(map(math.log1p, by_anchor.values())) / max(len(by_anchor), 1))
    options: dict[str, Any] = {"max_skip": max_skip, "margin": margin}
    assert ranklist_loss(scores, labels, mask, reduction="none", **options).tolist() == pytest.approx(merged)
    weights = {"form": "pairwise", "local_weight": 2.0, "nonlocal_weight": 0.5}
    assert ranklist_loss(scores, labels, mask, reduction="none", **options, **weights).tolist() == pytest.approx(
        pairwise
    )
    left = [value for value in merged if value]
    assert ranklist_loss(scores, labels, mask, **options).item() == pytest.approx(sum(left) / max(len(left), 1))


def test_by_hand() -> None:
    """Check 1."""
    scores, labels = torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]])
    for form in ("lse", "pairwise"):
        assert ranklist_loss(scores, labels, form=form, max_skip=1).item() == pytest.approx(math.log(2))  # type: ignore[arg-type]
    assert ranklist_loss(scores, labels, form="pairwise").item() == pytest.approx(math.log(2))
    assert ranklist_loss(scores, labels, max_skip=2).item() == pytest.approx(0.8958797346, rel=1e-6)


def test_without_limits_it_is_list_mle() -> None:
    """Check 2."""
    scores = torch.randn(1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([[3.0, 7, 1, 6, 2, 5, 4]], dtype=torch.float64)
    ordered = scores[0, labels[0].argsort(descending=True)]
    mle = sum(float(ordered[i:].logsumexp(0) - ordered[i]) for i in range(6))
    assert 6 * ranklist_loss(scores, labels).item() == pytest.approx(mle)


def test_neighbours_alone_are_ranknet() -> None:
    """Check 3: distinct labels, one level apart; and two candidates; no limits: RankNet by list."""
    scores, labels, mask = problem(levels=1000)
    lse, pairs = (ranklist_loss(scores, labels, mask, form=form, max_skip=1).item() for form in ("lse", "pairwise"))  # type: ignore[arg-type]
    assert lse == pytest.approx(pairs)
    every = ranklist_loss(scores, labels, mask, form="pairwise")
    plain = pairwise_logistic_loss(scores, labels + 1.0, mask, reduction="list_mean")
    assert every.item() == pytest.approx(plain.item())


def test_merging_only_lowers_and_reach_only_raises() -> None:
    """Checks 4 and 7: an anchor's loss is at most the sum of its pairs; more comparisons are never cheaper."""
    for seed in range(5):
        scores, labels, mask = problem(levels=100, seed=seed)
        reach = [
            [ranklist_loss(scores, labels, mask, max_skip=k, reduction="none") for k in (1, 2, 4, 8)]
            for mask in (mask, torch.ones_like(mask))
        ]
        for nearer, further in itertools.pairwise(reach[1]):
            assert (further >= nearer - 1e-12).all()
        anchors = (mask.sum(-1) - 1).clamp(min=0)  # distinct labels
        number = anchors * (anchors + 1) / 2
        pairwise = ranklist_loss(scores, labels, mask, form="pairwise", reduction="none") * number
        assert (ranklist_loss(scores, labels, mask, reduction="none") * anchors <= pairwise + 1e-12).all()


def test_nothing_to_compare() -> None:
    """Check 5."""
    scores, labels, mask = problem()
    for form in ("lse", "pairwise"):
        loss = ranklist_loss(scores, labels, mask, form=form, margin=100.0)  # type: ignore[arg-type]
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, scores)[0] == 0).all()


def test_ties_may_swap_their_scores() -> None:
    """Check 6: no comparison between equal labels."""
    labels = torch.tensor([[1.0, 1.0]])
    assert ranklist_loss(torch.tensor([[0.0, 9.0]]), labels).item() == 0
    three = torch.tensor([[2.0, 1.0, 1.0]])
    one = ranklist_loss(torch.tensor([[0.0, 3.0, 5.0]]), three)
    assert one.item() == ranklist_loss(torch.tensor([[0.0, 5.0, 3.0]]), three).item()


@pytest.mark.parametrize("width", [1, 2, 5, 8, 33])
def test_log_sums_over_ranges(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    values = torch.randn(2, width, generator=generator, dtype=torch.float64).requires_grad_()
    ends = torch.randint(0, width + 1, (2, 2, width), generator=generator)
    found = _range_logsumexp(values, ends[0], ends[1])
    for row, place in itertools.product(range(2), range(width)):
        start, stop = ends[:, row, place].tolist()
        if start < stop:
            assert found[row, place].item() == pytest.approx(values[row, start:stop].logsumexp(0).item())
        else:
            assert found[row, place].item() == -1e30
    assert torch.autograd.grad(found.clamp(min=-1e3).sum(), values)[0].isfinite().all()


def test_schedule() -> None:
    """Check 8."""
    schedule = SkipSchedule(warmup_steps=10)
    reach = [schedule.max_skip(step, list_size=8) for step in range(30)]
    assert reach[0] == 1
    assert reach == sorted(reach)
    assert set(reach[10:]) == {7}
    assert reach[5] == 1 + math.floor(6 * 0.5)
    assert [SkipSchedule(2, start=3, end=3).max_skip(step, 50) for step in range(4)] == [3] * 4
    for bad in ({"warmup_steps": 0}, {"warmup_steps": 1, "start": 0}, {"warmup_steps": 1, "start": 3, "end": 2}):
        with pytest.raises(RivalsError, match="schedule"):
            SkipSchedule(**bad)
    for step, size in ((-1, 8), (0, 1)):
        with pytest.raises(RivalsError, match="schedule"):
            schedule.max_skip(step, size)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": -0.1}, "margin"),
        ({"max_skip": 0}, "max_skip"),
        ({"form": "list"}, "form"),
        ({"local_weight": 2.0}, "local_weight"),
        ({"form": "pairwise", "nonlocal_weight": -1.0}, "nonlocal_weight"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(RivalsError, match=match):
        ranklist_loss(*problem(), **options)
