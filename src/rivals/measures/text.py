"""Measures of generated text against references: edit distance, word and character error rate, exact match, token F1.

All take `predictions` and `references`, a text each for every example. Nothing is lower-cased or stripped of
punctuation unless `normalise` does it; words are what `tokenise` makes of a text, `str.split` unless told. Overlap of
n-grams (ROUGE, BLEU) is in `rivals.measures.overlap`.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError

Normalise: TypeAlias = "Callable[[str], str] | None"
"""What is done to every text first; None leaves it as it is."""

Tokenise: TypeAlias = "Callable[[str], Sequence[str]]"
"""What makes words of a text."""


def edit_distance(prediction: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Levenshtein distance: the fewest substitutions, deletions and insertions that turn one sequence into the other.

    A text is a sequence of characters. O(n m), a row at a time.

    Source: Levenshtein 1966. Papers 44, 75.

    >>> edit_distance("kitten", "sitting"), edit_distance(["the", "cat"], ["the", "big", "cat"])
    (3, 1)
    """
    codes: dict[Hashable, int] = {}
    left, right = (
        np.array([codes.setdefault(item, len(codes)) for item in side], dtype=np.int64)
        for side in (prediction, reference)
    )
    if len(left) < len(right):
        left, right = right, left
    places = np.arange(len(right) + 1)
    row = places.copy()
    for number, item in enumerate(left, 1):
        fresh = np.empty_like(row)
        fresh[0] = number
        fresh[1:] = np.minimum(row[1:] + 1, row[:-1] + (right != item))
        row = np.minimum.accumulate(fresh - places) + places  # insertions: each place from any place before it
    return int(row[-1])


def word_error_rate(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    normalise: Normalise = None,
    tokenise: Tokenise = str.split,
) -> float:
    """Word error rate (WER) of a corpus: edits of words over words of the references; may exceed 1.

    WER = sum of (substitutions + deletions + insertions) / sum of reference lengths. Use it for speech recognition and
    other near-verbatim text. Lower is better.

    Source: as torchmetrics' `word_error_rate`. Paper 44.

    Raises:
        RivalsError: not as many predictions as references; references without a word.

    >>> word_error_rate(["the cat sat"], ["the cat sat down"])
    0.25
    """
    pairs = _pairs(predictions, references, normalise)
    return _error_rate([(tokenise(prediction), tokenise(reference)) for prediction, reference in pairs], "word")


def character_error_rate(
    predictions: Sequence[str], references: Sequence[str], *, normalise: Normalise = None
) -> float:
    """Character error rate (CER) of a corpus: edits of characters over characters of the references.

    As `word_error_rate`, with the characters (spaces too) for words.

    Source: as torchmetrics' `char_error_rate`. Paper 44.

    Raises:
        RivalsError: as `word_error_rate`.

    >>> round(character_error_rate(["abc"], ["abd"]), 4)
    0.3333
    """
    return _error_rate(_pairs(predictions, references, normalise), "character")


def exact_match(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, normalise: Normalise = None
) -> NDArray[np.float64]:
    """Whether each prediction equals its reference (or one of its references), 1 or 0, [N]; its mean is the usual EM.

    Use `normalise=normalise_answer` for the convention of question answering.

    Source: Rajpurkar et al. 2016. Paper 44.

    Raises:
        RivalsError: not as many predictions as references.

    >>> exact_match(["Paris", "the Rhine"], ["Paris", "Rhine"], normalise=normalise_answer).tolist()
    [1.0, 1.0]
    """
    pairs = _with_references(predictions, references, normalise)
    return np.array([prediction in several for prediction, several in pairs], dtype=np.float64)


def token_f1(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    normalise: Normalise = None,
    tokenise: Tokenise = str.split,
) -> NDArray[np.float64]:
    """F1 of the words of each prediction against its reference (the best of its references), [N].

    With m words in common (as often as both have them): 2 m / (words of the prediction + words of the reference); 1 if
    both are empty.

    Source: Rajpurkar et al. 2016. Paper 44.

    Raises:
        RivalsError: not as many predictions as references.

    >>> token_f1(["the cat sat"], ["the cat is black"]).round(4).tolist()
    [0.5714]
    """

    def f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
        if not prediction and not reference:
            return 1.0
        common = (Counter(prediction) & Counter(reference)).total()
        return 2 * common / (len(prediction) + len(reference))

    return np.array(
        [
            max((f1(tokenise(p), tokenise(reference)) for reference in several), default=0.0)
            for p, several in _with_references(predictions, references, normalise)
        ]
    )


def normalise_answer(text: str) -> str:
    """Return a short answer in lower case without punctuation, articles (a, an, the) and superfluous space.

    Source: the evaluation of SQuAD (Rajpurkar et al. 2016). Paper 44.

    >>> normalise_answer("  The Cat's, hat ")
    'cats hat'
    """
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(word for word in bare.split() if word not in ("a", "an", "the"))


def perplexity(scores: Any, labels: Any, mask: Any = None) -> Any:
    """Perplexity of a language model: the exponential of the mean negative log-likelihood of the tokens.

    PPL = exp(mean over tokens of -log softmax(scores)_label).

    Shapes: scores[..., V] (logits), token numbers labels[...], mask[...] False where a token does not count -> scalar.
    V if the model is uniform. Comparable only between models of one vocabulary.

    Source: Jelinek et al. 1977; as torchmetrics' `perplexity`. Paper 44.

    Raises:
        RivalsError: as `negative_log_likelihood`; no token that counts.

    >>> perplexity(np.zeros((2, 3, 50)), np.zeros((2, 3), dtype=int)).round(4).item()
    50.0
    """
    from rivals.measures.calibration import negative_log_likelihood

    if 0 in labels.shape or not (mask is None or bool(mask.any())):
        raise RivalsError("labels holds no token that counts; perplexity needs at least one")
    value = negative_log_likelihood(scores, labels, mask)
    return np.exp(value) if isinstance(value, np.ndarray | np.generic) else value.exp()


def check_as_many(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Raise unless both are sequences of the same length, and not a text by mistake.

    >>> check_as_many(["a"], ["b"])
    """
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise RivalsError(f"{name} is one text; give a list of texts")
    if len(predictions) != len(references):
        raise RivalsError(f"{len(predictions)} predictions and {len(references)} references; each needs one")


def _pairs(predictions: Sequence[str], references: Sequence[str], normalise: Normalise) -> list[tuple[str, str]]:
    check_as_many(predictions, references)
    change = normalise or str
    return [
        (change(prediction), change(reference)) for prediction, reference in zip(predictions, references, strict=True)
    ]


def _with_references(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], normalise: Normalise
) -> list[tuple[str, list[str]]]:
    check_as_many(predictions, references)
    change = normalise or str
    return [
        (change(p), [change(text) for text in ([several] if isinstance(several, str) else several)])
        for p, several in zip(predictions, references, strict=True)
    ]


def _error_rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], unit: str) -> float:
    length = sum(len(reference) for _, reference in pairs)
    if length == 0:
        raise RivalsError(f"references hold no {unit}; the error rate is not defined")
    return sum(edit_distance(prediction, reference) for prediction, reference in pairs) / length
