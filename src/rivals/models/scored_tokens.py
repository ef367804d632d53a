"""Which tokens of a text are seen, which count in MaxSim, and which unit of the text each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.errors import RivalsError
from rivals.models.batching import Tokens

Span = tuple[int, int]


@dataclass(frozen=True)
class ScoredTokens(Tokens):
    """Tokens of which the first `attended[i]` of text i are seen by the others, and `scored[total]` count in MaxSim."""

    attended: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scored: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def pad(self, rows: np.ndarray, *, pad_id: int = 0, multiple: int = 1, device: Any = None) -> tuple[Tensor, Tensor]:
        """As `Tokens.pad`; the mask covers what is seen."""
        ids, mask = Tokens.pad(self, rows, pad_id=pad_id, multiple=multiple, device=device)
        seen = torch.from_numpy(np.arange(ids.shape[1])[None, :] < self.attended[rows][:, None]).to(mask)
        return ids, mask * seen

    def scored_mask(self, rows: np.ndarray, width: int) -> NDArray[np.bool_]:
        """Return which of the first `width` positions of the texts of `rows` count, bool[len(rows), width]."""
        index, offsets = lists.take_segments(self.offsets, np.asarray(rows, np.int64))
        lengths = np.diff(offsets)
        mask = np.zeros((len(rows), width), bool)
        mask[np.arange(width)[None, :] < lengths[:, None]] = self.scored[index]
        return mask


def unit_of_tokens(
    spans: NDArray[np.int64], offsets: NDArray[np.int64], units: Sequence[Sequence[Span]], texts: Sequence[str]
) -> NDArray[np.int64]:
    """Return the unit of every token, counted through all texts, int64[total]; -1 for tokens of none.

    A token belongs to the unit its first character lies in. spans int64[total, 2]; text i owns tokens offsets[i]:offsets[i + 1].

    Raises:
        RivalsError: units missing for a text, or spans that are empty, overlap, do not rise or leave their text.

    >>> unit_of_tokens(np.array([[-1, -1], [0, 2], [3, 5]]), np.array([0, 3]), [[(0, 2), (3, 5)]], ["ab cd"])
    array([-1,  0,  1])
    """
    if len(units) != len(texts):
        raise RivalsError(f"there are units for {len(units)} texts, but {len(texts)} texts")
    shift = np.concatenate([[0], np.cumsum([len(text) + 1 for text in texts])]).astype(np.int64)
    flat = np.array([span for own in units for span in own], np.int64).reshape(-1, 2)
    text = np.repeat(np.arange(len(texts)), [len(own) for own in units])
    length = np.array([len(found) for found in texts], np.int64)
    bad = (flat[:, 0] < 0) | (flat[:, 0] >= flat[:, 1]) | (flat[:, 1] > length[text])
    bad[1:] |= (text[1:] == text[:-1]) & (flat[1:, 0] < flat[:-1, 1])
    if bad.any():
        first = int(bad.argmax())
        raise RivalsError(
            f"unit {tuple(flat[first].tolist())} of text {int(text[first])} is empty, overlaps the one before or leaves the text"
        )
    flat = flat + shift[text][:, None]
    owner = lists.segment_ids(offsets)
    start = spans[:, 0] + shift[owner]
    place = np.searchsorted(flat[:, 0], start, side="right") - 1
    inside = (spans[:, 0] >= 0) & (place >= 0)
    if len(flat):
        inside &= (start < flat[place, 1]) & (text[place] == owner)
    return np.where(inside, place, -1)
