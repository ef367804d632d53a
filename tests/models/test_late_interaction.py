"""MaxSim against a loop over tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.models.encoder import TokenVectors
from rivals.models.late_interaction import max_sim, max_sim_pairs


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def ragged(rng: np.random.Generator, lengths: list[int]) -> TokenVectors:
    total = sum(lengths)
    return TokenVectors(unit(rng, total, 8), np.concatenate([[0], np.cumsum(lengths)]), np.zeros(total, np.int32))


def loop(query: np.ndarray, document: np.ndarray) -> float:
    if not len(query) or not len(document):
        return 0.0
    return float(np.mean([max(float(q @ d) for d in document) for q in query]))


def padded(tokens: TokenVectors, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    vectors = np.full((len(tokens), width, 8), 7.0, np.float32)  # what stands in padding must not count
    mask = np.zeros((len(tokens), width), bool)
    for row in range(len(tokens)):
        part = tokens.vectors[tokens.offsets[row] : tokens.offsets[row + 1]]
        vectors[row, : len(part)], mask[row, : len(part)] = part, True
    return torch.from_numpy(vectors), torch.from_numpy(mask)


def test_max_sim_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    queries, documents = ragged(rng, [3, 1, 5]), ragged(rng, [4, 2, 7, 1])
    (q, q_mask), (d, d_mask) = padded(queries, 6), padded(documents, 9)
    scores = max_sim(q, d, q_mask, d_mask)
    for i in range(3):
        for j in range(4):
            expected = loop(
                queries.vectors[queries.offsets[i] : queries.offsets[i + 1]],
                documents.vectors[documents.offsets[j] : documents.offsets[j + 1]],
            )
            assert float(scores[i, j]) == pytest.approx(expected, abs=1e-5)


def test_a_query_without_tokens_scores_0() -> None:
    q, d = torch.ones(1, 2, 3), torch.ones(2, 4, 3)
    assert max_sim(q, d, torch.zeros(1, 2, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)).tolist() == [
        [0.0, 0.0]
    ]


def test_gradient_reaches_the_best_tokens_only() -> None:
    rng = np.random.default_rng(1)
    q, d = torch.from_numpy(unit(rng, 2, 3, 8)), torch.from_numpy(unit(rng, 3, 5, 8)).requires_grad_()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    max_sim(q, d, torch.ones(2, 3, dtype=torch.bool), mask).sum().backward()
    expected = torch.zeros_like(d)
    for i in range(2):
        for t in range(3):
            for c in range(3):
                expected[c, int((d[c, :3] @ q[i, t]).argmax())] += q[i, t] / 3
    assert d.grad is not None
    torch.testing.assert_close(d.grad, expected)


@pytest.mark.parametrize("block", [1, 3, 64])
def test_listed_pairs_are_the_loop(block: int) -> None:
    rng = np.random.default_rng(2)
    queries, documents = ragged(rng, [3, 0, 5, 2]), ragged(rng, [4, 0, 7, 1, 0])
    rows = rng.permutation(20)
    scores = max_sim_pairs(queries, documents, rows // 5, rows % 5, block=block)
    for place, (i, j) in enumerate(zip(rows // 5, rows % 5, strict=True)):
        expected = loop(
            queries.vectors[queries.offsets[i] : queries.offsets[i + 1]],
            documents.vectors[documents.offsets[j] : documents.offsets[j + 1]],
        )
        assert scores[place] == pytest.approx(expected, abs=1e-5)
    assert max_sim_pairs(queries, documents, np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0,)
