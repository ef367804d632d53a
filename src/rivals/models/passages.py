"""Documents of several passages: one score out of the scores of the chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.errors import RivalsError


def max_passage(scores: Tensor, chunk_mask: Tensor) -> Tensor:
    """Return a document's score: that of its best chunk (MaxP).

    Args:
        scores: float[..., P], of every chunk. chunk_mask: bool[..., P], False where a document has no such chunk; what
            stands there is not looked at.

    Returns:
        float[...], -inf for a document without chunk: leave it out, or mask it as a candidate. The gradient reaches the
        best chunk only (of equal ones, one).

    Source: Dai and Callan (2019); Xiong et al. (2021), ANCE, whose code adds -9999 to absent chunks. Paper 37.

    Raises RivalsError: a mask that is not boolean or not of the scores' shape.

    >>> max_passage(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([True, False, True]))
    tensor(2.)
    """
    if chunk_mask.dtype != torch.bool or chunk_mask.shape != scores.shape:
        raise RivalsError(
            f"chunk_mask must be boolean of the scores' shape {tuple(scores.shape)}, not {chunk_mask.dtype} of shape "
            f"{tuple(chunk_mask.shape)}"
        )
    return scores.masked_fill(~chunk_mask, float("-inf")).max(-1).values
