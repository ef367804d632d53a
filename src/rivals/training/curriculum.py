"""Training rankers by a curriculum: what the first stage finds easy counts from the start, what it finds hard comes in with time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.losses.curriculum import CurriculumWeighting, Heuristic, looks_relevant, probability_error_loss, score_cdf
from rivals.training.held_out import HeldOut
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.ranker import ListLoss, ScorerObjective
from rivals.training.scorers import Scorer

OUTSIDE = 1000
"""The rank of a relevant document that the first stage did not find, as in the release."""


def first_stage_looks(run: Run, heuristic: Heuristic = "reciprocal") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how relevant the candidates, float32[n], and the positives, float32[m], of a first-stage run look, in 0..1.

    See `looks_relevant` for the heuristics, which are taken over each query's run. A positive that the run holds looks as that
    candidate does; others have the rank 1000, or the place of their score among the run's ("minmax" stays within 0..1).

    Source: MacAvaney et al. 2020, section 3, and its release (paper 48).

    Raises:
        RivalsError: a heuristic by score where a positive outside the run has none, "kde" where a run has fewer than two different
            scores.

    >>> from rivals.data import Collection
    >>> positives = ([0, 2], [1, 2])
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 2], [0, 1], [9., 3.], positives=positives)
    >>> [part.round(3).tolist() for part in first_stage_looks(run)]
    [[1.0, 0.5], [0.5, 0.0010000000474974513]]
    """
    scores, mask = run.padded("score", fill=np.float32(0)), lists.pad_mask(run.offsets)
    ranks = torch.from_numpy(run.padded("rank", fill=0) + 1)
    padded = looks_relevant(torch.from_numpy(scores), torch.from_numpy(mask), heuristic=heuristic, ranks=ranks)
    candidate = padded.numpy()[mask].astype(np.float32)
    owner = lists.segment_ids(run.positive_offsets)
    place = lists.find_pairs(run.offsets, run.document, owner, run.positive) if len(run) else np.full(len(owner), -1)
    positive = np.full(len(owner), 1 / OUTSIDE, np.float32)
    positive[place >= 0] = candidate[place[place >= 0]]
    outside = np.flatnonzero(place < 0)
    if heuristic == "reciprocal" or not len(outside):
        return candidate, positive
    own = run.positive_score[outside]
    if np.isnan(own).any():
        row = outside[int(np.isnan(own).argmax())]
        raise RivalsError(
            f"query '{run.queries.ids[owner[row]]}': its relevant document '{run.documents.ids[run.positive[row]]}' has no first-stage "
            f"score, which heuristic='{heuristic}' needs; retrieve with the dataset, so that positives are scored"
        )
    for row, score in zip(outside, own, strict=True):
        listed = run.score[run.offsets[owner[row]] : run.offsets[owner[row] + 1]]
        if heuristic == "kde":
            positive[row] = float(score_cdf(torch.from_numpy(listed), torch.tensor([score]))[0])
        else:
            width = float(listed.max() - listed.min()) if len(listed) else 0.0
            positive[row] = 0.5 if width == 0 else np.clip((score - listed.min()) / width, 0.0, 1.0)
    return candidate, positive


class CurriculumObjective(ScorerObjective):
    """A list loss whose lists, or whose single documents, weigh by a curriculum.

    "pairs": a list of one positive and its negatives is as easy as its hardest pair, (h+ - h- + 1) / 2 with h how relevant the first
    stage holds each; the loss is taken list by list. "points": every document by itself, h where relevant and 1 - h where not; the
    loss is taken of lists of one. The weighted losses are averaged, weights not normalised: early steps are small.

    Args:
        weighting: the curriculum; `Curriculum(weighting)` as regime lets its time go on. first_stage: the run that says what is easy,
            over the same queries, with all the candidates that may be drawn. heuristic: see `looks_relevant`.
        loss: takes reduction="none"; the pair softmax by default.

    When to use: rerankers on few or noisy labels. The gain is about the noise of a seed on small data.

    Source: MacAvaney et al. 2020, training curricula for open domain answer re-ranking (paper 48).

    Raises:
        RivalsError: an unknown form, a first stage over other queries, a candidate that it does not hold.
    """

    def __init__(
        self,
        scorer: Scorer,
        batches: QueryBatches,
        weighting: CurriculumWeighting,
        first_stage: Run,
        *,
        heuristic: Heuristic = "reciprocal",
        form: Literal["pairs", "points"] = "pairs",
        loss: ListLoss = probability_error_loss,
        evaluate: HeldOut | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if form not in ("pairs", "points"):
            raise RivalsError(f"form must be 'pairs' or 'points', not {form!r}")
        if len(first_stage.queries) != len(batches.dataset.queries):
            raise RivalsError(
                f"the first stage's run is over {len(first_stage.queries)} queries, the data over {len(batches.dataset.queries)}"
            )
        options = {"heuristic": heuristic, "form": form, "end": weighting.end, "anti": weighting.anti}
        super().__init__(scorer, batches, loss, evaluate=evaluate, rates=rates, options=options)
        self.weighting, self.first_stage, self.form = weighting, first_stage, form
        self._candidate, self._positive = first_stage_looks(first_stage, heuristic)

    def looks(self, found: CandidateLists) -> NDArray[np.float32]:
        """Return how relevant the first stage holds each listed document, float32[Q, W]; 0 where none is.

        Raises:
            RivalsError: a listed document that the run neither holds nor has as a positive.
        """
        run = self.first_stage
        row, column = np.nonzero(found.mask)
        query = found.query[row]
        document = found.document[column] if found.document.ndim == 1 else found.document[found.mask]
        listed = lists.find_pairs(run.offsets, run.document, query, document)
        positive = lists.find_pairs(run.positive_offsets, run.positive, query, document)
        if (lost := (listed < 0) & (positive < 0)).any():
            first = int(lost.argmax())
            raise RivalsError(
                f"query '{run.queries.ids[query[first]]}': the first stage's run does not hold '{run.documents.ids[document[first]]}'; "
                "draw negatives from what it holds"
            )
        looks = np.zeros(found.mask.shape, np.float32)
        values = np.zeros(len(query), np.float32)
        values[positive >= 0] = self._positive[positive[positive >= 0]]
        values[listed >= 0] = self._candidate[listed[listed >= 0]]
        looks[found.mask] = values
        return looks

    def loss_of(self, scores: Tensor, found: CandidateLists) -> Tensor:
        """Return the weighted mean of the lists' or documents' losses."""
        relevance, mask, _ = found.tensors(scores.device)
        looks = torch.from_numpy(self.looks(found)).to(scores.device)
        positive, negative = mask & (relevance > 0), mask & (relevance <= 0)
        if self.form == "points":
            singly = (part[mask].unsqueeze(-1) for part in (scores, relevance, mask))
            losses = self.list_loss(*singly, reduction="none")
            ease = self.weighting.documents(looks[mask], relevance[mask])
        else:
            kept = positive.any(1) & negative.any(1)
            losses = self.list_loss(scores, relevance, mask, reduction="none")[kept]
            best = looks.masked_fill(~positive, -1.0).amax(1, keepdim=True)
            first = looks.gather(
                1, negative.int().argmax(1, keepdim=True)
            )  # where none is, any negative of the list may stand
            ease = self.weighting.pairs(best, torch.where(negative, looks, first))[kept]
        return self.weighting(losses, ease) if len(losses) else scores.sum() * 0


__all__ = ["CurriculumObjective", "first_stage_looks"]
