"""Each pooling mode against its definition, written as a loop."""

from __future__ import annotations

import pytest
import torch

from rivals.models.folder import POOLING_MODES, DenseSpec, PoolingSpec
from rivals.models.pooling import Dense, pool


def by_hand(vectors: torch.Tensor, mode: str, skip: int) -> torch.Tensor:
    """Pool the vectors of one text, [T, H], leaving the first `skip` out."""
    rest = vectors[skip:]
    positions = torch.arange(skip + 1, len(vectors) + 1, dtype=torch.float32)[:, None]
    return {
        "cls": rest[0],
        "max": rest.amax(0),
        "mean": rest.sum(0) / len(rest),
        "mean_sqrt_len_tokens": rest.sum(0) / len(rest) ** 0.5,
        "weightedmean": (rest * positions).sum(0) / positions.sum(),
        "lasttoken": rest[-1],
    }[mode]


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_modes_follow_their_definition_and_ignore_padding(mode: str, skip: int) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = [7, 3, 5]
    hidden = torch.randn(3, 9, 4, generator=generator)
    mask = (torch.arange(9)[None] < torch.tensor(lengths)[:, None]).long()
    spec = PoolingSpec((mode,), include_prompt=skip == 0)
    got = pool(hidden, mask, spec=spec, prompt_length=skip)
    noisy = torch.where(mask.bool().unsqueeze(-1), hidden, torch.full_like(hidden, 1e4))
    torch.testing.assert_close(pool(noisy, mask, spec=spec, prompt_length=skip), got)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(got[row], by_hand(hidden[row, :length], mode, skip))


def test_modes_are_concatenated_in_the_order_given() -> None:
    hidden, mask = torch.tensor([[[1.0], [5.0]]]), torch.ones(1, 2, dtype=torch.long)
    assert pool(hidden, mask, spec=PoolingSpec(("max", "mean", "cls"))).tolist() == [[5.0, 3.0, 1.0]]


def test_a_prompt_counts_unless_the_folder_says_no() -> None:
    hidden, mask = torch.tensor([[[9.0], [1.0], [3.0]]]), torch.ones(1, 3, dtype=torch.long)
    assert pool(hidden, mask, spec=PoolingSpec(), prompt_length=1).tolist() == [[pytest.approx(13 / 3)]]
    assert pool(hidden, mask, spec=PoolingSpec(include_prompt=False), prompt_length=1).tolist() == [[2.0]]


def test_pooling_is_in_float32() -> None:
    hidden = torch.full((1, 300, 2), 1.01, dtype=torch.bfloat16)
    out = pool(hidden, torch.ones(1, 300, dtype=torch.long))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, hidden[:, 0].float())


@pytest.mark.parametrize("width", [3, 4])
def test_a_residual_dense_adds_its_input(width: int) -> None:
    layer = Dense(DenseSpec(4, width, residual=True))
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    base = torch.tanh(layer.linear(x))
    torch.testing.assert_close(layer(x) - base, x if width == 4 else layer.residual(x))
