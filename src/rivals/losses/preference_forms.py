"""The options of a preference loss as one value, and the table of the losses the field has names for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import _preference_structures as structures
from rivals.losses._common import (
    check_at_least_zero,
    check_choice,
    check_finite,
    check_positive,
    check_shape,
    reduce_lists,
)
from rivals.losses._pair_terms import Terms
from rivals.losses._preference_scores import (
    Responses,
    Score,
    check_lengths,
    check_not_above_zero,
    check_responses,
    score_responses,
)
from rivals.losses._preference_structures import PairWeight, Reference

__all__ = ["PREFERENCE_LOSSES", "PreferenceForm"]

Structure = Literal[
    "pairs",
    "joint_pairs",
    "best_vs_rest",
    "suffixes",
    "list_mle",
    "softmax",
    "pointwise",
    "negatives_only",
    "sorted_margins",
    "sorted_scores",
]
Link = Literal[
    "logistic",
    "robust",
    "hinge",
    "perceptron",
    "square",
    "exponential",
    "sigmoid",
    "identity",
    "exo",
    "apo_down",
    "nca",
    "squared_error",
    "cross_entropy",
]
Constraint = Literal["none", "detach", "boundary"]
Ties = Literal["scores", "order", "skip"]
NllReduction = Literal["example", "token", "sum"]
PreferenceReduction = Literal["mean", "sum", "none", "list_mean", "sum_per_list"]

_MARGIN_LINKS = ("logistic", "robust", "hinge", "perceptron", "square", "exponential", "sigmoid", "identity", "exo")
_LINKS: dict[str, tuple[str, ...]] = {
    "pairs": (*_MARGIN_LINKS, "apo_down"),
    "pointwise": (*_MARGIN_LINKS, "nca", "squared_error", "cross_entropy"),
    "negatives_only": ("logistic", "identity"),
    "sorted_margins": _MARGIN_LINKS,
    "sorted_scores": _MARGIN_LINKS,
}
_STRUCTURES = {
    "pairs": structures.pairs,
    "joint_pairs": structures.joint_pairs,
    "best_vs_rest": structures.best_vs_rest,
    "suffixes": structures.suffixes,
    "list_mle": structures.list_mle,
    "softmax": structures.softmax,
    "pointwise": structures.pointwise,
    "negatives_only": structures.negatives_only,
    "sorted_margins": structures.sorted_margins,
    "sorted_scores": structures.sorted_scores,
}


@dataclass(frozen=True, kw_only=True)
class PreferenceForm:
    """The options of `preference_loss` as one value, which can be called with the tensors.

    Every field is the argument of that name of `preference_loss`; `dataclasses.replace(form, beta=2.5)` changes one.

    Source: the table of the preference losses. Papers 57, 59, 76, 95, 103, 105, 106, 110, 112, 113.

    Raises RivalsError: options that do not go together or lie out of range.

    >>> import torch
    >>> PREFERENCE_LOSSES["simpo"](torch.tensor([[-4.0, -6.0]]), torch.tensor([[1, 0]]), lengths=torch.full((1, 2), 2))
    tensor(0.2014)
    """

    score: Score = "log_ratio"
    structure: Structure = "pairs"
    link: Link = "logistic"
    beta: float = 0.1
    margin: float = 0.0
    label_smoothing: float = 0.0
    ref_weight: float = 1.0
    length_exponent: float = 1.0
    reference_point: float | Literal["batch_mean"] = 0.0
    positive_weight: float = 1.0
    negative_weight: float = 1.0
    normalize_labels: bool = True
    ties: Ties = "scores"
    pair_weight: Literal["dcg", "reward_gap", "gate"] | PairWeight | None = None
    gate_margin: float = 0.0
    gate_temperature: float = 1.0
    constraint: Constraint = "none"
    boundary: float = 0.2
    epsilon: float = 0.0
    preference_weight: float = 1.0
    nll_weight: float = 0.0
    nll_reduction: NllReduction = "example"
    nll_grows_with_list: bool = False
    reduction: PreferenceReduction = "mean"

    def __post_init__(self) -> None:
        choices = {
            "score": Score,
            "structure": Structure,
            "link": Link,
            "constraint": Constraint,
            "ties": Ties,
            "nll_reduction": NllReduction,
            "reduction": PreferenceReduction,
        }
        for name, kind in choices.items():
            check_choice(getattr(self, name), get_args(kind), name)
        for name in ("beta", "gate_temperature"):
            check_positive(getattr(self, name), name)
        for name in ("boundary", "epsilon", "nll_weight", "preference_weight", "positive_weight", "negative_weight"):
            check_at_least_zero(getattr(self, name), name)
        for name in ("margin", "ref_weight", "length_exponent", "gate_margin"):
            if not math.isfinite(getattr(self, name)):
                raise RivalsError(f"{name} must be a finite number; got {getattr(self, name)!r}")
        if self.reference_point != "batch_mean" and not math.isfinite(self.reference_point):
            raise RivalsError(f'reference_point must be a finite number or "batch_mean"; got {self.reference_point!r}')
        highest = 0.5 if self.link == "robust" else 1.0
        if not 0 <= self.label_smoothing < highest:
            raise RivalsError(
                f"label_smoothing must lie in 0..{highest} ({highest} excluded) for link={self.link!r}; "
                f"got {self.label_smoothing!r}"
            )
        allowed = _LINKS.get(self.structure, ("logistic",))
        if self.link not in allowed:
            raise RivalsError(
                f"structure={self.structure!r} takes link {', '.join(map(repr, allowed))}; got {self.link!r}"
            )
        if self.pair_weight is not None:
            if not callable(self.pair_weight):
                check_choice(self.pair_weight, ("dcg", "reward_gap", "gate"), "pair_weight")
            if self.structure != "pairs":
                raise RivalsError(f"pair_weight needs structure='pairs'; got {self.structure!r}")
        if self.constraint != "none" and self.structure not in ("pairs", "joint_pairs", "best_vs_rest", "suffixes"):
            raise RivalsError(f"constraint={self.constraint!r} does not apply to structure={self.structure!r}")
        if self.constraint != "none" and self.link == "apo_down":
            raise RivalsError("link='apo_down' takes no constraint")
        if self._is_sorted and self.reduction == "none" and self.nll_weight > 0:
            raise RivalsError(f"structure={self.structure!r} has no values per list to add nll_weight to")

    def __call__(
        self,
        logps: Tensor,
        relevance: Tensor,
        ref_logps: Tensor | None = None,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        reference_point: Tensor | None = None,
        nll_logps: Tensor | None = None,
        nll_lengths: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; the arguments are those of `preference_loss`."""
        own_nll = self.nll_weight > 0 and nll_logps is None
        if own_nll and self.score == "manual":
            raise RivalsError("nll_weight with score='manual' needs nll_logps: scores are no log-probabilities")
        responses = check_responses(logps, relevance, ref_logps, lengths, mask, score=self.score, log_probs=own_nll)
        total, count = self.terms(responses, reference_point)
        if self.preference_weight != 1:
            total = total * self.preference_weight
        if self.nll_weight == 0:
            return self._reduce(total, count)
        nll, there = self._negative_log_likelihood(responses, nll_logps, nll_lengths)
        if self.reduction == "none":
            return total + self.nll_weight * nll
        reduced = nll.sum() if self.reduction == "sum" else nll.sum() / there.sum().clamp(min=1)
        return self._reduce(total, count) + self.nll_weight * reduced

    def scores(self, responses: Responses) -> Tensor:
        """Return the scores [..., R] of checked responses."""
        return score_responses(
            responses,
            score=self.score,
            beta=self.beta,
            ref_weight=self.ref_weight,
            length_exponent=self.length_exponent,
        )

    def terms(self, responses: Responses, reference_point: Tensor | None = None) -> Terms:
        """Return the comparison's sums and numbers of terms, without weight and without likelihood."""
        reference: Reference = self.reference_point
        if reference_point is not None:
            check_shape(reference_point, (), "reference_point", responses.logps.device)
            reference = reference_point.detach().to(responses.logps.dtype)
            check_finite(reference, "reference_point")
        total, count = _STRUCTURES[self.structure](self, self.scores(responses), responses, reference)
        return Terms(total * self.beta if self.score == "log_odds" else total, count)

    @property
    def _is_sorted(self) -> bool:
        return self.structure in ("sorted_margins", "sorted_scores")

    def _reduce(self, total: Tensor, count: Tensor) -> Tensor:
        if self.reduction == "sum_per_list":
            return total.sum() / (count > 0).sum().clamp(min=1)
        return reduce_lists(total, count, self.reduction)

    def _negative_log_likelihood(
        self, responses: Responses, logps: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the likelihood term of every list [...], such that "mean" is its mean, and the lists that have one."""
        there = responses.mask.any(-1)
        shape, dtype, device = tuple(there.shape), responses.logps.dtype, responses.logps.device
        if logps is None:
            best = responses.relevance.masked_fill(~responses.mask, -math.inf).argmax(-1, keepdim=True)
            logps = responses.logps.gather(-1, best).squeeze(-1)
            if lengths is None and responses.lengths is not None:
                lengths = responses.lengths.gather(-1, best).squeeze(-1)
        else:
            check_shape(logps, shape, "nll_logps", device)
            logps = logps.to(dtype).masked_fill(~there, 0.0)
            check_finite(logps, "nll_logps")
            check_not_above_zero(logps, "nll_logps")
        nll = -logps
        if self.nll_reduction != "sum":
            if lengths is None:
                raise RivalsError(
                    f"nll_reduction={self.nll_reduction!r} needs the numbers of target tokens: lengths for the best "
                    "response, nll_lengths for nll_logps"
                )
            lengths = check_lengths(lengths, nll, there, "nll_lengths")
            if self.nll_reduction == "token":
                lengths = lengths.masked_fill(~there, 0.0).sum() / there.sum().clamp(min=1)
            nll = nll / lengths
        if self.nll_grows_with_list:
            nll = nll * (responses.mask.sum(-1) - 1) ** 2
        return nll.masked_fill(~there, 0.0), there


_MEAN_LOG_PROB = PreferenceForm(score="mean_log_prob", beta=1.0)
_PER_RESPONSE = PreferenceForm(structure="pointwise", reduction="sum_per_list")
_LIPO = PreferenceForm(beta=0.05, reduction="sum_per_list")
_AFT = replace(_MEAN_LOG_PROB, structure="joint_pairs", nll_weight=1.0)

PREFERENCE_LOSSES: dict[str, PreferenceForm] = {
    # a winner and a loser, against a reference model
    "dpo": PreferenceForm(),
    "cdpo": PreferenceForm(label_smoothing=0.1),  # TRL's default smoothing is 0, which is dpo
    "robust_dpo": PreferenceForm(link="robust", label_smoothing=0.1),
    "step_dpo": PreferenceForm(),  # log-probabilities of the step alone: mask the shared prefix
    "ipo": PreferenceForm(link="square"),
    "ipo_mean": PreferenceForm(score="mean_log_ratio", link="square"),  # as TRL runs it
    "slic_norm": PreferenceForm(link="hinge"),
    "rpo": PreferenceForm(nll_weight=1.0),  # iterative reasoning preference optimisation (IRPO)
    "exo": PreferenceForm(link="exo", label_smoothing=1e-3),
    "apo_zero": replace(_PER_RESPONSE, link="sigmoid"),
    "apo_down": PreferenceForm(link="apo_down"),
    "sppo": replace(_PER_RESPONSE, link="square"),
    "nca": replace(_PER_RESPONSE, link="nca"),
    "bco": replace(_PER_RESPONSE, reference_point="batch_mean"),
    "aot": PreferenceForm(structure="sorted_margins"),
    "aot_unpaired": PreferenceForm(structure="sorted_scores"),
    # a winner and a loser, without one
    "cpo": PreferenceForm(score="log_prob", nll_weight=1.0),
    "slic_hf": PreferenceForm(score="log_prob", link="hinge", beta=1.0, nll_weight=1.0),
    "simpo": PreferenceForm(score="mean_log_prob", beta=2.0, margin=0.5),
    "orpo": PreferenceForm(score="log_odds", nll_weight=1.0),
    # several responses
    "rrhf": replace(_MEAN_LOG_PROB, link="perceptron", reduction="sum_per_list", nll_weight=1.0),
    "pro": replace(
        _MEAN_LOG_PROB,
        structure="suffixes",
        epsilon=1e-10,
        nll_weight=0.05,
        nll_reduction="sum",
        nll_grows_with_list=True,
    ),
    "aft": _AFT,
    "aft_detached": replace(_AFT, constraint="detach"),
    "aft_boundary": replace(_AFT, constraint="boundary"),
    "lipo_logistic": _LIPO,
    "lipo_hinge": replace(_LIPO, link="hinge"),
    "lipo_lambda": replace(_LIPO, pair_weight="dcg"),
    "lipo_list_mle": replace(_LIPO, structure="list_mle"),
    "lipo_softmax": replace(_LIPO, structure="softmax"),
    "lipo_squared_error": replace(_LIPO, structure="pointwise", link="squared_error"),
    "lipo_cross_entropy": replace(_LIPO, structure="pointwise", link="cross_entropy"),
    # good or bad responses without a partner; negatives alone
    "kto": PreferenceForm(structure="pointwise", link="sigmoid"),
    "npo": PreferenceForm(structure="negatives_only"),
    "simnpo": PreferenceForm(structure="negatives_only", score="mean_log_prob", beta=2.5),
    "gradient_ascent": PreferenceForm(structure="negatives_only", score="log_prob", link="identity"),
}
"""The named preference losses with the defaults of their papers or of TRL; `dataclasses.replace` changes an option."""
