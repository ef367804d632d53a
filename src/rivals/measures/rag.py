"""Measures of retrieval-augmented generation: answers, contexts, claims, verdicts of a judge.

Yes-or-no questions go to a `judge(statement, source) -> bool` that the caller brings: a person's notes, a rule, a model
behind an API. Vectors come from any encoder. What a judge is worth against people is `prediction_powered_mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from rivals.errors import RivalsError
from rivals.measures.ranked import Array, as_tensor, precise
from rivals.measures.ranking import average_precision, cut_off
from rivals.measures.text import Normalise, Tokenise, token_f1

Judge: TypeAlias = Callable[[str, str], bool]
"""Whether a statement is supported by a source."""


class PredictionPowered(NamedTuple):
    """A mean over many judged examples, corrected by a few that people labelled: estimate, interval, variance."""

    estimate: float
    low: float
    high: float
    variance: float


def answer_similarity(generated: Array, reference: Array) -> Any:
    """Cosine of the embeddings of the generated and the true answer.

    Shapes: generated[..., D], reference[..., D] -> [...]; 0 where one of them is all zeros.

    Source: Paper 44, RAG metrics.

    Raises:
        RivalsError: shapes differ; a value is not finite.

    >>> answer_similarity(np.array([[1., 0.]]), np.array([[1., 1.]])).round(4).tolist()
    [0.7071]
    """
    left, right = _vectors(generated, "generated"), _vectors(reference, "reference")
    if left.shape != right.shape:
        raise RivalsError(f"generated has shape {tuple(left.shape)} and reference {tuple(right.shape)}; must be equal")
    value = torch.nn.functional.cosine_similarity(left, right, dim=-1, eps=1e-300)
    return value if isinstance(generated, torch.Tensor) else value.numpy()


def answer_correctness(
    predictions: Sequence[str],
    references: Sequence[str],
    similarity: ArrayLike,
    *,
    weight: float = 0.75,
    normalise: Normalise = None,
    tokenise: Tokenise = str.split,
) -> Any:
    """Answer correctness: weight * token F1 + (1 - weight) * similarity of the answers, [N].

    `similarity` [N] is `answer_similarity` of the embeddings. The weight is the paper's a in 0..1, of which it gives no
    value; 0.75 is what RAGAS gives to facts.

    Source: Paper 44, RAG metrics.

    Raises:
        RivalsError: weight not in 0..1; not as many similarities as predictions; as `token_f1`.

    >>> answer_correctness(["in Paris"], ["Paris"], [0.9], weight=0.5).round(4).tolist()
    [0.7833]
    """
    if not 0 <= weight <= 1:
        raise RivalsError(f"weight is {weight}; it must lie in 0..1")
    f1 = token_f1(predictions, references, normalise=normalise, tokenise=tokenise)
    cosine = np.asarray(similarity, dtype=np.float64)
    if cosine.shape != f1.shape:
        raise RivalsError(f"similarity has shape {cosine.shape}; it must be one number a prediction, {f1.shape}")
    return weight * f1 + (1 - weight) * cosine


def answer_relevance(question: Array, generated_questions: Array) -> Any:
    """Answer relevance: the mean cosine of a question with questions that a model wrote from the answer alone.

    Shapes: question[..., D], generated_questions[..., M, D] -> [...]. An answer that wanders off, or says it does not
    know, leads to other questions.

    Source: Es et al. 2024 (RAGAS). Paper 44.

    Raises:
        RivalsError: shapes that do not fit; no generated question; a value is not finite.

    >>> answer_relevance(np.array([1., 0.]), np.array([[1., 0.], [0., 1.]])).item()
    0.5
    """
    asked, generated = _vectors(question, "question"), _vectors(generated_questions, "generated_questions")
    if (
        generated.dim() != asked.dim() + 1
        or generated.shape[:-2] != asked.shape[:-1]
        or asked.shape[-1:] != generated.shape[-1:]
    ):
        raise RivalsError(
            f"generated_questions has shape {tuple(generated.shape)}; it must be {(*asked.shape[:-1], 'M', *asked.shape[-1:])}"
        )
    if generated.shape[-2] == 0:
        raise RivalsError("generated_questions holds no question")
    value = torch.nn.functional.cosine_similarity(generated, asked.unsqueeze(-2), dim=-1, eps=1e-300).mean(-1)
    return value if isinstance(question, torch.Tensor) else value.numpy()


def context_precision(verdicts: Array, mask: Array | None = None, *, k: int | None = None) -> Any:
    """Context precision@k: whether the useful passages stand first among those given to the model.

    sum_{r=1..k} P@r v_r / (useful ones among the first k), v_r the verdict (1 useful, 0 not) on the passage at rank r;
    0 if none is useful. The average precision of the list cut at k.

    Shapes: verdicts[..., C] in rank order, mask[..., C] -> [...].

    Source: Es et al. 2024 (RAGAS). Paper 44.

    Raises:
        RivalsError: as `average_precision`.

    >>> context_precision(np.array([1, 0, 1])).round(4).item()
    0.8333
    """
    top = slice(None, cut_off(k))
    given = None if mask is None else mask[..., top]
    return average_precision(verdicts[..., top], verdicts[..., top], given, ranked=True)


def context_recall(sentences: Sequence[str], context: str, judge: Judge) -> float:
    """Context recall: the share of the sentences of the reference answer that the context supports.

    Use it to see whether retrieval found what the answer needs. 0 judgements (no sentence) is refused.

    Source: Es et al. 2024 (RAGAS). Paper 44.

    Raises:
        RivalsError: no sentence.

    >>> context_recall(["a", "b"], "a c", lambda statement, source: statement in source)
    0.5
    """
    return _supported(sentences, context, judge, "sentences")


def faithfulness(claims: Sequence[str], context: str, judge: Judge) -> float:
    """Faithfulness: the share of the claims of the generated answer that the context supports.

    Use it to see whether the model stays with what it was given; splitting an answer into claims is the caller's.

    Source: Es et al. 2024 (RAGAS). Paper 44.

    Raises:
        RivalsError: no claim.

    >>> faithfulness(["a", "b", "c", "d"], "a c d", lambda statement, source: statement in source)
    0.75
    """
    return _supported(claims, context, judge, "claims")


def context_entity_recall(
    reference: Iterable[Hashable], context: Iterable[Hashable], *, of: Literal["context", "reference"] = "context"
) -> float:
    """Shared entities of the reference answer and the context, over those of the context, or of the reference.

    |reference and context| / |context|. That is how the paper prints it; RAGAS divides by the reference's entities
    (`of="reference"`), which is what the name says. 0 if the divisor is empty.

    Source: Paper 44, RAG metrics.

    Raises:
        RivalsError: an unknown `of`.

    >>> context_entity_recall({"Rhine", "Basel"}, {"Rhine", "Elbe", "Oder", "Spree"}, of="reference")
    0.5
    """
    if of not in ("context", "reference"):
        raise RivalsError(f"of is '{of}'; it can be 'context' or 'reference'")
    wanted, found = set(reference), set(context)
    return len(wanted & found) / max(len(found if of == "context" else wanted), 1)


def summarisation_score(answered: Sequence[bool], summary: str, context: str, *, weight: float = 0.5) -> float:
    """Summarisation score: how many questions on the text its summary answers, and how short it is.

    weight * answered / questions + (1 - weight) * conciseness, conciseness = 1 - min(len(summary), len(context)) /
    len(context), in characters. The paper prints len(summary) / len(context), which would reward long summaries.

    Source: Paper 44, RAG metrics; conciseness corrected.

    Raises:
        RivalsError: no question; an empty context; weight not in 0..1.

    >>> summarisation_score([True, False], "abcde", "abcdefghij")
    0.5
    """
    if not len(answered):
        raise RivalsError("answered holds no question")
    if not context:
        raise RivalsError("context is empty; there is nothing to be concise about")
    if not 0 <= weight <= 1:
        raise RivalsError(f"weight is {weight}; it must lie in 0..1")
    conciseness = 1 - min(len(summary), len(context)) / len(context)
    return weight * sum(map(bool, answered)) / len(answered) + (1 - weight) * conciseness


def aspect_critique(answer: str, aspect: str, judge: Judge, *, verdicts: int = 3) -> bool:
    """Whether most of several verdicts say that an answer has an aspect, such as "is harmful".

    The judge is asked `verdicts` times (2 to 4); more than half must say yes.

    Source: Es et al. 2024 (RAGAS). Paper 44.

    Raises:
        RivalsError: verdicts not between 2 and 4.

    >>> aspect_critique("Sorry.", "is polite", lambda answer, aspect: "Sorry" in answer)
    True
    """
    if verdicts not in (2, 3, 4):
        raise RivalsError(f"verdicts is {verdicts}; it must be 2, 3 or 4")
    return 2 * sum(bool(judge(answer, aspect)) for _ in range(verdicts)) > verdicts


def prediction_powered_mean(
    judged_unlabelled: ArrayLike, judged_labelled: ArrayLike, human: ArrayLike, *, level: float = 0.95
) -> PredictionPowered:
    """Mean quality from many verdicts of a judge, corrected by the few examples that people labelled too.

    estimate = mean(judge on N unlabelled) + mean(human - judge on n labelled), variance = var(judge) / N + var(human -
    judge) / n (unbiased variances), and the normal interval. Unbiased however poor the judge is; narrower than the
    people's labels alone if the judge agrees with them.

    Shapes: judged_unlabelled[N], judged_labelled[n], human[n], verdicts or scores.

    Source: Angelopoulos et al. 2023 (prediction-powered inference), as in ARES (Saad-Falcon et al. 2024). Paper 44.

    Raises:
        RivalsError: fewer than 2 of either kind; lengths of the labelled ones differ; a value is not finite; level not
            between 0 and 1.

    >>> prediction_powered_mean([1, 0, 1, 1], [1, 0, 1], [1, 0, 0]).estimate.__round__(4)
    0.4167
    """
    from scipy.special import ndtri

    many, few, truth = (np.asarray(values, dtype=np.float64) for values in (judged_unlabelled, judged_labelled, human))
    if not 0 < level < 1:
        raise RivalsError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    if many.ndim != 1 or few.ndim != 1 or few.shape != truth.shape:
        raise RivalsError(f"judged_labelled has shape {few.shape} and human {truth.shape}; they must be one list each")
    if min(len(many), len(few)) < 2:
        raise RivalsError(f"{len(many)} unlabelled and {len(few)} labelled examples; at least 2 of either are needed")
    if not all(np.isfinite(values).all() for values in (many, few, truth)):
        raise RivalsError("verdicts and labels must be finite")
    rest = truth - few
    estimate = float(many.mean() + rest.mean())
    variance = float(many.var(ddof=1) / len(many) + rest.var(ddof=1) / len(rest))
    half = float(ndtri((1 + level) / 2)) * variance**0.5
    return PredictionPowered(estimate, estimate - half, estimate + half, variance)


def _supported(statements: Sequence[str], source: str, judge: Judge, name: str) -> float:
    if isinstance(statements, str) or not len(statements):
        raise RivalsError(f"{name} must be a list of at least one text")
    return sum(bool(judge(statement, source)) for statement in statements) / len(statements)


def _vectors(values: Array, name: str) -> torch.Tensor:
    vectors = precise(as_tensor(values, name, None))
    if vectors.dim() == 0 or not vectors.isfinite().all():
        raise RivalsError(f"{name} must be finite vectors")
    return vectors
