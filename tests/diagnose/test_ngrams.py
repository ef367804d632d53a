"""N-gram models and system rankings: hand values, sums to one, definitions by loops, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rivals.diagnose import NgramLM, rank_agreement, rank_outputs, system_ranking
from rivals.errors import RivalsError

SMALL = ["a b", "a b", "a c"]
CATS = ["the cat sat", "the dog sat down", "a cat sat down", "the cat ran"]


def test_laplace():
    model = NgramLM(2, smoothing="laplace", vocab_size=4).fit(SMALL)
    assert model.probability("a", ["<s>"]) == pytest.approx(4 / 7)
    assert model.probability("b", ["a"]) == pytest.approx(3 / 7)
    assert model.probability("</s>", ["b"]) == pytest.approx(1 / 2)
    assert model.log_prob("a b") == pytest.approx(-2.1000608289)
    bare = NgramLM(2, smoothing="laplace", alpha=0).fit(SMALL)
    assert math.exp(bare.log_prob("a b")) == pytest.approx(2 / 3)
    assert bare.log_prob("b a") == -math.inf


def test_stupid_backoff():
    model = NgramLM(2, smoothing="stupid_backoff").fit(SMALL)
    assert model.probability("c", ["b"]) == pytest.approx(0.4 / 9)
    assert model.probability("b", ["a"]) == pytest.approx(2 / 3)
    trigram = NgramLM(3, smoothing="stupid_backoff", factor=0.5).fit(SMALL)
    assert trigram.probability("c", ["x", "b"]) == pytest.approx(0.25 / 9)


def kneser_ney_by_loops(sentences, word, context, order, discount):
    """The textbook formula on explicit lists of n-grams."""

    def grams(n):
        found = []
        for sentence in sentences:
            padded = ["<s>"] * (order - 1) + sentence.split() + ["</s>"]
            found += [tuple(padded[t - n + 1 : t + 1]) for t in range(order - 1, len(padded))]
        return found

    def p(context):
        n = len(context) + 1
        if n == order:
            seen, total = grams(n).count((*context, word)), sum(g[:-1] == context for g in grams(n))
        else:
            kinds = set(grams(n + 1))
            seen = sum(g[1:] == (*context, word) for g in kinds)
            total = sum(g[1:-1] == context for g in kinds)
        if not context:
            return seen / total
        if not total:
            return p(context[1:])
        followers = len({g[-1] for g in grams(n) if g[:-1] == context})
        return max(seen - discount, 0) / total + discount * followers / total * p(context[1:])

    return p(tuple(context))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_kneser_ney_by_loops(order):
    model = NgramLM(order, discount=0.6).fit(CATS)
    words = [*model.vocabulary, "</s>"]
    for sentence in CATS:
        padded = ["<s>"] * (order - 1) + sentence.split()
        for t in range(order - 1, len(padded) + 1):
            context = padded[t - order + 1 : t]
            for word in words:
                assert model.probability(word, context) == pytest.approx(
                    kneser_ney_by_loops(CATS, word, context, order, 0.6)
                )


@pytest.mark.parametrize("smoothing", ["laplace", "kneser_ney", "linear"])
def test_probabilities_sum_to_one(smoothing):
    model = NgramLM(3, smoothing=smoothing).fit(CATS)
    words = [*model.vocabulary, "</s>", "<unk>"]
    for context in ([], ["the"], ["the", "cat"], ["<s>", "<s>"], ["down", "the"], ["zebra", "cat"]):
        assert sum(model.probability(word, context) for word in words) == pytest.approx(1, abs=1e-12)


def test_linear_mixture():
    model = NgramLM(2, smoothing="linear", mixture=[0.3, 0.7]).fit(SMALL)
    assert model.probability("b", ["a"]) == pytest.approx(0.3 * 2 / 9 + 0.7 * 2 / 3)
    assert model.probability("b", ["zebra"]) == pytest.approx(2 / 9)


def test_order_one_does_not_see_the_order():
    for order, alike in ((1, True), (2, False)):
        model = NgramLM(order).fit(CATS)
        same = model.log_prob("the cat sat") == pytest.approx(model.log_prob("sat cat the"))
        assert same == alike
    assert NgramLM(1).fit(CATS).probability("cat") == pytest.approx(3 / 18)


def test_scores_and_perplexity():
    model = NgramLM(2, smoothing="laplace").fit(CATS)
    logs = model.token_log_probs("the cat sat")
    assert len(logs) == 4
    assert model.score(["the cat sat"]).item() == pytest.approx(logs.mean())
    assert model.score(["the cat sat"], normalise="none").item() == pytest.approx(logs.sum())
    assert model.perplexity(["the cat sat"]) == pytest.approx(math.exp(-logs.mean()))
    even = NgramLM(1, smoothing="laplace", alpha=1e12, vocab_size=50).fit(CATS)
    assert even.perplexity(["a b c", "d"]) == pytest.approx(50)
    # Words 2 of 3 known, pairs 1 of 2.
    assert model.score(["the cat flew", ""], normalise="match").tolist() == pytest.approx([(2 / 3 + 1 / 2) / 2, 0])


def test_rare_words_are_unknown_and_share_one_slot():
    model = NgramLM(1, smoothing="laplace", min_count=2).fit(["a a b", "a c"])
    assert model.vocabulary == {"a"}
    assert model.probability("b") == model.probability("zebra") == pytest.approx((2 + 1) / (7 + 3))


def test_saved_and_loaded(tmp_path):
    model = NgramLM(3, discount=0.5).fit(CATS)
    model.save(tmp_path / "model.json")
    again = NgramLM.load(tmp_path / "model.json")
    assert again.log_prob("a dog sat") == model.log_prob("a dog sat")
    assert again.discount == 0.5


def test_corrupted_text_scores_lower():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(sentence.split())) for sentence in CATS * 20]
    model = NgramLM(3).fit(CATS)
    assert model.score(CATS).mean() > model.score(texts).mean()


def test_rankings():
    model = NgramLM(2).fit(CATS)
    outputs = [["the cat sat", "sat cat the", "", None], ["dog down", "the dog sat", "the dog sat", ""]]
    np.testing.assert_array_equal(rank_outputs(model, outputs), [[1, 2, 3, np.nan], [3, 1.5, 1.5, 4]])
    ranks = np.array([[1, 2, 3], [2, 1, 3], [1, 2.5, 2.5]])
    assert system_ranking(ranks).tolist() == [1, 2, 3]
    assert system_ranking(ranks, method="wins").tolist() == [1, 2, 3]
    assert system_ranking(ranks, method="borda").tolist() == [1, 2, 3]
    gaps = np.array([[1, 2, np.nan], [np.nan, 1, 2.0], [1, 3, 2]])
    assert system_ranking(gaps).tolist() == [1, 2.5, 2.5]
    assert system_ranking(gaps, method="wins").tolist() == [1, 2, 3]
    assert rank_outputs(model, []).shape == (0, 0)


@pytest.mark.parametrize("measure", ["spearman", "kendall", "pairwise"])
def test_agreement(measure):
    ranks = np.array([[1, 2, 3, 4], [2, 1, 4, 3.0]])
    best, worst = (1, 0) if measure == "pairwise" else (1, -1)
    assert rank_agreement(ranks, ranks, measure=measure) == best
    assert rank_agreement(ranks, 5 - ranks, measure=measure) == worst
    gaps = ranks.copy()
    gaps[0, 0] = np.nan
    assert rank_agreement(gaps, ranks, measure=measure) == best
    assert rank_agreement(ranks, gaps, measure=measure) == best
    assert rank_agreement(np.array([[1, 2], [1, 2]]), np.array([[1, 2], [1.5, 1.5]]), measure=measure) == best


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NgramLM(0), "order is 0"),
        (lambda: NgramLM(2, smoothing="good_turing"), "smoothing is 'good_turing'"),
        (lambda: NgramLM(2, discount=1), "discount 1"),
        (lambda: NgramLM(2, alpha=-1), "alpha -1"),
        (lambda: NgramLM(2, mixture=[1.0]), "mixture must be 2"),
        (lambda: NgramLM(2).fit([""]), "no word"),
        (lambda: NgramLM(2).probability("a"), "call fit"),
        (lambda: NgramLM(2).log_prob("a"), "call fit"),
        (lambda: NgramLM(2).score(["a"], normalise="match"), "call fit"),
        (lambda: NgramLM(2).fit(["a"]).score(["a"], normalise="z"), "normalise is 'z'"),
        (lambda: NgramLM(2).fit(["a"]).perplexity([]), "no text"),
        (lambda: rank_outputs(NgramLM(2).fit(["a"]), [["a"], ["a", "b"]]), "as many texts"),
        (lambda: system_ranking([[np.nan, 1.0]]), "at least one rank"),
        (lambda: system_ranking([[1.0, 2.0]], method="elo"), "method is 'elo'"),
        (lambda: rank_agreement([[1.0, 2.0]], [[1.0]]), "both must be"),
        (lambda: rank_agreement([[1.0, 2.0]], [[1.0, 1.0]]), "no source"),
        (lambda: rank_agreement([[1.0]], [[1.0]], measure="r"), "measure is 'r'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()


def test_several_orders_rank_by_their_mean_log_probability() -> None:
    texts = ["the cat sat on the mat", "the dog ran to the cat", "a dog sat on a mat"]
    models = [NgramLM(order, smoothing="laplace").fit(texts) for order in (1, 2, 3)]
    outputs = [["the cat sat", "sat cat the", "mat mat mat"], ["a dog ran", None, "ran a dog"]]
    together = rank_outputs(models, outputs)
    for row, given in enumerate(outputs):
        there = [text for text in given if text is not None]
        mean = np.mean([model.score(there) for model in models], axis=0)
        expected = np.argsort(np.argsort(-mean)) + 1
        np.testing.assert_array_equal(together[row][~np.isnan(together[row])], expected)
    np.testing.assert_array_equal(rank_outputs([models[1]], outputs), rank_outputs(models[1], outputs))
    with pytest.raises(RivalsError, match="no model"):
        rank_outputs([], outputs)
