"""A second model as a witness: candidates it finds too like the query, or like the positive, are no negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.filters import known_positives
from rivals.negatives.selection_weight import CandidateScorer, candidate_scores, check_scorer, scorer_name
from rivals.negatives.vector_source import VectorSource, nearest_positive_cosine


@dataclass(frozen=True, eq=False, repr=False)
class Complementary(Transform):
    """Mark candidates that a complementary model, other than the one in training, finds too similar.

    A candidate is a suspected false negative if its similarity s by the complementary model is above `threshold`; ties
    are kept. Known positives are never suspected. The pipeline's form of `rivals.losses.false_negative_weights`, which
    weighs the pairs of one training batch.

    When to use: with a frozen model that knows what the trained one has still to learn: a larger encoder, one of another
    kind, a cross-encoder, or the encoder before this training began. A threshold belongs to a model; look at the audit's
    histogram, and lower it until examples of marked candidates stop being right answers.

    Args:
        model: of the complementary similarity; see `CandidateScorer`. With to="positive" it must give vectors, as `Dense`
            does. threshold: 0.9 in the source for sentences that should be alike; a question and its answer are less so.
            to: compare the candidate with the "query", or with the nearest "positive", whose copies and rewordings this
            finds. action: "drop" clears `keep`, "weight" sets the weight to `weight`. weight: 0 or more.

    Source: Zhou et al. 2022, DCLR, eq. 6 (paper 114: to="query", weight 0; 0.9 for BERT, 0.85 for RoBERTa). The
    comparison with the positive is ours.

    Raises:
        RivalsError: a threshold that is not finite or, for cosines, outside [-1, 1]; unknown options, a negative weight,
        a model without vectors for to="positive"; called on other documents, or with scores that are not finite.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 3], [0, 1, 2], [.9, .8, .7])
    >>> second = Complementary(lambda run: [0.2, 0.95, 0.9], 0.9)(run)
    >>> second.keep.tolist(), second.reasons_of(1)
    ([True, False, True], ['<lambda> to query above 0.9'])
    """

    model: CandidateScorer | VectorSource
    threshold: float = 0.9
    to: Literal["query", "positive"] = "query"
    action: Literal["drop", "weight"] = "drop"
    weight: float = 0.0

    def __post_init__(self) -> None:
        if self.to not in ("query", "positive"):
            raise RivalsError(f"to must be 'query' or 'positive', not {self.to!r}")
        if self.action not in ("drop", "weight"):
            raise RivalsError(f"action must be 'drop' or 'weight', not {self.action!r}")
        if self.to == "positive":
            if not isinstance(self.model, VectorSource):
                raise RivalsError(f"{scorer_name(self.model)} gives no vectors to compare with positives; give Dense")
        else:
            check_scorer(self.model)
        cosine = self.to == "positive" or (isinstance(self.model, Retriever) and self.model.score_kind == "cosine")
        if not math.isfinite(self.threshold) or (cosine and not -1 <= self.threshold <= 1):
            raise RivalsError(
                f"threshold must be {'in [-1, 1], as cosines are' if cosine else 'a finite number'}; not {self.threshold!r}"
            )
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise RivalsError(f"weight must be a finite number, 0 or more, not {self.weight!r}")

    @property
    def reason(self) -> str:
        """The reason of its marks."""
        return f"{scorer_name(self.model)} to {self.to} above {self.threshold:g}"

    def __repr__(self) -> str:
        return f"Complementary({scorer_name(self.model)}, {self.threshold:g}, to={self.to!r}, action={self.action!r})"

    def similarity(self, run: Run) -> NDArray[np.float32]:
        """Return the complementary similarity of every candidate, float32[n]; -inf where there is no positive to compare with."""
        if self.to == "positive" and isinstance(self.model, VectorSource):
            check_same_documents(run.documents, self.model.documents)
            return nearest_positive_cosine(run, self.model.vectors)
        return candidate_scores(run, self.model)  # type: ignore[arg-type]

    def __call__(self, run: Run) -> Run:
        suspected = (self.similarity(run) > self.threshold) & ~known_positives(run)
        marked = run.mark(suspected, self.reason, keep=self.action == "weight")
        if self.action == "drop":
            return marked
        return marked.replace(weight=np.where(suspected, self.weight, run.weight))
