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
    calibrated,
    classification,
    combine,
    contrastive,
    distillation,
    lambdas,
    listwise,
    metric,
    multilabel,
    pairwise,
    preference,
    recommender,
    regression,
    smooth,
    survival,
)
from rivals.losses.calibrated import *
from rivals.losses.classification import *
from rivals.losses.combine import *
from rivals.losses.contrastive import *
from rivals.losses.distillation import *
from rivals.losses.lambdas import *
from rivals.losses.listwise import *
from rivals.losses.metric import *
from rivals.losses.multilabel import *
from rivals.losses.pairwise import *
from rivals.losses.preference import *
from rivals.losses.recommender import *
from rivals.losses.regression import *
from rivals.losses.smooth import *
from rivals.losses.survival import *

__all__ = ["LOSSES"]
__all__ += calibrated.__all__
__all__ += classification.__all__
__all__ += combine.__all__
__all__ += contrastive.__all__
__all__ += distillation.__all__
__all__ += lambdas.__all__
__all__ += listwise.__all__
__all__ += metric.__all__
__all__ += multilabel.__all__
__all__ += pairwise.__all__
__all__ += preference.__all__
__all__ += recommender.__all__
__all__ += regression.__all__
__all__ += smooth.__all__
__all__ += survival.__all__

LOSSES: dict[str, Callable[..., Tensor]] = {
    name.removesuffix("_loss"): globals()[name] for name in sorted(__all__) if name.endswith("_loss")
}
"""Every loss by the name that configuration files and the command line use."""
