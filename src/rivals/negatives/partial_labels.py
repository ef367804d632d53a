"""Negatives that are only assumed: large-loss filtering and pseudo-labels, over runs and over label matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Dataset, Judgements
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.filters import known_positives

_CELLS = 1 << 22  # padded candidates held at once


@dataclass(frozen=True)
class LargeLoss(Transform):
    """Mark the unjudged candidates that cost most as negatives, that is, those with the highest scores.

    A candidate that nobody judged is assumed a negative, and its loss -log(1 - sigmoid(s)) rises with its score s. The
    ceil(`fraction` * n) unjudged candidates with the largest loss are taken for unlabelled positives, n being all
    candidates of the query (`per` "query") or of the run ("run"); more where scores tie at the last place.

    - scheme "reject": they are no negatives (`keep` False).
    - scheme "correct": besides, they have the target 1. `large_loss_judgements` makes positives of them for good.

    When to use: in training regimes that mine again and again with the model in training: its own surest errors are left
    out, first none (epoch 1), then more each epoch; `rivals.losses.large_loss_fraction` gives the fraction of an epoch.
    Per query, the result does not depend on blocks of queries; per run, as in the paper's batches, it does, and scores of
    different queries must compare.

    Args:
        fraction: in [0, 1]; 0.05 is what the paper's schedule for "reject" reaches in its last epochs.

    Source: Kim et al. 2022, Large loss matters, eqs. 4 to 7; Kim et al. 2023, section 4 (paper 80): batches of images
    and labels, here queries and candidates.

    Raises:
        RivalsError: an option out of range.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], range(4), [.9, .8, .7, .6],
    ...                 columns={"label": [1, -1, -1, 0]})
    >>> LargeLoss(0.25)(run).keep.tolist()
    [True, False, True, True]
    """

    fraction: float = 0.05
    scheme: Literal["reject", "correct"] = "reject"
    per: Literal["query", "run"] = "query"

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise RivalsError(f"fraction must lie in 0..1, not {self.fraction!r}")
        if self.scheme not in ("reject", "correct"):
            raise RivalsError(f"scheme must be 'reject' or 'correct', not {self.scheme!r}")
        if self.per not in ("query", "run"):
            raise RivalsError(f"per must be 'query' or 'run', not {self.per!r}")

    @property
    def reason(self) -> str:
        """The reason of its marks."""
        return f"large loss {self.fraction:g} per {self.per}"

    def selected(self, run: Run) -> NDArray[np.bool_]:
        """Return which candidates have the large losses, bool[n]; judged ones and known positives never."""
        unknown = (run.label < 0) & ~known_positives(run)
        if self.per == "run":
            return _largest(run.score, unknown, self.fraction)
        lengths = np.diff(run.offsets)
        number = np.ceil(self.fraction * lengths - 1e-9).astype(np.int64)
        place = np.cumsum(unknown) - 1
        first = np.concatenate(([0], np.cumsum(unknown)))[run.offsets[:-1]]
        place -= np.repeat(first, lengths)
        chosen = unknown & (place < np.repeat(number, lengths))  # a query's candidates stand highest score first
        last = lists.segment_reduce(np.minimum, np.where(chosen, run.score, np.inf), run.offsets, np.inf)
        return unknown & (run.score >= np.repeat(last, lengths))

    def __call__(self, run: Run) -> Run:
        selected = self.selected(run)
        marked = run.mark(selected, self.reason)
        return marked if self.scheme == "reject" else marked.replace(target=np.where(selected, 1.0, run.target))


def large_loss_judgements(
    run: Run, dataset: Dataset, rule: LargeLoss, *, most: int | None = None
) -> tuple[Dataset, int]:
    """Return the dataset in which the candidates that `rule` selects are relevant for good, and how many were added.

    Errors add up over epochs, since nothing is ever taken back: keep the fraction small (0.001 in the paper, constant),
    and set `most`, the number of positives that may be added now. The highest scores are added first.

    Args:
        run: over all or some queries of the dataset, found by id.

    Source: Kim et al. 2022, section 4.3, "correct permanently" (LL-Cp); paper 80.

    Raises:
        RivalsError: most below 0, a query or documents that the dataset does not have.

    >>> from rivals.data import Collection
    >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b"])
    >>> dataset = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=1, documents=2))
    >>> run = Run.build(queries, documents, [0, 2], [0, 1], [.9, .8], columns={"label": [1, -1]})
    >>> corrected, added = large_loss_judgements(run, dataset, LargeLoss(0.5))
    >>> corrected.judgements.document.tolist(), added
    ([0, 1], 1)
    """
    from dataclasses import replace

    from rivals.data.pipeline import check_same_documents

    check_same_documents(run.documents, dataset.documents)
    if most is not None and most < 0:
        raise RivalsError(f"most must be 0 or more, not {most!r}")
    query = dataset.queries.rows(run.queries.ids)[run.query]
    held = dataset.judgements
    rows = np.flatnonzero(rule.selected(run) & (lists.find_pairs(held.offsets, held.document, query, run.document) < 0))
    rows = rows[np.argsort(-run.score[rows], kind="stable")][:most]
    judgements = Judgements.build(
        np.concatenate([held.query, query[rows]]),
        np.concatenate([held.document, run.document[rows]]),
        np.concatenate([held.relevance, np.ones(len(rows))]),
        queries=len(dataset.queries),
        documents=len(dataset.documents),
    )
    return replace(dataset, judgements=judgements), len(rows)


class CorrectedLabels:
    """A label matrix whose unknown entries with the largest losses become positive for good while training goes on.

    `labels` float32[N, K]: 1 positive, 0 known negative, NaN unknown (trained on as negative). After the loss of a batch,
    `update` turns the entries of largest loss into positives and says which; `corrected` bool[N, K] holds them all.

    Args:
        labels: [N, K] of 0, 1 and NaN. delta: share of a batch's entries to correct, in every epoch from `start_epoch`.
        max_share: at most this share of the unknown entries is ever corrected.

    Source: Kim et al. 2022, section 4.3, "correct permanently" (LL-Cp, delta 0.1 %); the limit is ours. Paper 80.

    Raises:
        RivalsError: labels of other values or shape, delta or max_share outside [0, 1], start_epoch below 1.

    >>> store = CorrectedLabels([[1.0, np.nan, np.nan], [np.nan, 1.0, np.nan]], delta=0.1, max_share=0.5)
    >>> store.update([0, 1], [[2.0, 3.0, -1.0], [0.5, 1.0, 1.5]], epoch=2).tolist()
    [[False, True, False], [False, False, False]]
    >>> store.labels.tolist()
    [[1.0, 1.0, nan], [nan, 1.0, nan]]
    """

    def __init__(self, labels: Any, *, delta: float = 0.001, start_epoch: int = 2, max_share: float = 0.2) -> None:
        given = np.array(labels, np.float32)
        if given.ndim != 2 or not (np.isnan(given) | (given == 0) | (given == 1)).all():
            raise RivalsError(f"labels must be a matrix of 1, 0 and NaN (unknown), not of shape {given.shape}")
        for name, value in (("delta", delta), ("max_share", max_share)):
            if not 0 <= value <= 1:
                raise RivalsError(f"{name} must lie in 0..1, not {value!r}")
        if start_epoch < 1:
            raise RivalsError(f"start_epoch counts from 1, not {start_epoch!r}")
        self.labels, self.corrected = given, np.zeros(given.shape, bool)
        self.delta, self.start_epoch = delta, start_epoch
        self.most = math.floor(max_share * int(np.isnan(given).sum()))

    def update(self, rows: Any, scores: Any, *, epoch: int) -> NDArray[np.bool_]:
        """Correct a batch and return what was corrected just now, bool[B, K].

        Args:
            rows: int64[B], the batch's rows of the matrix. scores: float[B, K], its logits. epoch: counted from 1.

        Raises:
            RivalsError: scores of another shape, a row out of range or given twice, an epoch below 1.
        """
        from rivals.losses.partial_labels import large_loss_fraction

        index, logits = np.asarray(rows, np.int64), np.asarray(scores, np.float32)
        if logits.shape != (len(index), self.labels.shape[1]):
            raise RivalsError(f"scores must be {(len(index), self.labels.shape[1])}, a row each; not {logits.shape}")
        if len(index) and (index.min() < 0 or index.max() >= len(self.labels) or len(np.unique(index)) < len(index)):
            raise RivalsError(f"rows must name each of 0..{len(self.labels) - 1} once at most")
        fraction = large_loss_fraction(
            epoch, scheme="correct_permanent", delta=self.delta, start_epoch=self.start_epoch
        )
        found = _largest(logits, np.isnan(self.labels[index]), fraction)
        left = self.most - int(self.corrected.sum())
        if found.sum() > left:
            order = np.argsort(np.where(found, -logits, np.inf), axis=None, kind="stable")[:left]
            found = np.isin(np.arange(found.size), order).reshape(found.shape)
        self.corrected[index] |= found
        self.labels[index] = np.where(found, np.float32(1), self.labels[index])
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what was corrected, as rows and columns."""
        row, column = np.nonzero(self.corrected)
        return {"row": row, "column": column}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, of a store made from the same labels."""
        row, column = np.asarray(state["row"], np.int64), np.asarray(state["column"], np.int64)
        self.labels[self.corrected] = np.nan
        self.corrected[:] = False
        self.corrected[row, column] = True
        self.labels[row, column] = 1


@dataclass(frozen=True)
class AsymmetricPseudoLabels(Transform):
    """Let only the surest negatives be negatives: of every query's unjudged candidates, those of least probability.

    The int(`fraction` * U) least probable of a query's U unjudged candidates keep `keep` and get their own probability p
    as soft target; the other unjudged ones stay unknown, and are marked. It is the opposite of mining hard negatives:
    no false negative is worth the risk. In round i of `rounds` it is i * int(fraction * U / rounds) of them, so that a
    regime can begin with few.

    When to use: where most unjudged candidates may be relevant; with `entropy_maximisation_loss`, which takes the
    targets as pseudo-labels and keeps the unknown undecided. For label matrices use
    `rivals.losses.AsymmetricPseudoLabeller`, which remembers the rounds before; here every run is labelled by its own
    scores.

    Args:
        fraction: in [0, 1]. rounds: 1 or more. round: the present one, 1 to rounds; None is the last.
        probability: scores are "given" as probabilities in [0, 1], or logits to put through a "sigmoid".

    Source: Zhou et al. 2022, Acknowledging the unknown, section 3.3 (paper 91), labels as queries and images as
    candidates. Only negatives are labelled, as in the authors' code.

    Raises:
        RivalsError: an option out of range; scores outside [0, 1] with "given".

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], range(4), [.9, .5, .25, .125],
    ...                 columns={"label": [1, -1, -1, -1]}, score_kind="probability")
    >>> marked = AsymmetricPseudoLabels(0.7)(run)
    >>> marked.keep.tolist(), marked.target.tolist()
    ([True, False, True, True], [nan, nan, 0.25, 0.125])
    """

    fraction: float = 0.9
    rounds: int = 1
    round: int | None = None
    probability: Literal["given", "sigmoid"] = "given"

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise RivalsError(f"fraction must lie in 0..1, not {self.fraction!r}")
        if self.rounds < 1 or not 1 <= (self.rounds if self.round is None else self.round) <= self.rounds:
            raise RivalsError(f"rounds must be 1 or more and round in 1..rounds; not {self.rounds!r}, {self.round!r}")
        if self.probability not in ("given", "sigmoid"):
            raise RivalsError(f"probability must be 'given' or 'sigmoid', not {self.probability!r}")

    def at(self, round: int) -> AsymmetricPseudoLabels:
        """Return the filter of a round."""
        return AsymmetricPseudoLabels(self.fraction, self.rounds, round, self.probability)

    @property
    def reason(self) -> str:
        """The reason of its marks."""
        return "unjudged and not sure to be negative"

    def __call__(self, run: Run) -> Run:
        unknown = (run.label < 0) & ~known_positives(run)
        probability = run.score
        if self.probability == "sigmoid":
            probability = (0.5 * (1 + np.tanh(0.5 * run.score))).astype(np.float32)
        outside = unknown & ((probability < 0) | (probability > 1))
        if outside.any():
            row = int(outside.argmax())
            raise RivalsError(
                f"query '{run.queries.ids[run.query[row]]}': the score {run.score[row]:g} is no probability; use "
                "probability='sigmoid' for logits, or rescore with probabilities"
            )
        sure = self._surest(run, unknown, probability)
        marked = run.mark(unknown & ~sure, self.reason)
        return marked.replace(target=np.where(sure, probability, run.target))

    def _surest(self, run: Run, unknown: NDArray[np.bool_], probability: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which unknown candidates get a pseudo-label, by the rule for label matrices: queries are its labels."""
        import torch

        from rivals.losses.pseudo_labels import asymmetric_pseudo_labels

        times = self.rounds if self.round is None else self.round
        sure = np.zeros(len(run), bool)
        step = max(1, _CELLS // max(int(np.diff(run.offsets).max(initial=0)), 1))
        for start in range(0, len(run.queries), step):
            stop = min(start + step, len(run.queries))
            rows = slice(run.offsets[start], run.offsets[stop])
            offsets = run.offsets[start : stop + 1] - run.offsets[start]
            mask = lists.pad_mask(offsets)
            if not mask.size:
                continue
            scores = torch.from_numpy(lists.pad(probability[rows].clip(0, 1), offsets, fill=np.float32(0)).T)
            free = torch.from_numpy(lists.pad(unknown[rows], offsets, fill=False).T)
            pseudo = None
            for _ in range(times):
                pseudo = asymmetric_pseudo_labels(
                    scores, free, pseudo, rounds=self.rounds, negative_fraction=self.fraction
                )
            assert pseudo is not None
            sure[rows] = ~np.isnan(pseudo.numpy().T[mask])
        return sure


def _largest(scores: NDArray[np.float32], unknown: NDArray[np.bool_], fraction: float) -> NDArray[np.bool_]:
    """The unknown entries of largest loss, ceil(fraction n) of the n entries."""
    import torch

    from rivals.losses.partial_labels import large_loss_selection

    if not scores.size:
        return np.zeros(scores.shape, bool)
    logits, free = torch.from_numpy(np.atleast_2d(scores)), torch.from_numpy(np.atleast_2d(unknown))
    found = large_loss_selection(logits, torch.zeros_like(logits), unknown=free, fraction=fraction)
    return np.asarray(found.numpy()).reshape(scores.shape)
