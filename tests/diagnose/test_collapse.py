"""Collapse report and separation gap: hand values, invariances, and the linear programme the gap solves."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from rivals.diagnose import collapse_report, triplet_separation_gap
from rivals.errors import RivalsError
from rivals.losses import in_batch_triplet_loss


def points(size: int = 20, width: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, width, generator=generator, dtype=torch.float64)
    return rows, torch.randint(0, 4, (size,), generator=generator)


def test_the_line_example() -> None:
    """Paper 12, check 1."""
    rows, labels = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    gap = triplet_separation_gap(rows, labels, margin=0.5)
    assert (gap.gap, gap.distance, gap.worst, gap.separated) == (2.5, 1.25, (2, 3, 1), False)
    assert gap.per_anchor == (0, 0, 2.5, 0)
    assert json.loads(json.dumps(gap.to_json()))["gap"] == 2.5
    assert (
        str(gap)
        == "not separated: gap 2.5, at least 1.25 from separated; worst is row 2 with 3 (own class) and 1 (another)"
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_is_twice_a_linear_programme(seed: int) -> None:
    """Paper 12, check 5: the least largest change of a symmetric table of distances that makes every triplet hold."""
    generator = np.random.default_rng(seed)
    rows, labels, margin = generator.normal(size=(6, 2)), np.array([0, 0, 1, 1, 2, 2]), 0.3
    d = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    pairs = list(itertools.combinations(range(6), 2))
    column = {pair: number for number, pair in enumerate(pairs)}
    limits, bounds = [], []

    def constraint(entries: dict[int, float], limit: float) -> None:
        row = np.zeros(len(pairs) + 1)
        for place, value in entries.items():
            row[place] = value
        limits.append(row)
        bounds.append(limit)

    last = len(pairs)
    for a, p, n in itertools.permutations(range(6), 3):
        if labels[a] == labels[p] != labels[n]:
            constraint({column[min(a, p), max(a, p)]: 1.0, column[min(a, n), max(a, n)]: -1.0}, -margin)
    for (i, j), place in column.items():
        constraint({place: 1.0, last: -1.0}, d[i, j])
        constraint({place: -1.0, last: -1.0}, -d[i, j])
    cost = np.zeros(last + 1)
    cost[last] = 1.0
    solved = linprog(cost, A_ub=np.array(limits), b_ub=np.array(bounds), bounds=[(None, None)] * (last + 1))
    gap = triplet_separation_gap(torch.tensor(rows), torch.tensor(labels), margin=margin)
    assert gap.distance == pytest.approx(solved.fun, abs=1e-9)


def test_the_gap_is_the_worst_batch_hard_loss() -> None:
    """Paper 12, check 4."""
    rows, labels = points()
    gap = triplet_separation_gap(rows, labels)
    each = in_batch_triplet_loss(rows, labels, reduction="none")
    assert gap.per_anchor == pytest.approx(each.tolist())
    assert gap.gap == pytest.approx(each.max().item())
    apart = triplet_separation_gap(rows + 100.0 * labels[:, None], labels)
    assert apart.separated
    assert apart.gap == 0
    nothing = triplet_separation_gap(rows, torch.zeros(20, dtype=torch.int64))
    assert nothing.worst is None
    assert nothing.separated
    assert "no triplet" in str(nothing)


def test_a_collapsed_batch() -> None:
    """Paper 12, check 2."""
    rows, labels = torch.full((8, 3), 2.7), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    report = collapse_report(rows, labels, margin=0.2)
    assert report.collapsed
    assert report.at_margin == 1
    assert report.mean_distance == pytest.approx(0, abs=1e-6)
    assert report.effective_rank < 1 + 1e-9
    assert report.std < 1e-6
    assert str(report).startswith("collapsed: mean distance")
    assert collapse_report(rows).collapsed
    assert collapse_report(rows).at_margin is None


def test_a_healthy_batch() -> None:
    rows, labels = points()
    d = torch.cdist(rows, rows)
    report = collapse_report(rows, labels, margin=0.2)
    assert not report.collapsed
    assert report.mean_distance == pytest.approx((d.sum() / (20 * 19)).item())
    assert report.diameter == pytest.approx(d.max().item())
    assert report.std == pytest.approx(rows.std(0, correction=0).mean().item())
    assert 1 < report.effective_rank <= 3
    assert collapse_report(rows, reference=1e5).collapsed
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_effective_rank() -> None:
    line = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    assert collapse_report(line).effective_rank == pytest.approx(1, abs=1e-6)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])
    assert collapse_report(cross).effective_rank == pytest.approx(4)


def test_bad_input() -> None:
    rows, labels = points()
    with pytest.raises(RivalsError, match="at least two rows"):
        collapse_report(rows[:1])
    with pytest.raises(RivalsError, match="finite"):
        triplet_separation_gap(rows * math.nan, labels)
    with pytest.raises(RivalsError, match="together"):
        collapse_report(rows, labels)
    with pytest.raises(RivalsError, match="margin"):
        collapse_report(rows, labels, margin=0.0)
    with pytest.raises(RivalsError, match="reference"):
        collapse_report(rows, reference=-1.0)
    with pytest.raises(RivalsError, match="margin"):
        triplet_separation_gap(rows, labels, margin=-0.1)
    with pytest.raises(RivalsError, match="labels"):
        triplet_separation_gap(rows, labels[:3])
    with pytest.raises(RivalsError, match="embeddings"):
        collapse_report(torch.zeros(4))
