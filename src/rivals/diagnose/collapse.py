"""Has an embedding collapsed, and how far is it from separating its classes?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import hardest_triplets

_BLOCK = 1 << 20  # distances held at a time
_SMALL = 1e-3
_NEAR, _MOST = 0.05, 0.95


@dataclass(frozen=True)
class CollapseReport:
    """How far a batch of embeddings is spread.

    Args:
        mean_distance, diameter: mean and largest Euclidean distance of two rows. std: standard deviation of a
            dimension, averaged over dimensions. effective_rank: exp of the entropy of the singular values of the
            centred rows, from 1 (a line) to their width; 0 for a point. at_margin: the share of anchors whose
            batch-hard triplet loss is within 5 % of the margin, or None without labels and margin. collapsed: the
            mean distance is below a thousandth of the reference, or more than 95 % of the anchors are at the margin.
    """

    mean_distance: float
    diameter: float
    std: float
    effective_rank: float
    at_margin: float | None
    collapsed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        at_margin = "" if self.at_margin is None else f", {self.at_margin:.0%} of anchors at the margin"
        return (
            f"{'collapsed' if self.collapsed else 'not collapsed'}: mean distance {self.mean_distance:.4g}, diameter "
            f"{self.diameter:.4g}, deviation {self.std:.4g}, effective rank {self.effective_rank:.1f}{at_margin}"
        )


@dataclass(frozen=True)
class SeparationGap:
    """How far embeddings are from having every positive nearer than every negative by a margin.

    Args:
        gap: the largest batch-hard violation d_ap - d_an + margin, 0 if there is none. distance: gap / 2, the least
            that the worst of all pairwise distances must change for every triplet to hold. worst: its (anchor,
            positive, negative), or None without any triplet. per_anchor: the violation of every row, 0 for rows
            without triplet. separated: whether the gap is 0.
    """

    gap: float
    distance: float
    worst: tuple[int, int, int] | None
    per_anchor: tuple[float, ...]
    separated: bool

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.worst is None:
            return "no triplet: no row has both a row of its class and one of another"
        anchor, positive, negative = self.worst
        return (
            f"{'separated' if self.separated else 'not separated'}: gap {self.gap:.4g}, at least {self.distance:.4g} from "
            f"separated; worst is row {anchor} with {positive} (own class) and {negative} (another)"
        )


def collapse_report(
    embeddings: Tensor, labels: Tensor | None = None, *, margin: float | None = None, reference: float | None = None
) -> CollapseReport:
    """Say how far a batch of embeddings is spread, and whether it has collapsed to a point.

    Training on the hardest triplets can map everything to one point, where every violation, and so the loss, is exactly
    the margin: more likely the larger the batch and the smaller the width. Call it every few hundred steps.

    Args:
        embeddings: float[N, D], N >= 2. labels: int[N], with `margin`: also report the share of anchors at the margin.
        reference: the mean distance before training, say; 1 by default.

    Source: Xu et al. (2022), isometric approximation theorem, on network collapse; effective rank of Roy and Vetterli
    (2007). Paper 12. O(N^2 D), no N x N matrix.

    Raises RivalsError: fewer than two rows, NaN or infinite rows, labels without margin or margin without labels, a
    margin or reference that is not above 0.

    >>> report = collapse_report(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), margin=0.2)
    >>> report.collapsed, report.at_margin, report.mean_distance
    (True, 1.0, 0.0)
    """
    _check(embeddings)
    if (labels is None) != (margin is None):
        raise RivalsError("labels and margin must be given together, to count the anchors at the margin")
    for value, name in ((margin, "margin"), (reference, "reference")):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RivalsError(f"{name} must be a finite number above 0; got {value!r}")
    rows = embeddings.detach().double()
    centred = rows - rows.mean(0)
    total, diameter = 0.0, 0.0
    for block in centred.split(max(1, _BLOCK // len(rows))):
        distance = torch.cdist(block, centred)
        total, diameter = total + float(distance.sum()), max(diameter, float(distance.max()))
    mean = total / (len(rows) * (len(rows) - 1))
    spectrum = torch.linalg.svdvals(centred)
    share = spectrum[spectrum > 0] / spectrum.sum()
    at_margin = None
    if labels is not None and margin is not None:
        violation = _violations(rows, labels, margin)[1].clamp(min=0)
        at_margin = float(((violation - margin).abs() <= _NEAR * margin).double().mean()) if len(violation) else 0.0
    return CollapseReport(
        mean_distance=mean,
        diameter=diameter,
        std=float(centred.square().mean(0).sqrt().mean()),
        effective_rank=float((-(share * share.log()).sum()).exp()) if len(share) else 0.0,
        at_margin=at_margin,
        collapsed=mean < _SMALL * (reference or 1.0) or (at_margin or 0.0) > _MOST,
    )


def triplet_separation_gap(embeddings: Tensor, labels: Tensor, *, margin: float = 0.2) -> SeparationGap:
    """Measure how far embeddings are from separating their classes by a margin, in every triplet at once.

    The gap is the largest of all batch-hard triplet losses. Half of it is exactly the distance to the nearest
    symmetric table of pairwise distances in which every triplet holds: at the worst triplet two distances must
    together move by the gap, and taking half of it off all distances inside classes, adding half to all others, is
    enough. Driving the hardest triplet to 0 is driving that distance to 0.

    Args:
        embeddings: float[N, D], N >= 2. labels: int[N]. margin: at least 0.

    Source: Xu et al. (2022), who measure a Hausdorff-like distance to the separated embeddings; the exact value is that
    of the relaxation to dissimilarities (derived here). Paper 12.

    Raises RivalsError: fewer than two rows, NaN or infinite rows, labels of another shape, a negative margin.

    >>> gap = triplet_separation_gap(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1, 1]), margin=0.5)
    >>> gap.gap, gap.distance, gap.worst
    (2.5, 1.25, (2, 3, 1))
    """
    _check(embeddings)
    if not (math.isfinite(margin) and margin >= 0):
        raise RivalsError(f"margin must be a finite number of at least 0; got {margin!r}")
    triplets, violation = _violations(embeddings.detach().double(), labels, margin)
    violation = violation.clamp(min=0)
    per_anchor = torch.zeros(len(embeddings), dtype=violation.dtype, device=violation.device)
    per_anchor[triplets[0]] = violation
    worst = None
    if len(violation):
        place = int(violation.argmax())
        anchor, positive, negative = (int(rows[place]) for rows in triplets)
        worst = (anchor, positive, negative)
    gap = float(violation.max()) if len(violation) else 0.0
    return SeparationGap(gap, gap / 2, worst, tuple(per_anchor.tolist()), gap == 0)


def _violations(rows: Tensor, labels: Tensor, margin: float) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return the hardest triplets and d_ap - d_an + margin of each, distances taken exactly."""
    anchor, positive, negative = hardest_triplets(rows, labels)
    far, near = ((rows[anchor] - rows[other]).norm(dim=1) for other in (positive, negative))
    return (anchor, positive, negative), far - near + margin


def _check(embeddings: Tensor) -> None:
    if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point() or embeddings.ndim != 2:
        raise RivalsError("embeddings must be a floating-point tensor of shape [N, D]")
    if len(embeddings) < 2:
        raise RivalsError(f"embeddings must have at least two rows; got {len(embeddings)}")
    if not bool(torch.isfinite(embeddings).all()):
        raise RivalsError("embeddings must be finite; found NaN or infinity")
