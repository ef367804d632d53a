"""Overlap of n-grams between generated text and references: ROUGE-N, ROUGE-L, BLEU, distinct-n.

Words are what `tokenise` makes of a text, `str.split` unless told; nothing is lower-cased or stemmed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.measures.text import Tokenise, check_as_many


class Rouge(NamedTuple):
    """Precision, recall and their harmonic mean, one value an example."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def rouge_n(
    predictions: Sequence[str], references: Sequence[str], *, n: int = 1, tokenise: Tokenise = str.split
) -> Rouge:
    """ROUGE-N: the n-grams a prediction and its reference share, as often as both have them.

    precision = shared / n-grams of the prediction, recall = shared / n-grams of the reference; 0 where there are none.

    Shapes: N predictions and references -> three [N]; their means are the corpus figures. Use it for summaries, with
    n = 1 and 2 beside `rouge_l`. rouge-score lower-cases, drops punctuation and may stem: give a `tokenise` that does.

    Source: Lin 2004. Papers 36, 44.

    Raises:
        RivalsError: not as many predictions as references; n below 1.

    >>> [value.round(4).tolist() for value in rouge_n(["the cat sat"], ["the cat is black"])]
    [[0.6667], [0.5], [0.5714]]
    """
    check_as_many(predictions, references)
    _check_order(n, "n")
    shared, made, wanted = [], [], []
    for prediction, reference in zip(predictions, references, strict=True):
        left, right = _n_grams(tokenise(prediction), n), _n_grams(tokenise(reference), n)
        shared.append((left & right).total())
        made.append(left.total())
        wanted.append(right.total())
    return _rouge(shared, made, wanted)


def rouge_l(predictions: Sequence[str], references: Sequence[str], *, tokenise: Tokenise = str.split) -> Rouge:
    """ROUGE-L: the longest subsequence of words that a prediction and its reference share.

    precision = its length / words of the prediction, recall = its length / words of the reference; O(n m) an example.

    Shapes and use as `rouge_n`: it rewards words in the same order without asking that they stand together.

    Source: Lin 2004, the sentence-level form with beta = 1. Papers 36, 44, 105.

    Raises:
        RivalsError: not as many predictions as references.

    >>> rouge_l(["a b c d"], ["a x c d"]).f1.tolist()
    [0.75]
    """
    check_as_many(predictions, references)
    words = [(tokenise(p), tokenise(r)) for p, r in zip(predictions, references, strict=True)]
    return (
        _rouge(
            [_common_subsequence(left, right) for left, right in words],
            *zip(*((len(p), len(r)) for p, r in words), strict=True),
        )
        if words
        else Rouge(*(np.zeros(0) for _ in range(3)))
    )


def bleu(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    max_order: int = 4,
    smoothing: Literal["add_one"] | None = None,
    tokenise: Tokenise = str.split,
) -> float:
    """BLEU of a corpus, 0 to 1: how many of its 1- to 4-grams occur in the references, with a penalty for brevity.

    BLEU = BP exp(mean over n of log precision_n), precision_n = clipped matches / n-grams of all predictions; BP = 1,
    or exp(1 - r / c) if the predictions' length c is below r, the sum of the closest reference lengths. 0 if any order
    has no match.

    Use it on a corpus. For a single sentence (one prediction) set smoothing="add_one", which adds 1 to matches and
    n-grams of the orders above 1.

    Args:
        references: one or several a prediction.

    Source: Papineni et al. 2002; add-one: Lin and Och 2004; unsmoothed as torchmetrics' `bleu_score`. Papers 44, 73.

    Raises:
        RivalsError: not as many predictions as references; a prediction without reference; an unknown smoothing;
            max_order below 1.

    >>> round(bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 4)
    0.5373
    """
    check_as_many(predictions, references)
    _check_order(max_order, "max_order")
    if smoothing not in (None, "add_one"):
        raise RivalsError(f"smoothing is '{smoothing}'; it can be None or 'add_one'")
    matches, possible = np.zeros(max_order), np.zeros(max_order)
    made = wanted = 0
    for number, (prediction, given) in enumerate(zip(predictions, references, strict=True)):
        words = tokenise(prediction)
        several = [tokenise(text) for text in ([given] if isinstance(given, str) else given)]
        if not several:
            raise RivalsError(f"prediction {number} has no reference")
        made += len(words)
        wanted += min((len(text) for text in several), key=lambda length: (abs(length - len(words)), length))
        for order in range(1, max_order + 1):
            grams = _n_grams(words, order)
            allowed: Counter[tuple[str, ...]] = Counter()
            for text in several:
                allowed |= _n_grams(text, order)
            matches[order - 1] += (grams & allowed).total()
            possible[order - 1] += grams.total()
    if smoothing == "add_one":
        matches[1:] += 1
        possible[1:] += 1
    if matches.min() == 0:
        return 0.0
    brevity = min(0.0, 1 - wanted / made)
    return math.exp(brevity + np.log(matches / possible).mean())


def distinct_n(texts: Sequence[str], *, n: int = 2, tokenise: Tokenise = str.split) -> float:
    """Distinct-n of a set of texts: different n-grams over all n-grams, 0 to 1; low means repetitive.

    Use it beside a quality measure for generated text; it falls as the set grows. 0 if there is no n-gram.

    Source: Li et al. 2016. Paper 73.

    Raises:
        RivalsError: n below 1.

    >>> distinct_n(["a b a b"], n=2)
    0.6666666666666666
    """
    _check_order(n, "n")
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        grams.update(_n_grams(tokenise(text), n))
    return len(grams) / max(grams.total(), 1)


def _check_order(n: int, name: str) -> None:
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise RivalsError(f"{name} is {n}; it must be a whole number of at least 1")


def _n_grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row at a time."""
    row = np.zeros(len(right) + 1, dtype=np.int64)
    words = np.array(right, dtype=object)
    for word in left:
        longer = np.where(words == word, row[:-1] + 1, row[1:]) if len(right) else row[1:]
        row[1:] = np.maximum.accumulate(longer)
    return int(row[-1])


def _rouge(shared: Sequence[int], made: Sequence[int], wanted: Sequence[int]) -> Rouge:
    found, left, right = (np.array(values, dtype=np.float64) for values in (shared, made, wanted))
    precision, recall = found / np.maximum(left, 1), found / np.maximum(right, 1)
    return Rouge(precision, recall, 2 * found / np.maximum(left + right, 1))
