"""MagFace: the length of an embedding says how good the example is, and sets its margin."""

from __future__ import annotations

from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_at_least_zero, check_scores

__all__ = ["magnitude_margin", "magnitude_penalty"]


def magnitude_margin(
    norms: Tensor,
    *,
    margins: tuple[float, float] = (0.45, 0.8),
    range_of_norms: tuple[float, float] = (10.0, 110.0),
) -> Tensor:
    """Return MagFace's margin of each example: it grows with the length of the embedding, linearly inside a range.

    Args:
        norms: float[N], the lengths of the embeddings. margins: at the ends of the range. range_of_norms: lengths
        outside are taken as its ends.

    Source: Meng et al. (2021), MagFace, section 3.2, with its defaults. Paper 14.

    Raises RivalsError: norms that are not of floating point, a range of no width, a negative margin.

    >>> import torch
    >>> magnitude_margin(torch.tensor([10.0, 60.0, 200.0]))
    tensor([0.4500, 0.6250, 0.8000])
    """
    check_scores(norms, "norms")
    for end in margins:
        check_at_least_zero(end, "margins")
    low, high = range_of_norms
    if not low < high:
        raise RivalsError(f"range_of_norms must go up; got {range_of_norms!r}")
    part = (norms.to(compute_dtype(norms)).clamp(low, high) - low) / (high - low)
    return margins[0] + (margins[1] - margins[0]) * part


def magnitude_penalty(norms: Tensor, *, range_of_norms: tuple[float, float] = (10.0, 110.0)) -> Tensor:
    """Return MagFace's penalty of each example's length, g = a / u^2 + 1 / a with u the upper end: shorter costs more.

    MagFace adds its mean times 35 to the loss, so that only examples that are easy grow long.

    Args:
        norms: float[N]; lengths outside the range are taken as its ends.

    Source: Meng et al. (2021), MagFace, section 3.2. Paper 14.

    Raises RivalsError: norms that are not of floating point, a range that does not go up from above 0.

    >>> import torch
    >>> magnitude_penalty(torch.tensor([10.0, 110.0]))
    tensor([0.1008, 0.0182])
    """
    check_scores(norms, "norms")
    low, high = range_of_norms
    if not 0 < low < high:
        raise RivalsError(f"range_of_norms must go up from above 0; got {range_of_norms!r}")
    length = norms.to(compute_dtype(norms)).clamp(low, high)
    return length / high**2 + 1 / length
