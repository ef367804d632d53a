"""Miners: triplets of a batch, the whisker filter."""

from __future__ import annotations

import pytest
import torch

import rivals.losses._fused.labelled as blocked
from rivals.errors import RivalsError
from rivals.losses import (
    hardest_triplets,
    negative_pair_similarities,
    random_triplets,
    relative_similarity_miner,
    whisker_filter,
)


def test_hardest_triplets_by_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    labels, mask = torch.randint(0, 12, (30,), generator=generator), torch.arange(30) % 6 > 0
    wanted = []
    for i in range(30):
        own = [j for j in range(30) if labels[j] == labels[i] and j != i and mask[j]]
        others = [k for k in range(30) if labels[k] != labels[i] and mask[k]]
        if mask[i] and own and others:
            d = (rows - rows[i]).norm(dim=1)
            wanted.append((i, max(own, key=lambda j: float(d[j])), min(others, key=lambda k: float(d[k]))))
    assert list(zip(*(part.tolist() for part in hardest_triplets(rows, labels, mask)), strict=True)) == wanted
    monkeypatch.setattr(blocked, "FUSED_FROM", 1)
    monkeypatch.setattr(blocked, "MIN_ROWS", 1)
    monkeypatch.setattr(blocked, "BLOCK_ELEMENTS", 90)
    assert list(zip(*(part.tolist() for part in hardest_triplets(rows, labels, mask)), strict=True)) == wanted
    unit = hardest_triplets(rows, labels, mask, normalize=True)
    scaled = hardest_triplets(rows * torch.linspace(1, 5, 30)[:, None], labels, mask, normalize=True)
    assert [part.tolist() for part in unit] == [part.tolist() for part in scaled]


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], []], ids=str)
def test_no_triplets(labels: list[int]) -> None:
    classes = torch.tensor(labels, dtype=torch.int64)
    assert [len(part) for part in hardest_triplets(torch.randn(len(labels), 2), classes)] == [0, 0, 0]
    assert [len(part) for part in random_triplets(classes, generator=torch.Generator())] == [0, 0, 0]


def test_random_triplets_are_triplets_and_even() -> None:
    labels, mask = torch.tensor([2, 0, 0, 1, 2, 2, 0, 9]), torch.tensor([True] * 6 + [False, True])
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(2, 8)
    for _ in range(3000):
        drawn = random_triplets(labels, mask, generator=generator)
        assert drawn.anchor.tolist() == [0, 1, 2, 4, 5]
        assert (labels[drawn.anchor] == labels[drawn.positive]).all()
        assert (drawn.anchor != drawn.positive).all()
        assert (labels[drawn.anchor] != labels[drawn.negative]).all()
        counts[0, drawn.positive[0]] += 1
        counts[1, drawn.negative[0]] += 1
    assert counts[0].nonzero().flatten().tolist() == [4, 5]
    assert counts[1].nonzero().flatten().tolist() == [1, 2, 3, 7]
    assert counts[0, 4].item() == pytest.approx(1500, abs=150)
    assert counts[1, 7].item() == pytest.approx(750, abs=120)
    with pytest.raises(RivalsError, match="labels"):
        random_triplets([0, 1], generator=generator)  # type: ignore[arg-type]


def test_miner_refuses_a_negative_epsilon() -> None:
    with pytest.raises(RivalsError, match="epsilon"):
        relative_similarity_miner(torch.zeros(1, 2), torch.ones(1, 2), epsilon=-1.0)


def test_whisker_by_hand() -> None:
    """Paper 14, checks 1 and 2."""
    values = torch.tensor([-0.9, 0.0, 0.1, 0.2, 0.3, 0.95])
    assert whisker_filter(values, whisker=1.0).tolist() == [False, True, True, True, True, False]
    assert whisker_filter(values, whisker=0.0).tolist() == [False, True, True, True, True, False]
    assert whisker_filter(values, whisker=100.0).all()
    assert whisker_filter(values, whisker=None).all()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert (
        whisker_filter(3 * values[order] - 7, whisker=1.0).tolist()
        == whisker_filter(values, whisker=1.0)[order].tolist()
    )


def test_whisker_of_lists_and_masks() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(6, 11, generator=generator).masked_fill(torch.rand(6, 11, generator=generator) < 0.1, 9.0)
    mask = torch.rand(6, 11, generator=generator) < 0.7
    mask[2] = False
    found = whisker_filter(values.masked_fill(~mask, float("nan")), mask, whisker=0.7)
    for row, there, kept in zip(values, mask, found, strict=True):
        assert not kept[~there].any()
        if there.any():
            assert kept[there].tolist() == whisker_filter(row[there], whisker=0.7).tolist()
    assert whisker_filter(values[:, :0]).shape == (6, 0)
    with pytest.raises(RivalsError, match="whisker"):
        whisker_filter(values, whisker=-1.0)


def test_negative_pairs_come_once() -> None:
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels, mask = torch.tensor([0, 1, 1, 2, 0, 0, 3, 1, 2]), torch.arange(9) != 4
    unit = torch.nn.functional.normalize(rows)
    wanted = [
        float(unit[i] @ unit[j])
        for i in range(9)
        for j in range(i + 1, 9)
        if labels[i] != labels[j] and mask[i] and mask[j]
    ]
    assert negative_pair_similarities(rows, labels, mask).tolist() == pytest.approx(wanted)
    assert len(negative_pair_similarities(rows, torch.zeros(9, dtype=torch.int64))) == 0
