"""Predictive multiplicity: how differently models of nearly the same quality treat the same example.

A *Rashomon set* holds the models whose quality is within epsilon of the best. Over it, `RashomonSet` says how many
examples change their label (ambiguity), how many one single model changes (discrepancy), how far a probability can move
(viable range) and how many distinct opinions there are (capacity). All values grow with the set: compare at equal
epsilon, and take figures from a sample of models as lower bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError

Floats = NDArray[np.float64]


class MultiplicityReport(NamedTuple):
    """The figures of one `RashomonSet`, shares and means over the examples."""

    members: int
    ratio: float
    label_ambiguity: float
    label_discrepancy: float
    ambiguity: float
    discrepancy: float
    mean_range: float


class RashomonSet:
    """The models of a list whose score is within `epsilon` of the best, and what they disagree on.

    Args:
        probabilities: [M, N] of the positive class, or [M, N, C] of C classes, from M models on N examples.
        scores: [M], the quality of each model, a loss if not `higher_is_better`; None takes all as members.
        epsilon: a model is a member if score >= reference - epsilon (a loss <= reference + epsilon), boundary included,
            compared plainly.
        reference: the score to be near to; None takes the best.
        strict: leave the boundary out.
        baseline: the model that conflicts are counted against: its place in the list, or the probabilities of a model
            that is not in it, [N] or [N, C]. None takes the best model, the first of equals.
        threshold: a binary label is probability >= threshold; with [M, N, C] labels are the highest class.

    Source: Watson-Daniels, Parkes and Ustun 2023. Paper 40; the multi-class forms: Paper 111.

    Raises:
        RivalsError: shapes that do not fit, no model, a probability outside 0..1 or a row of classes not summing to 1
            within 1e-5, NaN scores, epsilon below 0, a baseline that is not there, no member.

    >>> p = [[.2, .6, .9], [.3, .5, .9], [.7, .4, .1]]
    >>> found = RashomonSet(p, [.75, .5, .25], epsilon=.25)
    >>> found.members.tolist(), round(found.ambiguity(.05), 4), found.viable_range()[0].tolist()
    ([0, 1], 0.6667, [0.2, 0.3])
    """

    def __init__(
        self,
        probabilities: ArrayLike,
        scores: ArrayLike | None = None,
        *,
        epsilon: float = 0.0,
        higher_is_better: bool = True,
        reference: float | None = None,
        strict: bool = False,
        baseline: int | ArrayLike | None = None,
        threshold: float = 0.5,
    ) -> None:
        self.probabilities: Floats = _checked(probabilities, "probabilities", (2, 3))
        models = len(self.probabilities)
        if models == 0:
            raise RivalsError("probabilities hold no model")
        if not epsilon >= 0:
            raise RivalsError(f"epsilon is {epsilon}; it must be at least 0")
        self.threshold = threshold
        quality = np.zeros(models) if scores is None else np.asarray(scores, dtype=np.float64)
        if quality.shape != (models,) or np.isnan(quality).any():
            raise RivalsError(f"scores must be one number for each of the {models} models, without NaN")
        best = int(np.argmax(quality) if higher_is_better else np.argmin(quality))
        near = quality[best] if reference is None else reference
        edge = near - epsilon if higher_is_better else near + epsilon
        inside = quality > edge if strict else quality >= edge
        if not higher_is_better:
            inside = quality < edge if strict else quality <= edge
        self.members: NDArray[np.int64] = np.flatnonzero(inside)
        """The places of the members in the list, rising."""
        if not len(self.members):
            raise RivalsError("no model is inside the set; raise epsilon, or check which way scores are better")
        self.ratio = len(self.members) / models
        """Members over models."""
        self.baseline: int | None = None
        """The place of the baseline model, None if it was given by its probabilities."""
        if baseline is None:
            self.baseline = best
        elif np.ndim(baseline) == 0:
            self.baseline = int(baseline)  # type: ignore[arg-type]
            if not 0 <= self.baseline < models:
                raise RivalsError(f"baseline is {baseline}; the models are 0 to {models - 1}")
        if self.baseline is None:
            base = _checked(np.asarray(baseline)[None], "baseline", (self.probabilities.ndim,))[0]  # type: ignore[arg-type]
            if base.shape != self.probabilities.shape[1:]:
                raise RivalsError(f"baseline has shape {base.shape}; a model has {self.probabilities.shape[1:]}")
        else:
            base = self.probabilities[self.baseline]
        self._base: Floats = base
        self._others: Floats = self.probabilities[
            self.members[self.members != (-1 if self.baseline is None else self.baseline)]
        ]

    def ambiguity(self, delta: float | None = None) -> float:
        """Return the share of examples that some member treats otherwise than the baseline.

        Otherwise: another label, or with `delta` a probability (of any class) at least delta away.
        """
        conflicts = self._conflicts(delta)
        return float(conflicts.any(0).mean()) if conflicts.size else 0.0

    def discrepancy(self, delta: float | None = None) -> float:
        """Return the largest share of examples that one member treats otherwise than the baseline."""
        conflicts = self._conflicts(delta)
        return float(conflicts.mean(1).max()) if conflicts.size else 0.0

    def viable_range(self, targets: ArrayLike | None = None) -> Floats:
        """Return the lowest and the highest probability that a member gives each example, [N, 2].

        With classes: of the class `targets` [N] of each example.
        """
        inside = self._of_class(targets)
        return np.stack([inside.min(0), inside.max(0)], axis=1)

    def score_variance(self, targets: ArrayLike | None = None) -> Floats:
        """Return the population variance of each example's probability over the members, [N]."""
        return self._of_class(targets).var(0)

    def disagreement(self) -> Floats:
        """Return how much members' labels differ, [N] in 0..1: C / (C - 1) (1 - sum of squared shares of votes).

        For two classes 4 mu (1 - mu), twice the chance that two members drawn at random differ.
        """
        labels = _labels(self.probabilities[self.members], self.threshold)
        classes = max(self.probabilities.shape[2] if self.probabilities.ndim == 3 else 2, 2)
        votes = np.stack([(labels == label).mean(0) for label in range(classes)])
        return classes / (classes - 1) * (1 - (votes**2).sum(0))

    def capacity(self, *, bits: bool = False) -> Floats:
        """Return the Rashomon capacity of each example as 2^bits, 1 to C, or in bits, [N]; see `rashomon_capacity`."""
        inside = self.probabilities[self.members]
        found = rashomon_capacity(np.stack([1 - inside, inside], axis=2) if inside.ndim == 2 else inside)
        return found if bits else 2**found

    def report(self, delta: float = 0.1, *, targets: ArrayLike | None = None) -> MultiplicityReport:
        """Return the figures at one delta."""
        return MultiplicityReport(
            members=len(self.members),
            ratio=self.ratio,
            label_ambiguity=self.ambiguity(),
            label_discrepancy=self.discrepancy(),
            ambiguity=self.ambiguity(delta),
            discrepancy=self.discrepancy(delta),
            mean_range=float(np.ptp(self.viable_range(targets), axis=1).mean()),
        )

    def _conflicts(self, delta: float | None) -> NDArray[np.bool_]:
        """Whether each member other than the baseline treats each example otherwise, [members, N]."""
        if delta is None:
            return _labels(self._others, self.threshold) != _labels(self._base[None], self.threshold)
        if not 0 <= delta <= 1:
            raise RivalsError(f"delta is {delta}; a difference of probabilities lies in 0..1")
        away = np.abs(self._others - self._base)
        return (away if away.ndim == 2 else away.max(2)) >= delta

    def _of_class(self, targets: ArrayLike | None) -> Floats:
        inside = self.probabilities[self.members]
        if inside.ndim == 2:
            return inside
        if targets is None:
            raise RivalsError("with several classes give targets, the class of each example whose probability is meant")
        wanted = np.asarray(targets)
        if wanted.shape != inside.shape[1:2] or not ((wanted >= 0) & (wanted < inside.shape[2])).all():
            raise RivalsError(
                f"targets must be one class below {inside.shape[2]} for each of {inside.shape[1]} examples"
            )
        return np.take_along_axis(inside, wanted.astype(np.int64)[None, :, None], axis=2)[..., 0]


