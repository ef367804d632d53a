"""Diagnoses while training: anything looked at every so many steps, and how the scores of positives and negatives part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import score_statistics
from rivals.training.regime import Regime


class Watch(Regime):
    """A regime that looks at the model every `every` steps of `fit`, and keeps and logs what it saw.

    The look happens without gradients and dropout and must change nothing. It is in the training log under `name`, and in
    `history`, which checkpoints keep.

    Args:
        look: step -> JSON values by name: a collapse report, score statistics, the sharpness of the moment.
        every: steps between two looks. name: in the log. first: the first step looked at, 0 = before training.

    When to use: to see collapse, saturated scores or a sharp minimum while there is time to stop. With other regimes, in
    `Together`, give each watch its own name.

    Source: the collapse alarms of Xu et al. (2022), Paper 12; the score logging of Zhu et al. (2021), Paper 34.

    Raises RivalsError: every below 1, first below 0.

    >>> from rivals.diagnose.collapse import collapse_report
    >>> from rivals.losses import softmax_loss
    >>> from rivals.models.images import FeatureEncoder
    >>> from rivals.training import LoopConfig, SupervisedObjective, fit
    >>> rows, model = torch.eye(4), FeatureEncoder(4, 4)
    >>> watch = Watch(lambda step: {"spread": collapse_report(model(rows)).mean_distance}, every=10, name="collapse")
    >>> result = fit(SupervisedObjective(model, [rows], [rows], softmax_loss), LoopConfig(epochs=21, evaluations=0), regime=watch)
    >>> [step for step, _ in watch.history]
    [0, 10, 20]
    """

    def __init__(
        self, look: Callable[[int], Mapping[str, Any]], *, every: int, name: str = "watch", first: int = 0
    ) -> None:
        if every < 1 or first < 0:
            raise RivalsError(f"every must be at least 1 and first at least 0; got {every} and {first}")
        self.look, self.every, self.name, self.first = look, every, name, first
        self.history: list[tuple[int, dict[str, Any]]] = []

    def begin(self, step: int, total: int) -> None:
        if step == 0:
            self.history = []

    def should_refresh(self, step: int) -> bool:
        return step >= self.first and (step - self.first) % self.every == 0

    def refresh(self, step: int) -> Mapping[str, Any]:
        seen = dict(self.look(step))
        self.history.append((step, seen))
        return {self.name: seen}

    def state_dict(self) -> dict[str, Any]:
        return {"history": [[step, seen] for step, seen in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = [(int(step), dict(seen)) for step, seen in state["history"]]


class ScoreView(NamedTuple):
    """The scores of a moment: `positives` and `negatives` count them between the `edges`, outliers in the end bins."""

    step: int
    positive_mean: float
    negative_mean: float
    negative_std: float
    above_positive: float
    overlap: float
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


class ScoreHistory:
    """How scores of positives and negatives are distributed as training goes on.

    Call it with the scores of a batch; it keeps a `ScoreView` a call, a histogram and five numbers, whatever the batch
    holds. With the places of the queries, also each query's running mean and variance of its positive and negative
    scores, at constant memory a query; lists without either are left out.

    - positive_mean, negative_mean, negative_std: means of `score_statistics` over the lists that have any.
    - above_positive: share of negatives above the list's worst positive: how hard they are, or how false.
    - overlap: of the two histograms, 0 = apart, 1 = alike.

    Args:
        low, high: ends of the histograms, -1 to 1 for cosines. bins: between them. temperature: as in the loss; only for
            the exponentials that `score_statistics` adds to the log.

    When to use: scores before the temperature, every step by `watched`, or on fixed held-out lists by a `Watch`.

    Source: Zhu et al. (2021), section 3. Paper 34. Histograms, overlap and running means are ours.

    Raises RivalsError: high not above low, bins below 1, what `score_statistics` raises, scores not finite,
    query places out of range.

    >>> seen = ScoreHistory(bins=4)
    >>> values = seen(0, torch.tensor([[0.8, 0.9, -0.2]]), torch.tensor([[1, 0, 0]]))
    >>> round(values["positive_mean"], 2), values["above_positive"], seen.views[0].negatives.tolist()
    (0.8, 0.5, [0, 1, 0, 1])
    """

    def __init__(
        self, *, low: float = -1.0, high: float = 1.0, bins: int = 40, temperature: float = 1.0, queries: int = 0
    ) -> None:
        if not high > low or bins < 1 or queries < 0:
            raise RivalsError(f"high must be above low, bins 1 or more, queries 0 or more; got {low}, {high}, {bins}")
        self.edges: NDArray[np.float64] = np.linspace(low, high, bins + 1)
        self.temperature = temperature
        self.views: list[ScoreView] = []
        self._seen = np.zeros(queries, dtype=np.int64)
        self._means, self._squares = np.zeros((queries, 2)), np.zeros((queries, 2))

    def __call__(
        self,
        step: int,
        scores: Tensor,
        relevance: Tensor,
        mask: Tensor | None = None,
        *,
        queries: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        """Add the scores [Q, C] of a moment and return its numbers; `queries` [Q] are places below the number given at the start."""
        wide = scores.detach().float()
        found = score_statistics(wide, relevance, mask, temperature=self.temperature)
        there = torch.ones_like(relevance, dtype=torch.bool) if mask is None else mask
        if not bool(torch.isfinite(wide[there]).all()):
            raise RivalsError(f"scores at step {step} are not finite; mask those candidates, or look at the model")
        counts = [self._histogram(wide[there & chosen]) for chosen in (relevance > 0, torch.logical_not(relevance > 0))]
        shares = [count / max(int(count.sum()), 1) for count in counts]
        some = [(there & chosen).any(-1) for chosen in (relevance > 0, torch.logical_not(relevance > 0))]
        positive, negative = some
        view = ScoreView(
            step,
            _mean(found.positive_mean, positive),
            _mean(found.negative_mean, negative),
            _mean(found.negative_variance.sqrt(), negative),
            _mean(found.above_positive, positive & negative),
            float(np.minimum(*shares).sum()),
            *counts,
        )
        self.views.append(view)
        if queries is not None:
            given, both = np.asarray(queries), (positive & negative).cpu().numpy()
            self._check(given, both.shape)
            self._add(
                given[both], torch.stack([found.positive_mean, found.negative_mean], -1).double().cpu().numpy()[both]
            )
        return {
            **{name: getattr(view, name) for name in ScoreView._fields[1:6]},
            "positive_exp_mean": _mean(found.positive_exp_mean, positive),
            "negative_exp_mean": _mean(found.negative_exp_mean, negative),
        }

    def watched(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the loss with every call's scores added: for losses of (scores, relevance, mask) given to an objective.

        >>> from rivals.losses import softmax_loss
        >>> seen = ScoreHistory()
        >>> value = seen.watched(softmax_loss)(torch.zeros(1, 2), torch.tensor([[1, 0]]))
        >>> len(seen.views), round(float(value), 4)
        (1, 0.6931)
        """

        def watching(scores: Tensor, relevance: Tensor, *rest: Tensor) -> Tensor:
            self(len(self.views), scores, relevance, rest[0] if rest else None)
            return loss(scores, relevance, *rest)

        return watching

    def per_query(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return running mean and population variance of each query's (positive, negative) mean score, [queries, 2], and its counts."""
        return self._means.copy(), self._squares / np.maximum(self._seen, 1)[:, None], self._seen.copy()

    def to_json(self) -> dict[str, Any]:
        """Return all views as JSON values."""
        views = [
            {**view._asdict(), "positives": view.positives.tolist(), "negatives": view.negatives.tolist()}
            for view in self.views
        ]
        return {"edges": self.edges.tolist(), "views": views}

    def _histogram(self, values: Tensor) -> NDArray[np.int64]:
        inside = values.cpu().numpy().clip(self.edges[0], self.edges[-1])
        return np.histogram(inside, self.edges)[0].astype(np.int64)

    def _check(self, queries: NDArray[np.int64], shape: tuple[int, ...]) -> None:
        known = len(self._seen)
        if queries.shape != shape or (queries.size and not ((queries >= 0) & (queries < known)).all()):
            raise RivalsError(
                f"queries must be places below {known}, of shape {shape}; ScoreHistory(queries=...) sets it"
            )

    def _add(self, queries: NDArray[np.int64], given: NDArray[np.float64]) -> None:
        """Welford's update of every query's means; a query may be there more than once."""
        if not len(queries):
            return
        order = np.argsort(queries, kind="stable")
        rows, starts, counts = np.unique(queries[order], return_index=True, return_counts=True)
        middle = np.add.reduceat(given[order], starts) / counts[:, None]
        inner = np.add.reduceat((given[order] - np.repeat(middle, counts, axis=0)) ** 2, starts)
        before = self._seen[rows]
        total = before + counts
        away = middle - self._means[rows]
        self._squares[rows] += inner + away**2 * (before * counts / total)[:, None]
        self._means[rows] += away * (counts / total)[:, None]
        self._seen[rows] = total


def _mean(values: Tensor, kept: Tensor) -> float:
    return float(values[kept].double().mean()) if bool(kept.any()) else 0.0
