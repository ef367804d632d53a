"""Losses of episodes with few examples a class: prototypes as candidates, and the separation of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_reduction,
    check_rows,
    check_scores,
    check_shape,
)
from rivals.losses._distances import euclidean
from rivals.losses._pairs import check_assignment
from rivals.losses.pair_similarity import triplet_loss

__all__ = ["class_prototypes", "icnn_loss", "icnn_score", "proto_triplet_loss"]

_SOFT = 1e-6
"""Added to squared distances, as the reference does: a distance is at least 0.001."""
_TINY = 1e-7
"""Added to divisors, as the reference does."""


def class_prototypes(embeddings: Tensor, labels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean vector of every class and the classes, rising.

    Shapes: embeddings float[N, D], labels int[N], mask bool[N] -> float[C, D], int[C]. Half precision is computed and
    returned in float32.

    Source: Snell et al. (2017), prototypical networks, eq. 1; Mendez-Ruiz et al. (2023). Paper 25.

    Raises:
        RivalsError: shapes or dtypes that do not fit.

    >>> class_prototypes(torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([7, 2, 7]))
    (tensor([[5.],
            [2.]]), tensor([2, 7]))
    """
    rows = check_rows(embeddings, labels, mask)
    classes, place, count = rows.labels.unique(return_inverse=True, return_counts=True)
    total = rows.rows.new_zeros(len(classes), rows.rows.shape[1]).index_add(0, place, rows.rows)
    return total / count.unsqueeze(1), classes


