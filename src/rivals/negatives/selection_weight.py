"""Weights from a selection model: a negative counts the more, the likelier somebody looked at it before leaving it out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.filters import known_positives

#: What scores a run's candidates by another model: a retriever over the same documents, any function of the run that
#: returns a score for each candidate, float[n], or the name of a feature column of the run.
CandidateScorer = Retriever | Callable[[Run], Any] | str


@dataclass(frozen=True, eq=False, repr=False)
class SelectionWeight(Transform):
    """Set the weight of every candidate to 1 + exp(s / debias_ratio), s its score by a selection model.

    Labels come from pools: a document that no judge saw is no proof of irrelevance. A selection model learns which
    documents were selected for judging, and a candidate it would have selected, and which still has no label, is a
    negative to trust. Weights are 1 and more, 2 where s = 0; known positives keep theirs. The weights are set, not
    multiplied: of two weighting transforms the later one counts.

    When to use: in training, on the run of each batch (`run.take(rows)`), with a function that scores by the selection
    model as it is now, in evaluation mode and without gradient; both models learn by `rivals.losses.coupled_losses`.
    Off line weights are those of one moment: compute them anew whenever the selection model has changed.

    Args:
        scorer: of the selection model; see `CandidateScorer`. debias_ratio: rho, above 0; 10 in the source's script, 2
            the default of its code. max_weight: cuts weights off. normalise: divide by the mean weight of the query's
            unlabelled candidates, so that the learning rate stays what it was (ours).

    Source: Cai et al. 2022, Hard negatives or false negatives (coupled estimation). Paper 5.

    Raises:
        RivalsError: debias_ratio not above 0, max_weight below 1; called with a scorer that gives another number of
        scores than candidates, or scores that are not finite.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> SelectionWeight(lambda run: [0.0, 10 * np.log(3)], debias_ratio=10)(run).weight.round(4).tolist()
    [2.0, 4.0]
    """

    scorer: CandidateScorer
    debias_ratio: float = 10.0
    max_weight: float | None = None
    normalise: bool = False

    def __post_init__(self) -> None:
        check_scorer(self.scorer)
        if not (math.isfinite(self.debias_ratio) and self.debias_ratio > 0):
            raise RivalsError(f"debias_ratio must be a finite number above 0, not {self.debias_ratio!r}")
        if self.max_weight is not None and not self.max_weight >= 1:
            raise RivalsError(f"max_weight must be at least 1, the least weight there is; not {self.max_weight!r}")

    def __repr__(self) -> str:
        return f"SelectionWeight({scorer_name(self.scorer)}, debias_ratio={self.debias_ratio:g})"

    def __call__(self, run: Run) -> Run:
        import torch

        from rivals.losses import selection_weight

        scores = torch.from_numpy(candidate_scores(run, self.scorer))
        weight = selection_weight(scores, self.debias_ratio, max_weight=self.max_weight).numpy()
        known = known_positives(run)
        if self.normalise:
            there = lists.segment_reduce(np.add, (~known).astype(np.float64), run.offsets)
            total = lists.segment_reduce(np.add, np.where(known, 0.0, weight.astype(np.float64)), run.offsets)
            mean = np.where(there > 0, total, 1.0) / np.maximum(there, 1.0)
            weight = weight / np.repeat(mean, np.diff(run.offsets))
        return run.replace(weight=np.where(known, run.weight, weight))


def candidate_scores(run: Run, scorer: CandidateScorer) -> NDArray[np.float32]:
    """Return another model's score of every candidate, float32[n].

    Raises:
        RivalsError: a retriever over other documents, a feature the run does not have, as many scores as candidates not
        given, or a score that is not finite (the query is named).

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a"]), [0, 1], [0], [.9], features={"bm25": [3.0]})
    >>> candidate_scores(run, "bm25").tolist()
    [3.0]
    """
    if isinstance(scorer, str):
        if scorer not in run.features:
            raise RivalsError(f"the run has no feature '{scorer}'; it has {', '.join(run.features) or 'none'}")
        found: Any = run.features[scorer]
    elif isinstance(scorer, Retriever):
        check_same_documents(run.documents, scorer.documents)
        found = scorer.score(run.queries, run.query, run.document)
    else:
        found = scorer(run)
    scores = np.array(found, dtype=np.float32)
    if scores.shape != (len(run),):
        raise RivalsError(f"{scorer_name(scorer)} gave scores of shape {scores.shape} for {len(run)} candidates")
    if not np.isfinite(scores).all():
        row = int((~np.isfinite(scores)).argmax())
        raise RivalsError(
            f"{scorer_name(scorer)} gives document '{run.documents.ids[run.document[row]]}' of query "
            f"'{run.queries.ids[run.query[row]]}' the score {scores[row]}; scores must be finite"
        )
    return scores


def check_scorer(scorer: Any) -> None:
    """Raise a RivalsError unless `candidate_scores` can use it."""
    if not (isinstance(scorer, str | Retriever) or callable(scorer)):
        raise RivalsError(
            f"{scorer!r} scores no candidates; give a retriever, a function of the run or a feature's name"
        )


def scorer_name(scorer: Any) -> str:
    """Return what to call a scorer in messages and reasons."""
    if isinstance(scorer, str):
        return scorer
    return scorer.name if isinstance(scorer, Retriever) else str(getattr(scorer, "__name__", type(scorer).__name__))
