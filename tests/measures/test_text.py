"""Measures of text: hand values, definitions by recursion, and bad input."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.measures import (
    bleu,
    character_error_rate,
    distinct_n,
    edit_distance,
    exact_match,
    normalise_answer,
    perplexity,
    rouge_l,
    rouge_n,
    token_f1,
    word_error_rate,
)

PREDICTIONS = ["the cat sat on the mat", "hello there world"]
REFERENCES = ["the cat sat on a mat", "hello world"]


def random_words(rng, most=9):
    return tuple(rng.choice(list("abc"), size=rng.integers(0, most)))


def distance_by_recursion(left, right):
    @cache
    def cost(i, j):
        if not i or not j:
            return i + j
        return min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, cost(i - 1, j - 1) + (left[i - 1] != right[j - 1]))

    return cost(len(left), len(right))


def subsequence_by_recursion(left, right):
    @cache
    def longest(i, j):
        if not i or not j:
            return 0
        return longest(i - 1, j - 1) + 1 if left[i - 1] == right[j - 1] else max(longest(i - 1, j), longest(i, j - 1))

    return longest(len(left), len(right))


def test_edit_distance_and_common_subsequence_by_recursion():
    rng = np.random.default_rng(0)
    for _ in range(60):
        left, right = random_words(rng), random_words(rng)
        assert edit_distance(left, right) == edit_distance(right, left) == distance_by_recursion(left, right)
        found = rouge_l([" ".join(left)], [" ".join(right)])
        common = subsequence_by_recursion(left, right)
        assert found.precision.item() == pytest.approx(common / max(len(left), 1))
        assert found.recall.item() == pytest.approx(common / max(len(right), 1))
    assert edit_distance("delete", "delte") == 1
    assert edit_distance("swap", "sawp") == 2


def test_error_rates():
    assert word_error_rate(PREDICTIONS, REFERENCES) == 0.25
    assert character_error_rate(PREDICTIONS, REFERENCES) == pytest.approx(9 / 31)
    assert word_error_rate(["the cat sat"], ["the cat sat down"]) == 0.25
    assert character_error_rate(["abc"], ["abd"]) == pytest.approx(1 / 3)
    assert word_error_rate(["a b c d"], ["a"]) == 3  # may exceed 1
    assert word_error_rate(["The Cat"], ["the cat"]) == 1
    assert word_error_rate(["The Cat"], ["the cat"], normalise=str.lower) == 0
    assert word_error_rate(["a-b"], ["a b"], tokenise=lambda text: text.replace("-", " ").split()) == 0


def test_question_answering():
    assert exact_match(PREDICTIONS, REFERENCES).tolist() == [0, 0]
    assert exact_match(["Paris", "Rome"], [["London", "Paris"], "Oslo"]).tolist() == [1, 0]
    assert token_f1(["a a b"], ["a b b"]).item() == pytest.approx(4 / 6)
    assert token_f1([""], [""]).item() == 1
    assert token_f1(["x"], [["y", "x z"]]).item() == pytest.approx(2 / 3)
    assert normalise_answer("An apple, a day!") == "apple day"
    assert exact_match([], []).shape == token_f1([], []).shape == (0,)


def test_rouge():
    one, two = (rouge_n(["the cat sat on the mat"], ["the cat is on the mat now"], n=n) for n in (1, 2))
    assert [value.item() for value in one] == pytest.approx([5 / 6, 5 / 7, 10 / 13])
    assert [value.item() for value in two] == pytest.approx([3 / 5, 3 / 6, 6 / 11])
    assert rouge_n(["the the the"], ["the cat"]).precision.item() == pytest.approx(1 / 3)  # counted as often as there
    assert rouge_n(["a"], ["a"], n=2).f1.item() == 0
    assert rouge_l(["d c b a"], ["a b c d"]).f1.item() == 0.25
    assert rouge_l([], []).f1.shape == (0,)
    same = rouge_l(PREDICTIONS, PREDICTIONS)
    assert same.f1.tolist() == [1, 1]


def test_bleu():
    # Clipped matches over n-grams of the two sentences: 7/9, 3/7, 2/5, 1/3; lengths 9 and 8.
    expected = (7 / 9 * 3 / 7 * 2 / 5 * 1 / 3) ** 0.25
    assert bleu(PREDICTIONS, REFERENCES) == pytest.approx(expected)
    assert expected == pytest.approx(0.459149748, abs=1e-6)
    assert bleu(["a b c d e"], ["a b c d e"]) == 1
    assert bleu(["a b c d"], ["a b c d e f g h"]) == pytest.approx(np.exp(1 - 8 / 4))
    assert bleu(["a b c"], ["a b c"]) == 0  # no 4-gram
    assert bleu(["a b c"], ["a b c"], smoothing="add_one") == pytest.approx(1)
    assert bleu(["a x c"], ["a b c"], smoothing="add_one") == pytest.approx((2 / 3 * 1 / 3 * 1 / 2 * 1) ** 0.25)
    assert bleu(["a b"], [["a c", "c b"]], max_order=1) == 1  # either word is in some reference
    assert bleu(["a a a a"], [["a a", "a"]], max_order=1) == 0.5
    # The closest length counts, the shorter of two equally close.
    assert bleu(["a b c"], [["a b", "a b c d"]], max_order=1) == 1
    assert bleu([], []) == 0


def test_distinct():
    assert distinct_n(["a b a b"]) == pytest.approx(2 / 3)
    assert distinct_n(["a b", "a b"], n=1) == 0.5
    assert distinct_n(["a"], n=2) == 0


def test_perplexity():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((2, 5, 7)), rng.integers(0, 7, (2, 5))
    mask = np.ones((2, 5), dtype=bool)
    mask[0, 3:] = False
    labels[~mask] = -100
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, labels.clip(min=0)[..., None], -1)[..., 0][mask]
    assert perplexity(scores, labels, mask) == pytest.approx(np.exp(-picked.mean()))
    assert perplexity(np.zeros((4, 9)), np.arange(4)) == pytest.approx(9)
    tensor = perplexity(torch.tensor(scores), torch.tensor(labels), torch.tensor(mask))
    assert tensor.item() == pytest.approx(np.exp(-picked.mean()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: word_error_rate(["a"], []), "1 predictions and 0 references"),
        (lambda: word_error_rate("a", ["a"]), "predictions is one text"),
        (lambda: word_error_rate(["a"], [""]), "references hold no word"),
        (lambda: character_error_rate([], []), "references hold no character"),
        (lambda: bleu(["a"], "a"), "references is one text"),
        (lambda: bleu(["a"], [[]]), "prediction 0 has no reference"),
        (lambda: bleu(["a"], ["a"], smoothing="floor"), "smoothing is 'floor'"),
        (lambda: bleu(["a"], ["a"], max_order=0), "max_order is 0"),
        (lambda: rouge_n(["a"], ["a"], n=0), "n is 0"),
        (lambda: distinct_n(["a"], n=1.5), "n is 1.5"),
        (lambda: perplexity(np.zeros((1, 2)), np.array([0]), np.array([False])), "no token that counts"),
        (lambda: perplexity(np.zeros((0, 2)), np.zeros(0, dtype=int)), "no token that counts"),
        (lambda: perplexity(np.zeros((1, 2)), np.array([2])), "class 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