def proto_triplet_loss(
    queries: Tensor,
    documents: Tensor,
    relevance: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    query_groups: Tensor | None = None,
    document_groups: Tensor | None = None,
    margin: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge between the distance to the own class's prototype and to the nearest other prototype.

    Formula:
        L = mean over queries of max(0, d(q, p+) - min over negatives n of d(q, n) + margin),
        d(u, v) = sqrt(||u - v||^2 + 1e-6); p+ is the query's positive, the farthest if there are several.

        A query without a positive or without a negative is left out.

    Shapes:
        queries float[Q, D], documents (the prototypes) float[C, D], relevance [Q, C] >= 0, mask bool[Q, C],
        query_groups int64[Q] and document_groups int64[C] (the labels, in place of relevance)
        -> scalar, or float[Q] with reduction="none". Without relevance and groups, document i is the positive of
        query i. O(Q C D).

    When to use:
        Few-shot episodes, beside cross entropy over the distances; any classifier by nearest centroid.

    Relations:
        `triplet_loss` with hard mining, over minus the distances to class means (`class_prototypes`).

    Source:
        Mendez-Ruiz et al. (2023), SuSana Distancia, proto-triplet loss; reference code `icnn_loss.py`. Paper 25.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance, a query
        group without a document, document groups that are all the same, margin < 0, an unknown reduction.

    Example:
        >>> import torch
        >>> queries, prototypes = torch.tensor([[0.0], [2.5]]), torch.tensor([[1.0], [3.0]])
        >>> groups = {"query_groups": torch.tensor([0, 0]), "document_groups": torch.tensor([0, 1])}
        >>> proto_triplet_loss(queries, prototypes, **groups, reduction="none")
        tensor([0.0000, 1.5000])
    """
    check_at_least_zero(margin, "margin")
    check_reduction(reduction)
    pairs = check_assignment(
        queries,
        documents,
        relevance=relevance,
        mask=mask,
        weight=None,
        positive_columns=None,
        query_groups=query_groups,
        document_groups=document_groups,
        same_group="positive",
    )
    if query_groups is not None and document_groups is not None:
        _check_classes(query_groups, document_groups)
    positive, there = pairs.dense()
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
    absent = ~there.any(1, keepdim=True), ~there.any(0).unsqueeze(1)
    distance = _soft_distances(
        queries.to(dtype).masked_fill(absent[0], 0.0), documents.to(dtype).masked_fill(absent[1], 0.0)
    )
    return triplet_loss(-distance, positive.to(dtype), there, margin=margin, mining="hard", reduction=reduction)


def icnn_score(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    target_labels: Tensor | None = None,
    k: int = 4,
    neighbours: int | None = None,
    drop_nearest: bool = False,
) -> Tensor:
    """Return how well the classes are apart, in (0, 1]: near neighbours of one class close, of other classes far.

    Every point looks at its `neighbours` nearest targets (k + 1 unless told); d_ij are their distances, rising, s_ij
    whether they share its class. With a_ij = d_ij / (distance to its nearest other-class neighbour), divided by the
    largest of the k nearest where that is above 1 (0 without an other-class neighbour), and e_ij = d_ij / (the largest
    d over all other-class neighbours):

        lam_same = 1 - mean over points of mean_{j <= k, s_ij} a_ij     (points with such a neighbour)
        lam_diff = mean over points of mean_{j <= k, not s_ij} e_ij     (1 if there is none at all)
        gamma = mean over points of the share of the k nearest that share the class
        score = ((lam_same + lam_diff) / 2 + gamma) / 2

    Shapes: embeddings float[N, D], labels int[N], mask bool[N]; targets float[M, D] and target_labels int[M], the
    points to look at (the embeddings themselves unless given; then the point itself never counts) -> scalar.
    drop_nearest leaves out every point's nearest target, as the reference does for separate targets too. With M <= k + 2
    k becomes M - 2 and gamma 1. A measure of embeddings with labels; its negative logarithm is `icnn_loss`.
    Unchanged by rotation and translation, and by scaling up to 1e-4. O(N M D).

    Source: Mendez-Ruiz et al. (2023), SuSana Distancia, eqs. of the ICNN loss; reference code `icnn_loss.py`. Paper 25.
    Of equal points the code drops any one, here the point itself. gamma and the choice of neighbours carry no gradient.

    Raises:
        RivalsError: fewer than 4 embeddings (without targets) or 3 targets, k or neighbours below 1, more neighbours
        than there are targets, targets without target_labels, shapes or dtypes that do not fit.

    >>> far_apart = torch.tensor([[0.0], [0.1], [0.2], [0.3], [50.0], [50.1], [50.2], [50.3]])
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> icnn_score(far_apart, labels, k=2), icnn_score(far_apart, torch.tensor([0, 1] * 4), k=2)
    (tensor(1.), tensor(0.3750))
    """
    rows = check_rows(embeddings, labels, mask)
    if targets is None and len(rows.rows) < 4:
        raise RivalsError(f"embeddings must have at least 4 rows to look at their neighbours; got {len(rows.rows)}")
    if len(rows.rows) == 0:
        raise RivalsError("embeddings must have at least one row that is there; the mask leaves none")
    return _score(rows.rows, rows.labels, targets, target_labels, k, neighbours, drop_nearest)


def icnn_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    target_labels: Tensor | None = None,
    k: int = 4,
    neighbours: int | None = None,
    drop_nearest: bool = False,
) -> Tensor:
    """Negative logarithm of the ICNN score: neighbours of the own class close, of other classes far.

    Formula:
        L = -log(score), with the score of `icnn_score`. One number a batch.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N], targets float[M, D], target_labels int[M] -> scalar.
        Fewer than 4 embeddings (without targets) are worth 0. O(N M D).

    When to use:
        Beside cross entropy in episodes of few examples a class: on the support, on queries against the support
        (`targets`), or on both with neighbours = shot + query.

    Relations:
        A smooth objective over the measure `icnn_score`; `proto_triplet_loss` looks at class means instead.

    Source:
        Mendez-Ruiz et al. (2023), SuSana Distancia, ICNN loss; reference code `icnn_loss.py`. Paper 25.

    Raises:
        RivalsError: fewer than 3 targets, k or neighbours below 1, more neighbours than there are targets, targets
        without target_labels, shapes or dtypes that do not fit, a non-boolean mask.

    Example:
        >>> import torch
        >>> embeddings, labels = torch.tensor([[0.0], [1.0], [2.5], [3.5]]), torch.tensor([0, 0, 1, 1])
        >>> icnn_loss(embeddings, labels, k=1)
        tensor(0.1431)
    """
    rows = check_rows(embeddings, labels, mask)
    if len(rows.rows) < (4 if targets is None else 1):
        return rows.rows.sum() * 0.0
    return -_score(rows.rows, rows.labels, targets, target_labels, k, neighbours, drop_nearest).log()


def _score(
    points: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    target_labels: Tensor | None,
    k: int,
    neighbours: int | None,
    drop_nearest: bool,
) -> Tensor:
    own = targets is None
    if targets is None or target_labels is None:
        if targets is not None or target_labels is not None:
            raise RivalsError("targets and target_labels must be given together")
        targets, target_labels = points, labels
    else:
        _check_targets(points, targets, target_labels)
    size = len(targets)
    if k < 1:
        raise RivalsError(f"k must be at least 1; got {k!r}")
    small = k + 2 >= size
    k = size - 2 if small else k
    kept = k + 1 if neighbours is None else neighbours
    drop = 0 if own else int(drop_nearest)
    if not 1 <= kept <= size - (1 if own else drop):
        raise RivalsError(f"neighbours must lie in 1..{size - (1 if own else drop)} with {size} targets; got {kept}")
    distance, same = _neighbours(points, labels, targets.to(points.dtype), target_labels, kept, drop, own)
    return _combine(distance, same, k, small)


def _neighbours(
    points: Tensor, labels: Tensor, targets: Tensor, target_labels: Tensor, kept: int, drop: int, own: bool
) -> tuple[Tensor, Tensor]:
    """Return the rising distances to the neighbours kept, and whether they share the point's label: [N, kept]."""
    distance = _soft_distances(points, targets)
    with torch.no_grad():
        ordering = distance
        if own:
            ordering = distance.masked_fill(torch.eye(len(points), dtype=torch.bool, device=points.device), torch.inf)
        chosen = ordering.topk(kept + drop, dim=1, largest=False).indices[:, drop:]
    return distance.gather(1, chosen), labels.unsqueeze(1) == target_labels[chosen]


