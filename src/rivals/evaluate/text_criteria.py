"""Criteria for `CriteriaReranker`: overlap of words, likeness of vectors, coverage of a document, fluency, wished labels.

Each is called with sources and candidates, a text each, side by side, and returns a value of at least 0 for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures import bleu, rouge_l, rouge_n

if TYPE_CHECKING:
    from rivals.models.language.local import LocalLanguageModel

Values: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = Callable[[list[str]], ArrayLike]
"""Texts -> vectors [n, D], such as `lambda texts: encoder.encode(texts, role="document")`."""


@runtime_checkable
class ScoresTexts(Protocol):
    """What `Fluency` needs: `rivals.diagnose.NgramLM` is one."""

    def score(self, texts: Sequence[str]) -> ArrayLike:
        """Return the mean log-probability of a token of each text."""


@dataclass(frozen=True)
class SentenceBleu:
    """BLEU of the candidate against its source, add-one smoothed above single words; 0 if they share no word.

    When to use: as the share of the source's wording that a rewrite keeps. A copy of the source has 1: give the
    reranker something against it, or drop_identical=True.

    Args:
        max_order: longest n-gram. tokenise: words of a text.

    Source: Papineni et al. 2002; Lin and Och 2004; as the expert of similarity in paper 73.

    >>> SentenceBleu()(["a b c d"] * 2, ["a b c d", "x y"]).tolist()
    [1.0, 0.0]
    """

    max_order: int = 4
    tokenise: Callable[[str], Sequence[str]] = str.split

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        return np.array(
            [
                bleu([candidate], [source], max_order=self.max_order, smoothing="add_one", tokenise=self.tokenise)
                for source, candidate in zip(sources, candidates, strict=True)
            ],
            dtype=np.float64,
        )


@dataclass(frozen=True)
class MeanRouge:
    """The mean of ROUGE-1, ROUGE-2 and ROUGE-L F1 of the candidate against its source.

    When to use: with references as sources it is the quality that BalSum ranks by in training (its cost is one less
    this); with the inputs as sources, a criterion of overlap without n-grams longer than two.

    Source: Lin 2004; Sul and Choi 2023, BalSum, section 3.1. Paper 36.

    >>> MeanRouge()(["a b"], ["a b"]).tolist()
    [1.0]
    """

    tokenise: Callable[[str], Sequence[str]] = str.split

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        found, wanted, words = list(candidates), list(sources), self.tokenise
        parts = [rouge_n(found, wanted, n=n, tokenise=words) for n in (1, 2)]
        parts.append(rouge_l(found, wanted, tokenise=words))
        return np.asarray(np.mean([part.f1 for part in parts], axis=0))


@dataclass(frozen=True)
class VectorSimilarity:
    """Half of one plus the cosine of the vectors of candidate and source, 0 to 1; a zero vector has the cosine 0.

    Args:
        vectors: texts -> [n, D]; each different text is asked once.

    When to use: meaning kept, whatever the words; in sum and in product alike.

    Source: the semantic side of Sul and Choi 2023, BalSum (paper 36); the shift to 0..1 is ours.

    >>> VectorSimilarity(lambda texts: [[len(text), 0] for text in texts])(["ab"], ["abc"]).tolist()
    [1.0]
    """

    vectors: Vectors

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        units, row = _units(self.vectors, [*sources, *candidates])
        left, right = row[: len(sources)], row[len(sources) :]
        return np.asarray((1 + np.clip((units[left] * units[right]).sum(-1), -1, 1)) / 2)


@dataclass(frozen=True)
class DocumentCoverage:
    """How much of the source's sentences a candidate covers: BalSum's f, the mean cosine weighted by the cosines.

    f = sum_k a_k^2 / sum_k a_k over the sentences k of the source, raised to 0 where it is negative.

    Args:
        vectors: texts -> [n, D], of the model trained by `rivals.losses.balanced_rerank_loss`, or of any encoder.
        sentences: what makes sentences of a source.

    When to use: long sources, of which a candidate should say what several sentences say.

    Source: Sul and Choi 2023, BalSum, eq. 3, with sentences encoded one by one. Paper 36.

    >>> flat = lambda texts: [[1.0, 0.0] if "cat" in text else [0.6, 0.8] for text in texts]
    >>> DocumentCoverage(flat)(["A cat. A dog."], ["cat"]).round(2).tolist()
    [0.85]
    """

    vectors: Vectors
    sentences: Callable[[str], Sequence[str]] = lambda text: re.split(r"(?<=[.!?])\s+", text)

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        import torch

        from rivals.models.late_interaction import sentence_attention_score

        parts = {source: list(self.sentences(source)) for source in dict.fromkeys(sources)}
        units, row = _units(self.vectors, [*candidates, *(text for texts in parts.values() for text in texts)])
        start, places = len(candidates), {}
        for source, texts in parts.items():
            places[source] = row[start : start + len(texts)]
            start += len(texts)
        found = np.zeros(len(candidates))
        for number, source in enumerate(sources):
            if len(places[source]):
                own = torch.from_numpy(units[row[[number]]]), torch.from_numpy(units[places[source]])
                found[number] = float(sentence_attention_score(*own, normalize=False))
        return np.maximum(found, 0.0)


@dataclass(frozen=True)
class Fluency:
    """exp(mean log-probability of a token) of the candidate, 0 to 1, whatever the source: 1 / perplexity.

    Args:
        model: an `NgramLM`, a `LocalLanguageModel`, or anything with `score(texts)` -> mean log-probabilities.

    When to use: against broken output. It is not adequacy: a fluent text about something else scores high. Never alone.

    Source: paper 73, which leaves open whether it divides by the length; we do, so that length does not rule. N-gram
    models as the judge: Gupta, Joshi and Mathur 2013 (paper 104).

    >>> from rivals.diagnose import NgramLM
    >>> values = Fluency(NgramLM(2).fit(["the cat sat"]))(["", ""], ["the cat sat", "sat cat the"])
    >>> bool(values[0] > values[1])
    True
    """

    model: ScoresTexts | LocalLanguageModel

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        if isinstance(self.model, ScoresTexts):
            return np.exp(np.asarray(self.model.score(candidates), dtype=np.float64))
        from rivals.models.language.likelihood import response_log_probabilities

        found = response_log_probabilities(self.model, [""] * len(candidates), candidates)
        if np.isnan(found.sums).any():
            long = int(np.isnan(found.sums).argmax())
            raise RivalsError(f"candidate {long} has {found.lengths[long]} tokens and does not fit the model's context")
        return np.where(found.lengths > 0, np.exp(found.means), 0.0)


@dataclass(frozen=True)
class LabelAgreement:
    """The probability that a candidate has the labels wished for its source: the product or mean over those labels.

    Args:
        probabilities: (sources, candidates) -> [n, L], one classifier a label.
        wanted: labels wished for, columns of the above, by source; a source that is not there wishes for none and gives
            all of its candidates 1, which leaves the order to the other criteria.
        aggregate: over several labels; what paper 73 does there is not stated, the product follows its derivation.

    When to use: rewriting or answering under given strategies, styles or topics.

    Source: positive text reframing under multi-strategy optimization 2024, the strategy classifiers. Paper 73.

    Raises:
        RivalsError: when called: probabilities of another shape or outside 0..1, a label that is no column.

    >>> agree = LabelAgreement(lambda sources, candidates: [[0.5, 0.2], [0.5, 1.0]], {"x": [0, 1]})
    >>> agree(["x", "y"], ["a", "b"]).tolist()
    [0.1, 1.0]
    """

    probabilities: Callable[[Sequence[str], Sequence[str]], ArrayLike]
    wanted: Mapping[str, Sequence[int]]
    aggregate: Literal["product", "mean"] = "product"

    def __call__(self, sources: Sequence[str], candidates: Sequence[str]) -> Values:
        table = np.asarray(self.probabilities(sources, candidates), dtype=np.float64)
        if table.ndim != 2 or len(table) != len(candidates) or not ((table >= 0) & (table <= 1)).all():
            raise RivalsError(
                f"probabilities have shape {table.shape} for {len(candidates)} candidates; they must be [candidates, labels] "
                "and within 0..1"
            )
        found = np.ones(len(candidates))
        for row, source in enumerate(sources):
            labels = list(self.wanted.get(source, ()))
            if labels and not 0 <= min(labels) <= max(labels) < table.shape[1]:
                raise RivalsError(f"labels {labels} are wished for, but there are {table.shape[1]} columns, from 0")
            if labels:
                own = table[row, labels]
                found[row] = own.prod() if self.aggregate == "product" else own.mean()
        return found


def semantic_weights(similarity: ArrayLike, *, threshold: float = 0.9) -> Values:
    """Return 1 where a candidate means what its reference means, 0 where only its words agree: weights of positives.

    w = 1[similarity >= threshold], the `weight` of `rivals.losses.balanced_rerank_loss`: a candidate with much of the
    reference's wording and another meaning is a false positive, as a passage that answers unjudged is a false negative.

    Shapes: similarity[...] within -1..1, such as the cosine of sentence vectors -> float64[...].

    Source: Sul and Choi 2023, BalSum: SimCSE vectors, threshold 0.9 (CNN/DailyMail) and 0.85 (XSum). Paper 36.

    Raises:
        RivalsError: similarities that are NaN or outside -1..1, a threshold outside -1..1.

    >>> semantic_weights([0.95, 0.7]).tolist()
    [1.0, 0.0]
    """
    given = np.asarray(similarity, dtype=np.float64)
    if not -1 <= threshold <= 1:
        raise RivalsError(f"threshold is {threshold}; it must lie between -1 and 1")
    if not (np.abs(given) <= 1 + 1e-5).all():
        raise RivalsError("similarity must lie between -1 and 1; one value is NaN or outside")
    return np.asarray(given >= threshold, dtype=np.float64)


def _units(vectors: Vectors, texts: Sequence[str]) -> tuple[Values, NDArray[np.int64]]:
    """Return unit vectors of the different texts, and the row of each text."""
    different = list(dict.fromkeys(texts))
    number = {text: row for row, text in enumerate(different)}
    row = np.array([number[text] for text in texts], dtype=np.int64)
    if not different:
        return np.zeros((0, 1)), row
    found = np.asarray(vectors(different), dtype=np.float64)
    if found.ndim != 2 or len(found) != len(different):
        raise RivalsError(
            f"vectors gave shape {found.shape} for {len(different)} texts; it must be [texts, dimensions]"
        )
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), row
