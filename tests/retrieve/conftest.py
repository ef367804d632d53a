"""A small encoder whose vectors can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest


class LetterEncoder:
    """Counts letters: "aab" has the vector (2, 1, 0, ...); documents and queries alike."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.mark = "letters"

    def encode(self, texts: list[str], *, role: str, progress: bool | str) -> np.ndarray:
        self.calls.append((role, len(texts)))
        return np.array([[text.count(c) for c in "abcdefgh"] for text in texts], dtype=np.float32).reshape(
            len(texts), 8
        )

    def fingerprint(self) -> str:
        return self.mark


@pytest.fixture
def letters() -> LetterEncoder:
    return LetterEncoder()