def _combine(distance: Tensor, same: Tensor, k: int, small: bool) -> Tensor:
    enemy = distance.masked_fill(same, torch.inf).amin(1, keepdim=True)
    alone = same.all(1, keepdim=True)
    distance, same = distance[:, :k], same[:, :k]
    relative = (distance / (enemy.masked_fill(alone, 1.0) + _TINY)).masked_fill(alone, 0.0)
    relative = relative / relative.amax(1, keepdim=True).clamp(min=1.0)
    dtype = distance.dtype
    friends, enemies = same.sum(1, dtype=dtype), (~same).sum(1, dtype=dtype)
    closeness = relative.masked_fill(~same, 0.0).sum(1) / (friends + _TINY)
    lam_same = 1.0 - closeness.sum() / ((friends > 0).sum(dtype=dtype) + _TINY)
    apart = distance.masked_fill(same, 0.0)
    spread = (apart / (apart.amax() + _TINY)).sum(1) / (enemies + _TINY)
    lam_diff = spread.sum() / ((enemies > 0).sum(dtype=dtype) + _TINY) + same.all()
    gamma = 1.0 if small else friends.mean() / k
    return ((lam_same + lam_diff) / 2 + gamma) / 2


def _soft_distances(left: Tensor, right: Tensor) -> Tensor:
    return (euclidean(left, right).square() + _SOFT).sqrt()


def _check_targets(points: Tensor, targets: Tensor, target_labels: Tensor) -> None:
    check_scores(targets, "targets", ndim=2)
    check_shape(targets, (len(targets), points.shape[1]), "targets", points.device)
    check_shape(target_labels, (len(targets),), "target_labels", points.device)
    if len(targets) < 3:
        raise RivalsError(f"targets must have at least 3 rows to look at neighbours; got {len(targets)}")


def _check_classes(query_groups: Tensor, document_groups: Tensor) -> None:
    if query_groups.device.type != "cpu" or torch.compiler.is_compiling() or len(query_groups) == 0:
        return
    if len(document_groups.unique()) < 2:
        raise RivalsError("document_groups must name at least two classes; with one there is nothing to be apart from")
    missing = query_groups[~torch.isin(query_groups, document_groups)]
    if len(missing):
        raise RivalsError(f"query_groups names class {int(missing[0])}, which no document_groups has a prototype for")
