"""A table of synonyms out of the corpus: words of the documents whose token vectors lie nearest, no download needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rivals.diagnose.robustness.edits import words_of
from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.models import Encoder

_SHORTEST = 4
_STEM = 5  # words that begin alike are forms of one word, not synonyms
_BLOCK = 2048


def corpus_synonyms(
    encoder: Encoder,
    texts: Iterable[str],
    *,
    per_word: int = 3,
    similarity: float = 0.5,
    least: int = 3,
    most_words: int = 20_000,
) -> dict[str, tuple[str, ...]]:
    """Return for words of the corpus the words nearest to them: lower-case word -> up to `per_word` others, nearest first.

    Words that the encoder's tokenizer keeps whole are compared by the cosine of their input embeddings. Nearest in meaning is
    not the same as synonymous (opposites stand near each other, too): read the table before trusting a figure made with it,
    or give one of your own.

    Args:
        texts: where the words come from, such as `dataset.documents.texts`.
        similarity: the least cosine. least: how often a word must occur. most_words: the most frequent words looked at.

    Source: word-level attacks of paper 55; a table from the model's own vectors is ours, after counter-fitted neighbours.

    Raises:
        RivalsError: per_word or least below 1; fewer than two words that the tokenizer keeps whole.

    >>> from rivals.models import Encoder
    >>> encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")
    >>> corpus_synonyms(encoder, ["doctor physician banana"], least=1)["doctor"]
    ('physician',)
    """
    if per_word < 1 or least < 1:
        raise RivalsError(f"per_word is {per_word} and least {least}; both must be 1 or more")
    counts = Counter(word.lower() for text in texts for word in words_of(text))
    common = [
        word
        for word, count in counts.most_common(most_words)
        if count >= least and len(word) >= _SHORTEST and word.isalpha()
    ]
    pieces = encoder.tokenizer(common, add_special_tokens=False)["input_ids"] if common else []
    unknown = encoder.tokenizer.unk_token_id
    whole = [(word, ids[0]) for word, ids in zip(common, pieces, strict=True) if len(ids) == 1 and ids[0] != unknown]
    if len(whole) < 2:
        raise RivalsError(
            f"{len(whole)} words of the corpus are whole tokens of this encoder; synonyms need two at least"
        )
    words = [word for word, _ in whole]
    vectors = _embeddings(encoder, [token for _, token in whole])
    table: dict[str, tuple[str, ...]] = {}
    width = min(len(words), 4 * per_word + 1)
    for start in range(0, len(words), _BLOCK):
        cosine = vectors[start : start + _BLOCK] @ vectors.T
        near = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
        for row, places in enumerate(near.tolist()):
            word = words[start + row]
            ranked = sorted(places, key=lambda place, row=row: -cosine[row, place])  # type: ignore[misc]
            others = [
                words[place]
                for place in ranked
                if cosine[row, place] >= similarity and words[place][:_STEM] != word[:_STEM]
            ]
            if others:
                table[word] = tuple(others[:per_word])
    return table


def _embeddings(encoder: Encoder, tokens: list[int]) -> NDArray[np.float32]:
    """Unit input embeddings of some tokens."""
    import torch

    with torch.no_grad():
        weight = encoder.backbone.get_input_embeddings().weight
        shared = weight.float().mean(0)  # by all words, and no part of their meaning
        vectors = (weight[torch.tensor(tokens, device=weight.device)].float() - shared).cpu().numpy()
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
