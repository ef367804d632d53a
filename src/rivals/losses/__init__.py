"""Losses: pure functions of scores (or of embeddings), one family a file.

The ranking form is the common one: `some_loss(scores, relevance, mask=None, *, weight=None, reduction="mean", ...)`
with tensors [..., C], the last dimension the candidates of one query and `mask` False where there is none. `relevance
> 0` marks a positive. `weight[..., C]` multiplies a candidate's contribution; to weight whole lists, use
`reduction="none"`. Half-precision inputs are computed in float32. NaN scores of real candidates give a NaN loss;
padding may hold anything.

Other forms: `(scores, targets, mask)` where targets may have any sign (a teacher's scores); `(queries, documents,
relevance, mask)` and `(embeddings, labels, mask)` where the loss needs the vectors; `(logits, labels, mask)` for classes.
Each family lists its public names in its own `__all__`; nothing else has to be told about a new loss.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rivals.losses import (
    adversarial,
    auc,
    auctions,
    bank,
    boosting,
    calibrated,
    candidates,
    class_weights,
    classification,
    cluster_labels,
    combine,
    confusion,
    continual,
    contrastive,
    counterfactual,
    curriculum,
    debiased,
    distillation,
    dual_head,
    graded_pairs,
    group_ordering,
    guidance,
    hardness,
    hinge,
    hybrid,
    lambdas,
    ldr,
    learned_link,
    listwise,
    lovasz,
    magnitude,
    metric,
    metric_distances,
    mining,
    momentum,
    multi_head,
    multilabel,
    negative_pairs,
    number_tokens,
    online_clusters,
    ordinal,
    overlap,
    pair_similarity,
    pairwise,
    partial_labels,
    perturbed,
    plackett_luce,
    policy_gradient,
    preference,
    preference_forms,
    preference_logic,
    preference_ranking,
    preference_weights,
    progressive,
    prototypes,
    proxies,
    pseudo_labels,
    ranklist,
    recommender,
    regression,
    relative,
    robust,
    robust_regression,
    self_critical,
    set_functions,
    smooth,
    sorting,
    spherical,
    spherical_output,
    submodular,
    submodular_pairs,
    survival,
    task_covariance,
    task_weights,
    token_contrast,
    token_likelihood,
    twins,
    unlearning,
    weighted_pairs,
    whitening,
    word_pairs,
    yes_no,
    yeti,
)
from rivals.losses.adversarial import *
from rivals.losses.auc import *
from rivals.losses.auctions import *
from rivals.losses.bank import *
from rivals.losses.boosting import *
from rivals.losses.calibrated import *
from rivals.losses.candidates import *
from rivals.losses.class_weights import *
from rivals.losses.classification import *
from rivals.losses.cluster_labels import *
from rivals.losses.combine import *
from rivals.losses.confusion import *
from rivals.losses.continual import *
from rivals.losses.contrastive import *
from rivals.losses.counterfactual import *
from rivals.losses.curriculum import *
from rivals.losses.debiased import *
from rivals.losses.distillation import *
from rivals.losses.dual_head import *
from rivals.losses.graded_pairs import *
from rivals.losses.group_ordering import *
from rivals.losses.guidance import *
from rivals.losses.hardness import *
from rivals.losses.hinge import *
from rivals.losses.hybrid import *
from rivals.losses.lambdas import *
from rivals.losses.ldr import *
from rivals.losses.learned_link import *
from rivals.losses.listwise import *
from rivals.losses.lovasz import *
from rivals.losses.magnitude import *
from rivals.losses.metric import *
from rivals.losses.metric_distances import *
from rivals.losses.mining import *
from rivals.losses.momentum import *
from rivals.losses.multi_head import *
from rivals.losses.multilabel import *
from rivals.losses.negative_pairs import *
from rivals.losses.number_tokens import *
from rivals.losses.online_clusters import *
from rivals.losses.ordinal import *
from rivals.losses.overlap import *
from rivals.losses.pair_similarity import *
from rivals.losses.pairwise import *
from rivals.losses.partial_labels import *
from rivals.losses.perturbed import *
from rivals.losses.plackett_luce import *
from rivals.losses.policy_gradient import *
from rivals.losses.preference import *
from rivals.losses.preference_forms import *
from rivals.losses.preference_logic import *
from rivals.losses.preference_ranking import *
from rivals.losses.preference_weights import *
from rivals.losses.progressive import *
from rivals.losses.prototypes import *
from rivals.losses.proxies import *
from rivals.losses.pseudo_labels import *
from rivals.losses.ranklist import *
from rivals.losses.recommender import *
from rivals.losses.regression import *
from rivals.losses.relative import *
from rivals.losses.robust import *
from rivals.losses.robust_regression import *
from rivals.losses.self_critical import *
from rivals.losses.set_functions import *
from rivals.losses.smooth import *
from rivals.losses.sorting import *
from rivals.losses.spherical import *
from rivals.losses.spherical_output import *
from rivals.losses.submodular import *
from rivals.losses.submodular_pairs import *
from rivals.losses.survival import *
from rivals.losses.task_covariance import *
from rivals.losses.task_weights import *
from rivals.losses.token_contrast import *
from rivals.losses.token_likelihood import *
from rivals.losses.twins import *
from rivals.losses.unlearning import *
from rivals.losses.weighted_pairs import *
from rivals.losses.whitening import *
from rivals.losses.word_pairs import *
from rivals.losses.yes_no import *
from rivals.losses.yeti import *

__all__ = ["LOSSES"]
__all__ += adversarial.__all__
__all__ += auc.__all__
__all__ += auctions.__all__
__all__ += bank.__all__
__all__ += boosting.__all__
__all__ += calibrated.__all__
__all__ += candidates.__all__
__all__ += class_weights.__all__
__all__ += classification.__all__
__all__ += cluster_labels.__all__
__all__ += combine.__all__
__all__ += confusion.__all__
__all__ += continual.__all__
__all__ += contrastive.__all__
__all__ += counterfactual.__all__
__all__ += curriculum.__all__
__all__ += debiased.__all__
__all__ += distillation.__all__
__all__ += dual_head.__all__
__all__ += graded_pairs.__all__
__all__ += group_ordering.__all__
__all__ += guidance.__all__
__all__ += hardness.__all__
__all__ += hinge.__all__
__all__ += hybrid.__all__
__all__ += lambdas.__all__
__all__ += ldr.__all__
__all__ += learned_link.__all__
__all__ += listwise.__all__
__all__ += lovasz.__all__
__all__ += magnitude.__all__
__all__ += metric.__all__
__all__ += metric_distances.__all__
__all__ += mining.__all__
__all__ += momentum.__all__
__all__ += multi_head.__all__
__all__ += multilabel.__all__
__all__ += negative_pairs.__all__
__all__ += number_tokens.__all__
__all__ += online_clusters.__all__
__all__ += ordinal.__all__
__all__ += overlap.__all__
__all__ += pair_similarity.__all__
__all__ += pairwise.__all__
__all__ += partial_labels.__all__
__all__ += perturbed.__all__
__all__ += plackett_luce.__all__
__all__ += policy_gradient.__all__
__all__ += preference.__all__
__all__ += preference_forms.__all__
__all__ += preference_logic.__all__
__all__ += preference_ranking.__all__
__all__ += preference_weights.__all__
__all__ += progressive.__all__
__all__ += prototypes.__all__
__all__ += proxies.__all__
__all__ += pseudo_labels.__all__
__all__ += ranklist.__all__
__all__ += recommender.__all__
__all__ += regression.__all__
__all__ += relative.__all__
__all__ += robust.__all__
__all__ += robust_regression.__all__
__all__ += self_critical.__all__
__all__ += set_functions.__all__
__all__ += smooth.__all__
__all__ += sorting.__all__
__all__ += spherical.__all__
__all__ += spherical_output.__all__
__all__ += submodular.__all__
__all__ += submodular_pairs.__all__
__all__ += survival.__all__
__all__ += task_covariance.__all__
__all__ += task_weights.__all__
__all__ += token_contrast.__all__
__all__ += token_likelihood.__all__
__all__ += twins.__all__
__all__ += unlearning.__all__
__all__ += weighted_pairs.__all__
__all__ += whitening.__all__
__all__ += word_pairs.__all__
__all__ += yes_no.__all__
__all__ += yeti.__all__

LOSSES: dict[str, Callable[..., Tensor]] = {
    name.removesuffix("_loss"): globals()[name] for name in sorted(__all__) if name.endswith("_loss")
}
"""Every loss by the name that configuration files and the command line use."""