def rashomon_capacity(probabilities: ArrayLike, *, tol: float = 1e-12, max_iter: int = 1000) -> Floats:
    """Rashomon capacity of each example in bits: how much its predictions say about which model made them.

    The capacity of the channel model -> class with the transition matrix P[M, C] of the example, max over weights r of
    models of the mutual information, by Blahut and Arimoto: q_mc = r_m P_mc / sum_m r_m P_mc, r'_m ~ prod_c q_mc^P_mc,
    until the mean square change of r is below tol. 0 if all models agree; log2 C if they are sure of different classes.

    Shapes: probabilities[M, N, C] -> [N]. From below: near-identical rows converge slowly and stop early, some 1e-4 bits
    short at the default tol. O(max_iter M N C).

    Source: Hsu and Calmon 2022; as the code of Paper 111. Blahut 1972, Arimoto 1972.

    Raises:
        RivalsError: not [M, N, C] with at least one model, rows that do not sum to 1 within 1e-5.

    >>> rashomon_capacity([[[1., 0.]], [[0., 1.]]]).round(6).tolist()
    [1.0]
    """
    given = _checked(probabilities, "probabilities", (3,))
    if len(given) == 0:
        raise RivalsError("probabilities hold no model")
    p = np.ascontiguousarray(given.transpose(1, 0, 2))  # [N, M, C]
    examples, models = p.shape[:2]
    r = np.full((examples, models), 1.0 / models)
    bits = np.zeros(examples)
    open_ = np.arange(examples)
    for step in range(max_iter):
        if not len(open_):
            break
        mine, weight = p[open_], r[open_]
        joint = weight[:, :, None] * mine
        total = joint.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_q = np.where(joint > 0, np.log(joint) - np.log(total), -np.inf)
            power = np.where(mine > 0, mine * log_q, 0.0).sum(2)
            fresh = np.exp(power - power.max(1, keepdims=True))
            fresh /= fresh.sum(1, keepdims=True)
            terms = np.where(
                (fresh[:, :, None] > 0) & (joint > 0),
                fresh[:, :, None] * mine * (log_q - np.log(fresh)[:, :, None]),
                0.0,
            )
        r[open_] = fresh
        bits[open_] = terms.sum((1, 2)) / np.log(2)
        still = ((fresh - weight) ** 2).mean(1) >= tol
        open_ = open_[still] if step + 1 < max_iter else open_[:0]
    return bits


