"""N-gram language models: how fluent a text is, and ranking systems by the fluency of their outputs.

Needs text of the target language only, no references. Fluency is not adequacy: a fluent wrong text ranks high.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from rivals.errors import RivalsError
from rivals.measures import kendall_tau, pair_accuracy, spearman

Smoothing: TypeAlias = Literal["kneser_ney", "laplace", "stupid_backoff", "linear"]

START, END, UNKNOWN = "<s>", "</s>", "<unk>"


class NgramLM:
    """A language model of order n: log P(text) = sum of log p(word | the n - 1 words before it).

    Sentences are padded with n - 1 start symbols and one end symbol. With h the context, c counts:

    - kneser_ney (interpolated): max(num - D, 0) / den + D #{words seen after h} / den p(w | h shortened); num = c(hw),
      den = c(h) at the top order, below it the number of different words in front of hw, summed; the unigram without
      discount. A context never seen is shortened.
    - laplace: (c(hw) + alpha) / (c(h) + alpha V).
    - stupid_backoff: c(hw) / c(h) if seen, else factor times the score with h shortened; unigram c(w) / N. Scores, not
      probabilities: perplexities of it compare with nothing.
    - linear: the mean of the unsmoothed estimates of all orders with weights `mixture`, contexts never seen left out.

    With min_count=1 a word that training lacks has the probability 0, except under laplace, and a text that holds one
    scores -inf. To rank new texts set min_count=2: words seen once then tell what an unknown word is worth.

    Args:
        order: n. discount: D. alpha: of laplace; 0 leaves it unsmoothed. factor: of stupid backoff. mixture: weights of
            order 1 to n, equal unless given. min_count: rarer words become <unk>. vocab_size: V, distinct words + </s>
            + <unk> unless given. tokeniser: words of a text.

    Source: Kneser and Ney 1995, Brants et al. 2007; used to rank translations by Gupta, Joshi and Mathur 2013. Paper
    104 (its order and smoothing are not known; these are the usual ones).

    Raises:
        RivalsError: order below 1, discount not between 0 and 1, alpha or factor below 0, min_count below 1, an unknown
            smoothing.

    >>> model = NgramLM(2, smoothing="laplace", vocab_size=4).fit(["a b", "a b", "a c"])
    >>> round(model.log_prob("a b"), 6)
    -2.100061
    """

    def __init__(
        self,
        order: int = 3,
        *,
        smoothing: Smoothing = "kneser_ney",
        discount: float = 0.75,
        alpha: float = 1.0,
        factor: float = 0.4,
        mixture: Sequence[float] | None = None,
        min_count: int = 1,
        vocab_size: int | None = None,
        tokeniser: Callable[[str], Sequence[str]] = str.split,
    ) -> None:
        if smoothing not in ("kneser_ney", "laplace", "stupid_backoff", "linear"):
            raise RivalsError(
                f"smoothing is '{smoothing}'; it can be 'kneser_ney', 'laplace', 'stupid_backoff' or 'linear'"
            )
        if order < 1 or min_count < 1:
            raise RivalsError(f"order is {order} and min_count {min_count}; both must be at least 1")
        if not 0 < discount < 1 or not alpha >= 0 or not factor >= 0:
            raise RivalsError(
                f"discount {discount} must lie between 0 and 1, alpha {alpha} and factor {factor} at 0 or above"
            )
        weights = [1 / order] * order if mixture is None else [float(weight) for weight in mixture]
        if len(weights) != order or min(weights) < 0 or not math.isclose(sum(weights), 1):
            raise RivalsError(f"mixture must be {order} weights of at least 0 that sum to 1")
        self.order, self.smoothing, self.discount, self.alpha, self.factor = order, smoothing, discount, alpha, factor
        self.mixture, self.min_count, self.vocab_size, self.tokeniser = weights, min_count, vocab_size, tokeniser
        self.vocabulary: set[str] = set()
        """The words seen often enough."""
        self._counts: list[Counter[tuple[str, ...]]] = []

    def fit(self, texts: Sequence[str]) -> Self:
        """Count the n-grams of the texts.

        Raises:
            RivalsError: no text with a word.
        """
        sentences = [tuple(self.tokeniser(text)) for text in texts]
        often = Counter(chain.from_iterable(sentences))
        self.vocabulary = {word for word, count in often.items() if count >= self.min_count}
        if not often:
            raise RivalsError("texts hold no word to learn from")
        self._count([self._padded(words) for words in sentences])
        return self

    def probability(self, word: str, context: Sequence[str] = ()) -> float:
        """Return p(word | context), the score for stupid backoff; of the context the last order - 1 words count.

        Raises:
            RivalsError: `fit` has not been called.

        >>> NgramLM(2, smoothing="stupid_backoff").fit(["a b", "a b", "a c"]).probability("c", ["b"])
        0.044444444444444446
        """
        if not self._counts:
            raise RivalsError("the model knows nothing yet; call fit(texts) first")
        known = tuple(self._known(part) for part in context)
        return self._estimate(self._known(word), known[max(len(known) - self.order + 1, 0) :])

    def token_log_probs(self, text: str) -> NDArray[np.float64]:
        """Return the log-probability of each word and of the end, [words + 1]; -inf where it is 0."""
        if not self._counts:
            raise RivalsError("the model knows nothing yet; call fit(texts) first")
        padded = self._padded(self.tokeniser(text))
        first = self.order - 1
        found = [self._estimate(padded[t], padded[t - first : t]) for t in range(first, len(padded))]
        with np.errstate(divide="ignore"):
            return np.log(np.array(found))

    def log_prob(self, text: str) -> float:
        """Return the log-probability of a text with its end."""
        return float(self.token_log_probs(text).sum())

    def score(
        self, texts: Sequence[str], *, normalise: Literal["token", "none", "match"] = "token"
    ) -> NDArray[np.float64]:
        """Return how fluent each text is, [N], higher is better.

        token: the mean log-probability of its words and end. none: the sum, which favours short texts. match: the share
        of its n-grams of order 1 to n that were seen in training, averaged over the orders (no end symbol).

        Raises:
            RivalsError: an unknown normalise; `fit` has not been called.
        """
        if normalise not in ("token", "none", "match"):
            raise RivalsError(f"normalise is '{normalise}'; it can be 'token', 'none' or 'match'")
        if normalise == "match":
            return np.array([self._matched(text) for text in texts])
        logs = [self.token_log_probs(text) for text in texts]
        return np.array([each.mean() if normalise == "token" else each.sum() for each in logs])

    def perplexity(self, texts: Sequence[str]) -> float:
        """Return exp(-mean log-probability) over all words and ends of the texts.

        Raises:
            RivalsError: no text; `fit` has not been called.
        """
        if not len(texts):
            raise RivalsError("texts holds no text")
        return float(np.exp(-np.concatenate([self.token_log_probs(text) for text in texts]).mean()))

    def save(self, path: str | Path) -> None:
        """Write counts and settings as JSON; the tokeniser is not written."""
        settings = ("order", "smoothing", "discount", "alpha", "factor", "mixture", "min_count", "vocab_size")
        table = {
            "settings": {name: getattr(self, name) for name in settings},
            "vocabulary": sorted(self.vocabulary),
            "counts": [[[list(gram), count] for gram, count in counts.items()] for counts in self._counts],
        }
        Path(path).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, *, tokeniser: Callable[[str], Sequence[str]] = str.split) -> NgramLM:
        """Read what `save` wrote."""
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        model = cls(tokeniser=tokeniser, **table["settings"])
        model.vocabulary = set(table["vocabulary"])
        model._counts = [Counter({tuple(gram): count for gram, count in counts}) for counts in table["counts"]]
        model._derive()
        return model

    def _known(self, word: str) -> str:
        return word if word in self.vocabulary or word in (START, END) else UNKNOWN

    def _padded(self, words: Sequence[str]) -> tuple[str, ...]:
        return (*(START,) * (self.order - 1), *(self._known(word) for word in words), END)

    def _count(self, sentences: list[tuple[str, ...]]) -> None:
        """Count the n-grams of each order, those that end in a start symbol left out."""
        self._counts = []
        for order in range(1, self.order + 1):
            counts: Counter[tuple[str, ...]] = Counter()
            for padded in sentences:
                counts.update(padded[t - order + 1 : t + 1] for t in range(self.order - 1, len(padded)))
            self._counts.append(counts)
        self._derive()

    def _derive(self) -> None:
        """Sum up what the estimates divide by: per context its count, its different words, its continuations."""
        self._context: Counter[tuple[str, ...]] = Counter()
        self._followers: Counter[tuple[str, ...]] = Counter()
        self._fronts: Counter[tuple[str, ...]] = Counter()  # of an n-gram: the different words seen in front of it
        self._front_sums: Counter[tuple[str, ...]] = Counter()
        for counts in self._counts:
            for gram, count in counts.items():
                self._context[gram[:-1]] += count
                self._followers[gram[:-1]] += 1
                if len(gram) > 1:
                    self._fronts[gram[1:]] += 1
                    self._front_sums[gram[1:-1]] += 1

    def _size(self) -> int:
        return self.vocab_size or len(self.vocabulary) + 2

    def _seen(self, gram: tuple[str, ...]) -> int:
        return self._counts[len(gram) - 1][gram]

    def _estimate(self, word: str, context: tuple[str, ...]) -> float:
        if self.smoothing == "laplace":
            below = self._context[context] + self.alpha * self._size()
            return (self._seen((*context, word)) + self.alpha) / below if below else 0.0
        if self.smoothing == "stupid_backoff":
            return self._backoff(word, context)
        if self.smoothing == "linear":
            return self._mixed(word, context)
        return self._kneser_ney(word, context)

    def _backoff(self, word: str, context: tuple[str, ...]) -> float:
        seen = self._seen((*context, word))
        if seen or not context:
            return seen / self._context[context]
        return self.factor * self._backoff(word, context[1:])

    def _mixed(self, word: str, context: tuple[str, ...]) -> float:
        total = value = 0.0
        for order, weight in enumerate(self.mixture[: len(context) + 1]):
            shorter = context[len(context) - order :]
            if count := self._context[shorter]:
                value += weight * self._seen((*shorter, word)) / count
                total += weight
        return value / total if total else 0.0

    def _kneser_ney(self, word: str, context: tuple[str, ...]) -> float:
        gram = (*context, word)
        top = len(gram) == self.order
        seen, total = (
            (self._seen(gram), self._context[context]) if top else (self._fronts[gram], self._front_sums[context])
        )
        if not context:
            return seen / total if total else 0.0
        if not total:
            return self._kneser_ney(word, context[1:])
        kinds = self._followers[context]
        return (max(seen - self.discount, 0) + self.discount * kinds * self._kneser_ney(word, context[1:])) / total

    def _matched(self, text: str) -> float:
        if not self._counts:
            raise RivalsError("the model knows nothing yet; call fit(texts) first")
        words = tuple(self.tokeniser(text))
        shares = []
        for order in range(1, min(self.order, len(words)) + 1):
            grams = [words[t : t + order] for t in range(len(words) - order + 1)]
            shares.append(sum(self._counts[order - 1][gram] > 0 for gram in grams) / len(grams))
        return float(np.mean(shares)) if shares else 0.0


def rank_outputs(
    model: NgramLM | Sequence[NgramLM],
    outputs: Sequence[Sequence[str | None]],
    *,
    normalise: Literal["token", "none", "match"] = "token",
) -> NDArray[np.float64]:
    """Rank the systems' outputs for each source by fluency: 1 is best, equal ones share the mean rank, NaN is missing.

    Shapes: Q sources with S outputs each, None where a system has none -> [Q, S]. An empty output ranks last, among
    empty ones equally. Of several models, say of orders 1 to n, the scores are averaged (log-probabilities, so in log
    space); they must cut texts into the same words.

    Source: Gupta, Joshi and Mathur 2013. Paper 104; empty outputs last is ours.

    Raises:
        RivalsError: sources with different numbers of outputs (give None for a missing one); no model.

    >>> model = NgramLM(2).fit(["the cat sat", "the cat ran"])
    >>> rank_outputs(model, [["cat the sat", "the cat sat", None, ""]]).tolist()
    [[2.0, 1.0, nan, 3.0]]
    """
    models = [model] if isinstance(model, NgramLM) else list(model)
    if not models:
        raise RivalsError("model holds no model; give one, or several whose scores are averaged")
    if len({len(row) for row in outputs}) > 1:
        raise RivalsError("outputs must hold as many texts for every source; give None for a system without one")
    ranks = np.full((len(outputs), len(outputs[0]) if outputs else 0), np.nan)
    for row, texts in enumerate(outputs):
        there = np.array([text is not None for text in texts], dtype=bool)
        given = [text for text in texts if text is not None]
        if given:
            scores = np.mean([one.score(given, normalise=normalise) for one in models], axis=0)
            empty = np.array([not models[0].tokeniser(text) for text in given])
            ranks[row, there] = rankdata(-np.where(empty, -np.inf, scores))
    return ranks


def system_ranking(
    ranks: ArrayLike, *, method: Literal["mean_rank", "wins", "borda"] = "mean_rank"
) -> NDArray[np.float64]:
    """Rank systems over all sources: 1 is best, equal ones share the mean rank.

    mean_rank: by the mean rank; wins: by the share of sources where the system is first (shared firsts count in part);
    borda: by the mean of the systems it beats, where sources differ in how many systems answered.

    Shapes: ranks[Q, S], NaN where missing -> [S].

    Source: Gupta, Joshi and Mathur 2013. Paper 104.

    Raises:
        RivalsError: not [Q, S], a system without any rank, an unknown method.

    >>> system_ranking([[1., 2., 3.], [2., 1., 3.], [1., 2., 3.]]).tolist()
    [1.0, 2.0, 3.0]
    """
    table = np.asarray(ranks, dtype=np.float64)
    if table.ndim != 2 or np.isnan(table).all(0).any():
        raise RivalsError("ranks must be [sources, systems], every system with at least one rank")
    if method == "mean_rank":
        return rankdata(np.nanmean(table, axis=0))
    if method == "wins":
        first = table == np.nanmin(table, axis=1, keepdims=True)
        return rankdata(-(first / first.sum(1, keepdims=True)).mean(0))
    if method == "borda":
        return rankdata(-np.nanmean((~np.isnan(table)).sum(1, keepdims=True) - table, axis=0))
    raise RivalsError(f"method is '{method}'; it can be 'mean_rank', 'wins' or 'borda'")


def rank_agreement(
    automatic: ArrayLike, human: ArrayLike, *, measure: Literal["spearman", "kendall", "pairwise"] = "kendall"
) -> float:
    """Mean agreement of two rankings of the same systems over the sources where it is defined.

    spearman: rho; kendall: tau-b; pairwise: the share of pairs that people put in order and the other ranking too
    (a tie there counts half). Systems without a rank on either side are left out of their source.

    Shapes: automatic[Q, S], human[Q, S] (ranks, 1 is best; NaN missing) -> number; give [1, S] for system rankings.

    Source: the evaluation of Gupta, Joshi and Mathur 2013. Paper 104.

    Raises:
        RivalsError: shapes differ or are not [Q, S]; no source where it is defined; an unknown measure.

    >>> rank_agreement([[1., 2., 3.]], [[3., 2., 1.]])
    -1.0
    """
    measures = {"spearman": spearman, "kendall": kendall_tau, "pairwise": pair_accuracy}
    if measure not in measures:
        raise RivalsError(f"measure is '{measure}'; it can be 'spearman', 'kendall' or 'pairwise'")
    one, other = (np.asarray(ranks, dtype=np.float64) for ranks in (automatic, human))
    if one.shape != other.shape or one.ndim != 2:
        raise RivalsError(f"automatic has shape {one.shape} and human {other.shape}; both must be [sources, systems]")
    values = measures[measure](-one, -other, ~np.isnan(one), empty="nan")
    if np.isnan(values).all():
        raise RivalsError("no source has two systems that both rankings part; there is no agreement to measure")
    return float(np.nanmean(values))
