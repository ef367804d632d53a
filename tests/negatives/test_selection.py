"""Negatives from an index of chunks (paper 37)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from rivals.errors import RivalsError
from rivals.losses import pairwise_logistic_loss
from rivals.models.passages import max_passage
from rivals.negatives import neighbour_reciprocal_rank, select_negatives

NEIGHBOURS, DOCUMENTS = [[0, 1, 2, 3]], [10, 10, 12, 14]


def walked(rows: list[int], documents: list[int], positives: set[int], n: int, window: int) -> list[int]:
    """The walk of the card, row by row."""
    taken: list[int] = []
    for row in rows[:window]:
        document = documents[row]
        if document not in positives and document not in taken and len(taken) < n:
            taken.append(document)
    return taken


def test_by_hand() -> None:
    """Check 3."""
    positives = ([0, 1], [12])
    assert select_negatives(NEIGHBOURS, DOCUMENTS, positives, 2, order="top", window=4).lists() == [[10, 14]]
    assert select_negatives(NEIGHBOURS, DOCUMENTS, positives, 2, order="top", window=3).lists() == [[10]]


def test_against_the_walk() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        rows, width, queries = 30, 12, 5
        documents = generator.integers(0, 15, rows)
        neighbours = np.stack([generator.permutation(rows)[:width] for _ in range(queries)])
        known = [generator.choice(15, generator.integers(0, 3), replace=False).tolist() for _ in range(queries)]
        positives = (np.cumsum([0, *map(len, known)]), [p for row in known for p in row])
        n, window = int(generator.integers(1, 8)), int(generator.integers(1, 15))
        selected = select_negatives(neighbours, documents, positives, n, order="top", window=window)
        wanted = [
            walked(row.tolist(), documents.tolist(), set(own), n, window) if own else []
            for row, own in zip(neighbours, known, strict=True)
        ]
        assert selected.lists() == wanted
        assert selected.dropped == sum(not own for own in known)
        assert (selected.mask.sum(1) == [len(row) for row in wanted]).all()
        assert (selected.document[~selected.mask] == -1).all()


def test_shuffled_rows_are_all_alike() -> None:
    """Check 4."""
    times, width = 5_000, 7
    neighbours = np.tile(np.arange(width), (times, 1))
    positives = (np.arange(times + 1), np.full(times, 3))
    options = {"generator": np.random.default_rng(0)}
    drawn = select_negatives(neighbours, np.arange(width), positives, 1, **options).document[:, 0]
    counts = np.bincount(drawn, minlength=width)
    assert counts[3] == 0
    assert chisquare(np.delete(counts, 3)).pvalue > 1e-3
    one, two = (
        select_negatives(neighbours, np.arange(width), positives, 4, generator=np.random.default_rng(5)).document
        for _ in range(2)
    )
    assert (one == two).all()


def test_reciprocal_rank() -> None:
    neighbours = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]]
    positives = ([0, 1, 2, 2], [10, 10])
    first = neighbour_reciprocal_rank(neighbours, DOCUMENTS, positives)
    assert first[:2].tolist() == [1, 1 / 3]
    assert np.isnan(first[2])
    summed = neighbour_reciprocal_rank(neighbours, DOCUMENTS, positives, rows="all")
    assert summed[:2] == pytest.approx([1.5, 1 / 3 + 1 / 4])
    assert neighbour_reciprocal_rank(neighbours, DOCUMENTS, positives, window=2)[1] == 0
    assert neighbour_reciprocal_rank(neighbours, DOCUMENTS, positives, cutoff=2)[1] == 0


def test_bad_input() -> None:
    for change in (
        {"n": 5},
        {"n": 0},
        {"order": "best"},
        {"order": "shuffle"},
        {"window": 0},
        {"positives": ([0, 1, 1], [12])},
        {"neighbours": [[0, 9]], "n": 1},
        {"neighbours": [0, 1], "n": 1},
    ):
        arguments = {
            "neighbours": NEIGHBOURS,
            "row_to_document": DOCUMENTS,
            "positives": ([0, 1], [12]),
            "n": 2,
            "order": "top",
        }
        with pytest.raises(RivalsError):
            select_negatives(**(arguments | change))
    for change in ({"cutoff": 0}, {"rows": "some"}):
        with pytest.raises(RivalsError):
            neighbour_reciprocal_rank(NEIGHBOURS, DOCUMENTS, ([0, 1], [12]), **change)


def test_best_passage() -> None:
    """Checks 1 and 2, and that absent chunks reach neither value nor gradient."""
    scores = torch.tensor([[1.0, 3.0, 2.0], [float("nan"), 5.0, 4.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    best = max_passage(scores, mask)
    assert best.tolist() == [2, 5]
    best.sum().backward()
    assert scores.grad.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert max_passage(torch.tensor([7.0]), torch.tensor([False])).item() == float("-inf")
    pair = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    loss = pairwise_logistic_loss(pair, torch.tensor([[1.0, 0.0]] * 2), reduction="none")
    assert loss.tolist() == pytest.approx([0.126928011, 0.693147181])
    with pytest.raises(RivalsError):
        max_passage(scores, mask[0])