def rank_ambiguity(
    scores: ArrayLike, mask: ArrayLike | None = None, *, k: int, baseline: int = 0
) -> tuple[float, float]:
    """Return ambiguity and discrepancy of the membership in the top k, over models that rank the same lists.

    The label of a (query, candidate) is whether it is among the k best of its list, equal scores in their order.
    Ambiguity: share of (query, candidate) whose membership some model changes; discrepancy: the largest share that one
    model changes.

    Shapes: scores[M, Q, C], mask[Q, C] -> two numbers.

    Source: the label form of Paper 40, for the membership in a top-k list.

    Raises:
        RivalsError: not [M, Q, C] with at least one model, NaN, k below 1, a baseline that is not there.

    >>> rank_ambiguity([[[3., 2., 1.]], [[3., 1., 2.]]], k=2)
    (0.6666666666666666, 0.6666666666666666)
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 3 or len(given) == 0:
        raise RivalsError(f"scores have shape {given.shape}; they must be [models, queries, candidates]")
    there = np.ones(given.shape[1:], dtype=bool) if mask is None else np.asarray(mask)
    if there.dtype != bool or there.shape != given.shape[1:]:
        raise RivalsError(f"mask must be bool of shape {given.shape[1:]}")
    if np.isnan(given[:, there]).any():
        raise RivalsError("scores hold NaN; mask those candidates")
    if int(k) != k or k < 1:
        raise RivalsError(f"k is {k}; it must be a whole number of at least 1")
    if not 0 <= baseline < len(given):
        raise RivalsError(f"baseline is {baseline}; the models are 0 to {len(given) - 1}")
    order = np.argsort(-np.where(there, given, -np.inf), axis=2, kind="stable")
    top = np.zeros(given.shape, dtype=bool)
    np.put_along_axis(top, order[..., :k], True, axis=2)
    changed = (top != top[baseline]) & there
    count = max(int(there.sum()), 1)
    return float(changed.any(0).sum() / count), float(changed.sum((1, 2)).max() / count)


def mean_above_quantile(values: ArrayLike, quantile: float) -> float:
    """Mean of the values at or above their quantile: what the worst-off examples see.

    Shapes: values[N] -> number.

    Source: the summaries of Paper 111's code.

    Raises:
        RivalsError: no value, NaN, quantile not in 0..1.

    >>> mean_above_quantile([1., 2., 3., 10.], 0.5)
    6.5
    """
    given = np.asarray(values, dtype=np.float64).ravel()
    if not given.size or np.isnan(given).any():
        raise RivalsError("values must be at least one number, without NaN")
    if not 0 <= quantile <= 1:
        raise RivalsError(f"quantile is {quantile}; it must lie in 0..1")
    return float(given[given >= np.quantile(given, quantile)].mean())


def _labels(probabilities: Floats, threshold: float) -> NDArray[Any]:
    return probabilities >= threshold if probabilities.ndim == 2 else probabilities.argmax(2)


def _checked(probabilities: ArrayLike, name: str, dims: tuple[int, ...]) -> Floats:
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim not in dims:
        raise RivalsError(
            f"{name} has shape {given.shape}; it must be [models, examples] or [models, examples, classes]"
        )
    if not ((given >= 0) & (given <= 1)).all():
        raise RivalsError(f"{name} must lie in 0..1")
    if given.ndim == 3 and given.size and (np.abs(given.sum(2) - 1) > 1e-5).any():
        raise RivalsError(f"{name} of the classes of an example must sum to 1")
    return given
