"""Money at the top of a list and in wrong flags, by hand and by law."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.measures import flagged_value, value_at_k

SCORES, VALUE = torch.tensor([[0.9, 0.1, 0.5, 0.7]]), torch.tensor([[5.0, 4.0, -1.0, 2.0]])


def test_value_at_the_top_by_hand():
    assert value_at_k(SCORES, VALUE, k=1).tolist() == [5]
    assert value_at_k(SCORES, VALUE, k=3).tolist() == [6]
    assert value_at_k(SCORES, VALUE, k=None).tolist() == [10]
    assert value_at_k(SCORES, VALUE, k=1, share=True).item() == pytest.approx(5 / 11)
    assert value_at_k(SCORES, VALUE, torch.tensor([[False, True, True, True]]), k=2).tolist() == [1]
    assert value_at_k(SCORES, -VALUE.abs(), k=2, share=True).tolist() == [0]


def test_wrong_flags_by_hand():
    labels = torch.tensor([[1, 0, 0, 0]])
    assert flagged_value(SCORES, labels, VALUE, share=0.25).item() == 0
    assert flagged_value(SCORES, labels, VALUE, share=0.5).item() == -2
    assert flagged_value(-SCORES, labels, VALUE, share=0.25).item() == -9
    assert flagged_value(SCORES, labels, VALUE).item() == 0  # one per cent of four is still one


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=8), st.integers(1, 9))
def test_numpy_padding_and_the_whole_list(rows, k):
    scores, value = (np.array([column], dtype=float) for column in zip(*rows, strict=True))
    padded = (
        np.pad(scores, ((0, 0), (0, 2)), constant_values=99),
        np.pad(value, ((0, 0), (0, 2)), constant_values=np.nan),
    )
    mask = np.arange(padded[0].shape[1])[None] < len(rows)
    found = value_at_k(scores, value, k=k)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, value_at_k(*padded, mask, k=k))
    order = np.argsort(-scores[0], kind="stable")[:k]
    np.testing.assert_allclose(found, [value[0][order].sum()])
    labels = (value > 0).astype(int)
    assert flagged_value(scores, labels, value, share=1.0) == pytest.approx(value[value < 0].sum())


def test_bad_arguments():
    with pytest.raises(RivalsError, match="k must be"):
        value_at_k(SCORES, VALUE, k=0)
    with pytest.raises(RivalsError, match="finite"):
        value_at_k(SCORES, VALUE * torch.inf)
    with pytest.raises(RivalsError, match="share"):
        flagged_value(SCORES, VALUE, VALUE, share=0)
    with pytest.raises(RivalsError, match="labels must have shape"):
        flagged_value(SCORES, torch.ones(1, 3), VALUE)
    with pytest.raises(RivalsError, match="value must have shape"):
        value_at_k(SCORES, VALUE[:, :2])
