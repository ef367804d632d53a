"""Does a preference-tuned language model rank? One report of its log-probabilities of chosen and rejected responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import Interval
from rivals.measures.proportions import proportion_interval

if TYPE_CHECKING:
    from rivals.models.language.base import Prompt
    from rivals.models.language.local import LocalLanguageModel

Floats = NDArray[np.float64]

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""The strengths over which the idealised accuracy is told, as in the paper."""


class Ideal(NamedTuple):
    """Idealised ranking accuracy over a grid of beta: the lowest, the median and the highest."""

    low: float
    median: float
    high: float


class Transitions(NamedTuple):
    """What tuning did to the order of pairs: right-right, right-wrong, wrong-right, wrong-wrong, each [4].

    fraction of the pairs, mean DPO loss, mean margin of the implicit rewards; NaN where no pair is.
    """

    fraction: Floats
    loss: Floats
    margin: Floats


@dataclass(frozen=True)
class PreferenceRanking:
    """What `preference_ranking` found; intervals are 95 %, of shares of pairs.

    pairs: pairs counted. ties: pairs left out because people liked both alike. ranking: share whose chosen response is
    at least as likely as the rejected one. ranking_per_token: the same by the mean per token (None without lengths).
    With the reference's log-probabilities, otherwise None: reference, its own ranking accuracy, and per token; reward:
    share whose chosen response gained more over the reference; ideal, ideal_per_token: what perfect tuning would reach;
    transitions; difficulty[pairs]: how much likelier the reference finds the rejected response, in nats; required_loss[
    pairs]: the DPO loss at or below which a pair is ranked right. beta: of the last three.
    """

    pairs: int
    ties: int
    beta: float
    ranking: Interval
    ranking_per_token: Interval | None
    reference: Interval | None
    reference_per_token: Interval | None
    reward: Interval | None
    ideal: Ideal | None
    ideal_per_token: Ideal | None
    transitions: Transitions | None
    difficulty: Floats | None
    required_loss: Floats | None

    @property
    def alignment_gap(self) -> float | None:
        """The median idealised accuracy less the accuracy seen: what tuning left undone."""
        return None if self.ideal is None else float(self.ideal.median - self.ranking.estimate)

    def __str__(self) -> str:
        lines = [f"{self.pairs} pairs" + (f", {self.ties} ties left out" if self.ties else "")]
        lines.append(f"ranking accuracy            {self.ranking}")
        for name, value in (
            ("per token", self.ranking_per_token),
            ("of the reference", self.reference),
            ("of the reference, per token", self.reference_per_token),
            ("reward accuracy", self.reward),
        ):
            if value is not None:
                lines.append(f"{name:<28}{value}")
        for name, ideal in (("ideal", self.ideal), ("ideal, per token", self.ideal_per_token)):
            if ideal is not None:
                lines.append(f"{name:<28}{ideal.median:.3f} ({ideal.low:.3f} to {ideal.high:.3f} over beta)")
        if self.transitions is not None:
            kept, broke, mended, left = (f"{value:.3f}" for value in self.transitions.fraction)
            lines.append(f"kept right {kept}, broke {broke}, mended {mended}, left wrong {left}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, lists and names, ready for JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return {name: plain(part) for name, part in value._asdict().items()}  # type: ignore[attr-defined]
            if isinstance(value, np.ndarray):
                return value.tolist()
            return value if value is None or isinstance(value, int) else float(value)

        return {name: plain(value) for name, value in vars(self).items()} | {"alignment_gap": self.alignment_gap}


def preference_ranking(
    logps: ArrayLike,
    ref_logps: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    *,
    relevance: ArrayLike | None = None,
    vote_share: ArrayLike = 0.75,
    beta: float = 0.1,
    betas: Sequence[float] = BETAS,
) -> PreferenceRanking:
    """Report whether a model finds preferred responses likelier, and how far it could have come.

    Tuning on preferences moves likelihoods relative to a reference model; where the reference is wrong by much, a pair
    stays wrong although its loss is low. `reward` therefore says little about `ranking`. Always look at both forms of
    ranking: longer responses are less likely.

    Shapes: logps and ref_logps [P, 2], summed log-probabilities of the chosen and the rejected response, lengths [P, 2]
    in tokens, relevance [P, 2] if the order of columns does not say which is better (equal: a tie, left out and
    counted), vote_share a number or [P], the share of people for the better response -> `PreferenceRanking`.

    When to use: after every preference tuning, on held-out pairs; before it, with the reference as the model, to see
    how hard the pairs are. From a model and texts: `model_preference_ranking`.

    Source: Chen et al. 2024, Preference learning algorithms do not learn preference rankings; the tensor forms are
    `rivals.losses.ranking_accuracy` and its neighbours, the share of 0.75 without votes is theirs. Paper 76.

    Raises:
        RivalsError: shapes that do not fit, no pair, NaN log-probabilities, beta not above 0, votes outside 0..1.

    >>> report = preference_ranking([[-10., -12.], [-9., -8.]], [[-11., -9.], [-9., -9.]], [[4, 5], [3, 3]])
    >>> report.ranking.estimate, report.reward.estimate, report.transitions.fraction.tolist()
    (0.5, 0.5, [0.0, 0.5, 0.5, 0.0])
    """
    from rivals.losses import preference_ranking as form

    policy = _pairs(logps, "logps", None)
    order, tie = _better_first(relevance, policy.shape)
    kept = np.flatnonzero(~tie)
    if not len(kept):
        raise RivalsError(f"there is no pair to rank ({int(tie.sum())} ties)")

    def sorted_pairs(values: Floats) -> Any:
        import torch

        return torch.from_numpy(np.take_along_axis(values, order, 1)[kept])

    wins, tokens = sorted_pairs(policy), None
    better = sorted_pairs(np.zeros_like(policy))
    better[:, 0] = 1.0
    if lengths is not None:
        tokens = sorted_pairs(_pairs(lengths, "lengths", policy.shape)).long()

    def share(accuracy: Any) -> Interval:
        return proportion_interval(round(float(accuracy) * len(kept)), len(kept))

    def ranked(values: Any, per_token: bool) -> Interval | None:
        if per_token and tokens is None:
            return None
        return share(form.ranking_accuracy(values, better, tokens, normalize=per_token))

    whole = ranked(wins, False)
    assert whole is not None
    if ref_logps is None:
        nothing = (None,) * 8
        return PreferenceRanking(len(kept), int(tie.sum()), beta, whole, ranked(wins, True), *nothing)
    ref = sorted_pairs(_pairs(ref_logps, "ref_logps", policy.shape))
    votes = _votes(vote_share, len(policy))[kept]

    def ideal(per_token: bool) -> Ideal | None:
        import torch

        if per_token and tokens is None:
            return None
        shares = torch.from_numpy(votes)
        found = [
            float(form.idealized_ranking_accuracy(ref, shares, beta=each, lengths=tokens, normalize=per_token))
            for each in betas
        ]
        return Ideal(min(found), float(np.median(found)), max(found))

    moved = form.ranking_transition(wins, ref, better, beta=beta)
    return PreferenceRanking(
        len(kept),
        int(tie.sum()),
        beta,
        whole,
        ranked(wins, True),
        ranked(ref, False),
        ranked(ref, True),
        share(form.reward_accuracy(wins, ref, better)),
        ideal(False),
        ideal(True),
        Transitions(*(part.double().numpy() for part in moved)),
        (ref[:, 1] - ref[:, 0]).numpy(),
        form.flip_threshold(ref, better, beta=beta).numpy(),
    )


def model_preference_ranking(
    model: LocalLanguageModel,
    prompts: Sequence[Prompt | str],
    chosen: Sequence[str],
    rejected: Sequence[str],
    *,
    reference: LocalLanguageModel | None = None,
    vote_share: ArrayLike = 0.75,
    beta: float = 0.1,
) -> PreferenceRanking:
    """Report, from texts, whether a language model finds chosen responses likelier than rejected ones.

    Without a `reference` the model stands for its own: the report then tells how hard the pairs would be to tune on it
    (difficulty, required_loss, ideal); its reward accuracy is 0 by definition. Different prompts, a chat template or
    none, change the figures much: give both models the same.

    Shapes: P prompts (a string is continued as it is, a `Prompt` through the chat template), P chosen and P rejected
    responses -> `PreferenceRanking`. Pairs that do not fit the context are an error, so that none is left out unseen.

    Source: Chen et al. 2024. Paper 76.

    Raises:
        RivalsError: numbers of texts that differ, a pair that does not fit a model's context, and as
            `preference_ranking`.
    """
    from rivals.models.language.likelihood import response_log_probabilities

    if not len(prompts) == len(chosen) == len(rejected):
        raise RivalsError(
            f"there are {len(prompts)} prompts, {len(chosen)} chosen and {len(rejected)} rejected responses; give as many"
        )

    def read(one: LocalLanguageModel) -> tuple[Floats, NDArray[np.int64]]:
        found = response_log_probabilities(one, [*prompts, *prompts], [*chosen, *rejected])
        sums, lengths = found.sums.reshape(2, -1).T, found.lengths.reshape(2, -1).T
        long = np.isnan(sums).any(1)
        if long.any():
            raise RivalsError(
                f"{int(long.sum())} pairs do not fit the model's context, the first is {int(long.argmax())}"
            )
        return sums, lengths

    sums, lengths = read(model)
    ref = sums if reference is None else read(reference)[0]
    return preference_ranking(sums, ref, lengths, vote_share=vote_share, beta=beta)


def _pairs(values: ArrayLike, name: str, shape: tuple[int, ...] | None) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 2 or given.shape[1:] != (2,) or (shape is not None and given.shape != shape):
        wanted = "[pairs, 2]" if shape is None else str(list(shape))
        raise RivalsError(f"{name} has shape {list(given.shape)}; it must be {wanted}")
    if not np.isfinite(given).all():
        raise RivalsError(f"{name} must be finite; row {int((~np.isfinite(given)).any(1).argmax())} is not")
    return given


def _better_first(relevance: ArrayLike | None, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the columns with the better response first [P, 2], and which pairs are ties."""
    if relevance is None:
        return np.broadcast_to(np.arange(2), shape).copy(), np.zeros(shape[0], dtype=bool)
    grade = _pairs(relevance, "relevance", shape)
    return np.argsort(-grade, axis=1, kind="stable"), grade[:, 0] == grade[:, 1]


def _votes(share: ArrayLike, count: int) -> Floats:
    given = np.asarray(share, dtype=np.float64)
    if given.shape not in ((), (count,)):
        raise RivalsError(f"vote_share has shape {list(given.shape)}; it must be a number or [{count}]")
    return np.broadcast_to(given, (count,)).copy()
