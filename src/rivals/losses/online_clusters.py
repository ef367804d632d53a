"""Negatives from clusters learnt along the way: second-nearest centroids as negatives, cluster mates held in a band."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_mask,
    check_positive,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import unit_rows
from rivals.losses.contrastive import in_batch_info_nce_loss

__all__ = [
    "ClusterView",
    "OnlineClusters",
    "bidirectional_margin_loss",
    "cluster_negatives_loss",
    "update_centroids",
]

Update: TypeAlias = Literal["momentum", "adamw", "sum", "mean"]


def bidirectional_margin_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    suspects: Tensor,
    alpha: float = 0.0,
    beta: float = 0.3,
    over: Literal["all", "suspects"] = "all",
    reduction: Reduction = "mean",
) -> Tensor:
    """Keeps suspected false negatives in a band below the positive: neither level with it nor far away.

    Formula:
        Delta_j = s_j - (mean score of the list's positives) at suspects that are no positives, else 0;
        L = mean over all candidates of max(0, Delta_j + alpha) + max(0, -Delta_j - beta), so that nothing is paid for
        -beta <= Delta <= -alpha. over="all" divides by all candidates, each that is no suspect paying alpha;
        over="suspects" takes the suspects alone. A list without a positive is left out.

    Shapes:
        scores float[..., C] (cosines at the default beta), relevance [..., C] >= 0, mask bool[..., C], suspects
        bool[..., C] -> scalar, or float[...] with reduction="none".

    When to use:
        Beside a contrastive loss, with in-batch candidates that are probably like the query (`OnlineClusters`).

    Relations:
        alpha = 0, beta = infinity would be the hinge of the suspects against the positive alone.

    Source:
        Deng et al. (2023), ClusterNS, bidirectional margin loss; reference code `models.py`. Paper 85. The mean over
        all pairs with its constant follows the code.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask or suspects, negative or NaN
        relevance at a candidate that is there, alpha < 0, beta < alpha, an unknown over or reduction.

    Example:
        >>> import torch
        >>> scores, suspects = torch.tensor([[0.9, 0.7, 0.4, 1.0]]), torch.tensor([[False, True, True, True]])
        >>> band = {"suspects": suspects, "alpha": 0.1, "beta": 0.3, "reduction": "sum"}
        >>> bidirectional_margin_loss(scores, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), **band)  # 0.1 + 0 + 0.2 + 0.2
        tensor(0.5000)
    """
    _check_band(alpha, beta)
    check_choice(over, ("all", "suspects"), "over")
    lists = check_lists(scores, relevance, mask, None, reduction)
    check_mask(suspects, scores, "suspects")
    positive = (lists.relevance > 0) & lists.mask
    suspected = suspects & lists.mask & ~positive
    anchored = positive.any(-1, keepdim=True)
    level = lists.scores.masked_fill(~positive, 0.0).sum(-1, keepdim=True) / positive.sum(-1, keepdim=True).clamp(min=1)
    delta = (lists.scores - level).masked_fill(~suspected, 0.0)
    counted = (lists.mask if over == "all" else suspected) & anchored
    outside = (F.relu(delta + alpha) + F.relu(-delta - beta)).masked_fill(~counted, 0.0)
    return reduce_lists(outside.sum(-1), counted.sum(-1), reduction)


def cluster_negatives_loss(
    queries: Tensor,
    documents: Tensor,
    mask: Tensor | None = None,
    *,
    hard_negatives: Tensor | None = None,
    false_negatives: Tensor | None = None,
    temperature: float = 0.05,
    hard_negative_weight: float = 0.0,
    bml_weight: float = 1e-3,
    alpha: float = 0.0,
    beta: float = 0.3,
    remove_false_negatives: bool = False,
) -> Tensor:
    """InfoNCE over pairs with cluster centroids as further negatives, and cluster mates held in a band (ClusterNS).

    Formula:
        L = CE + bml_weight * `bidirectional_margin_loss` (over all B^2 cosines, suspects = false_negatives).
        CE: cross entropy of row i with target i over [cos(q_i, d_j) / t, cos(q_i, h_j) / t + w (i = j)], w =
        hard_negative_weight; every h_j is a negative of every query. False negatives stay in the denominator unless
        `remove_false_negatives`.

    Shapes:
        queries and documents float[B, D] (document i belongs to query i), mask bool[B] (pairs that are there),
        hard_negatives float[B, D] (no gradient flows into them), false_negatives bool[B, B] -> scalar. O(B^2 D).

    When to use:
        Sentence embeddings from two dropout views without labels, where a batch holds near-duplicates; the clusters
        come from `OnlineClusters`.

    Relations:
        Without hard and false negatives: `in_batch_info_nce_loss` (SimCSE).

    Source:
        Deng et al. (2023), ClusterNS; reference code `models.py`. Paper 85. Defaults are the published BERT-base
        setting. As in the code, hard negatives are shared by the batch.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, non-boolean masks, temperature <= 0, bml_weight < 0, a
        hard_negative_weight that is not finite, alpha < 0, beta < alpha, remove_false_negatives without any given.

    Example:
        >>> import torch
        >>> cluster_negatives_loss(torch.eye(3), torch.eye(3), temperature=1.0)
        tensor(0.5514)
        >>> mates = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
        >>> cluster_negatives_loss(torch.eye(3), torch.eye(3), temperature=1.0, false_negatives=mates, bml_weight=1.0)
        tensor(0.7070)
    """
    check_positive(temperature, "temperature")
    check_at_least_zero(bml_weight, "bml_weight")
    _check_band(alpha, beta)
    if not math.isfinite(hard_negative_weight):
        raise RivalsError(f"hard_negative_weight must be a finite number; got {hard_negative_weight!r}")
    if remove_false_negatives and false_negatives is None:
        raise RivalsError("remove_false_negatives needs false_negatives")
    queries, documents, hard, suspects = _checked_pairs(queries, documents, mask, hard_negatives, false_negatives)
    size = len(queries)
    if size == 0:
        return queries.sum() + documents.sum()
    candidates, weight, there = documents, None, None
    if hard is not None:
        candidates = torch.cat([documents, hard])
        if hard_negative_weight:
            weight = torch.ones(size, 2 * size, dtype=queries.dtype, device=queries.device)
            weight[:, size:].fill_diagonal_(math.exp(hard_negative_weight))
    if remove_false_negatives and suspects is not None:
        there = F.pad(~suspects, (0, len(candidates) - size), value=True)
    loss = in_batch_info_nce_loss(queries, candidates, mask=there, weight=weight, temperature=temperature)
    if suspects is None or bml_weight == 0:
        return loss
    cosine = _cosines(queries, documents)
    own = torch.eye(size, dtype=cosine.dtype, device=cosine.device)
    return loss + bml_weight * bidirectional_margin_loss(cosine, own, suspects=suspects, alpha=alpha, beta=beta)


def update_centroids(
    centroids: Tensor, vectors: Tensor, clusters: Tensor, *, rate: float = 1e-3, update: str = "momentum"
) -> Tensor:
    """Return centroids moved towards their members; a cluster without members stays where it is.

    "momentum": c <- rate * (SUM of the members) + (1 - rate) c; "sum": the sum of the members; "mean": their mean.
    Only directions matter later, so the sum is a mean that trusts large clusters more.

    Shapes: centroids float[K, D], vectors float[B, D], clusters int64[B] (each vector's) -> float[K, D].

    Source: Deng et al. (2023), ClusterNS, reference code `models.py` ("mean" is an extension). Paper 85.

    Raises:
        RivalsError: an unknown update, rate outside (0, 1], shapes that do not fit.

    >>> centroids, vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [4.0, 2.0]])
    >>> update_centroids(centroids, vectors, torch.tensor([0, 0]), rate=0.5)
    tensor([[3.5000, 1.0000],
            [0.0000, 1.0000]])
    """
    check_choice(update, ("momentum", "sum", "mean"), "update")
    _check_rate(rate)
    check_scores(centroids, "centroids", ndim=2)
    check_shape(vectors, (len(vectors), centroids.shape[1]), "vectors", centroids.device)
    check_shape(clusters, (len(vectors),), "clusters", centroids.device)
    count = torch.zeros_like(centroids[:, 0]).index_add(
        0, clusters, torch.ones_like(vectors[:, 0], dtype=centroids.dtype)
    )
    moved = torch.zeros_like(centroids).index_add(0, clusters, vectors.to(centroids.dtype))
    if update == "mean":
        moved = moved / count.clamp(min=1).unsqueeze(1)
    if update == "momentum":
        moved = rate * moved + (1.0 - rate) * centroids
    return moved.where(count.unsqueeze(1) > 0, centroids)


class ClusterView(NamedTuple):
    """What clusters say about a batch: a hard negative a row, float[B, D], and cluster mates, bool[B, B]."""

    hard_negatives: Tensor
    false_negatives: Tensor


class OnlineClusters(nn.Module):
    """k-means by cosine over the stream of training vectors: hard negatives and suspected false negatives of a batch.

    Args: dim; num_clusters k; rate of the update; update, "momentum" (a sum, as the released code), "adamw" (one AdamW
    step, without decay, on the mean squared distance to the nearest centroid), "sum" or "mean"; start_cosine, the mean
    cosine of the two views' matrix below which clustering starts; defer, whether a first batch smaller than k is waited
    out (else it raises). `step` does what a training step needs; the parts are public too. No gradient flows into
    centroids; cosines are computed in float32 or better. O(B k D).

    Source: Deng et al. (2023), ClusterNS, reference code `models.py`. Paper 85.

    Raises:
        RivalsError: num_clusters < 2, rate outside (0, 1], an unknown update, a first batch smaller than num_clusters,
        use before the clusters have started, shapes that do not fit.

    >>> clusters = OnlineClusters(2, num_clusters=2, rate=0.5)
    >>> clusters.start(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> view = clusters.step(torch.tensor([[3.0, 1.0], [2.0, 0.5], [0.0, 1.0]]), torch.eye(3, 2))
    >>> view.false_negatives.sum(1).tolist(), view.hard_negatives.argmax(1).tolist()
    ([1, 1, 0], [1, 1, 0])
    """

    centroids: Tensor
    started: Tensor
    steps: Tensor
    first_moment: Tensor
    second_moment: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_clusters: int = 128,
        rate: float = 1e-3,
        update: Update = "momentum",
        start_cosine: float = 0.4,
        defer: bool = False,
    ) -> None:
        super().__init__()
        check_choice(update, get_args(Update), "update")
        _check_rate(rate)
        if num_clusters < 2:
            raise RivalsError(f"num_clusters must be at least 2, to have a second nearest; got {num_clusters!r}")
        self.rate, self.update_rule, self.start_cosine, self.defer = rate, update, start_cosine, defer
        self.register_buffer("centroids", torch.zeros(num_clusters, dim))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("steps", torch.tensor(0))
        if update == "adamw":
            self.register_buffer("first_moment", torch.zeros(num_clusters, dim))
            self.register_buffer("second_moment", torch.zeros(num_clusters, dim))

    @torch.no_grad()
    def start(self, centroids: Tensor) -> None:
        """Begin with these centroids float[k, D]."""
        check_shape(centroids, tuple(self.centroids.shape), "centroids", self.centroids.device)
        self.centroids.copy_(centroids)
        self.started.fill_(True)

    @torch.no_grad()
    def start_from(self, vectors: Tensor, cosine: Tensor, *, generator: torch.Generator) -> None:
        """Begin with k rows of a batch: the first at random, each next the row of least cosine[B, B] to the last."""
        size, clusters = len(vectors), len(self.centroids)
        if clusters > size:
            raise RivalsError(f"{clusters} clusters need a first batch of at least as many rows; got {size}")
        check_shape(cosine, (size, size), "cosine", vectors.device)
        left = cosine.detach().clone()
        chosen = [int(torch.randint(size, (1,), generator=generator, device=generator.device))]
        while len(chosen) < clusters:
            left[:, chosen[-1]] = torch.inf
            chosen.append(int(left[chosen[-1]].argmin()))
        self.start(vectors[chosen])

    def cosines(self, vectors: Tensor) -> Tensor:
        """Return the cosines of vectors[B, D] with the centroids: [B, k], without gradient."""
        if not bool(self.started):
            raise RivalsError("the clusters have not started; call start() or step() until a batch starts them")
        check_shape(vectors, (len(vectors), self.centroids.shape[1]), "vectors", self.centroids.device)
        with torch.no_grad():
            return _cosines(vectors, self.centroids)

    def assign(self, vectors: Tensor) -> Tensor:
        """Return the cluster of every vector: int64[B]."""
        return self.cosines(vectors).argmax(1)

    @torch.no_grad()
    def update(self, vectors: Tensor) -> None:
        """Move the centroids towards the vectors[B, D] assigned to them."""
        clusters = self.assign(vectors)
        vectors = vectors.detach().to(self.centroids.dtype)
        self.steps += 1
        if self.update_rule == "adamw":
            self._adamw(vectors, clusters)
        else:
            moved = update_centroids(self.centroids, vectors, clusters, rate=self.rate, update=self.update_rule)
            self.centroids.copy_(moved)

    def ranked(self, vectors: Tensor, *, rank: int = 2) -> Tensor:
        """Return the cluster of the rank-th highest cosine of every vector: int64[B]."""
        if not 1 <= rank <= len(self.centroids):
            raise RivalsError(f"rank must lie in 1..{len(self.centroids)}, the number of clusters; got {rank!r}")
        return self.cosines(vectors).topk(rank, dim=1).indices[:, -1]

    def hard_negatives(self, vectors: Tensor, *, rank: int = 2) -> Tensor:
        """Return the centroid of the rank-th highest cosine of every vector: float[B, D], without gradient."""
        return self.centroids[self.ranked(vectors, rank=rank)].detach()

    def false_negatives(self, vectors: Tensor) -> Tensor:
        """Return which rows of the batch share a cluster with a row: bool[B, B], False on the diagonal."""
        clusters = self.assign(vectors)
        return (clusters.unsqueeze(1) == clusters).fill_diagonal_(False)

    @torch.no_grad()
    def step(
        self, queries: Tensor, documents: Tensor, *, generator: torch.Generator | None = None
    ) -> ClusterView | None:
        """Update with queries[B, D] and return what the updated clusters say about them; None while not started.

        Until then the mean cosine of queries and documents decides whether this batch starts the clusters (which needs
        a generator); the step itself then still goes without them.
        """
        if bool(self.started):
            self.update(queries)
            return ClusterView(self.hard_negatives(queries), self.false_negatives(queries))
        cosine = _cosines(queries, documents)
        waits = self.defer and len(queries) < len(self.centroids)
        if len(queries) and not waits and float(cosine.mean()) <= self.start_cosine:
            if generator is None:
                raise RivalsError("the first centroid is drawn at random; give generator=torch.Generator()")
            self.start_from(queries, cosine, generator=generator)
        return None

    def _adamw(self, vectors: Tensor, clusters: Tensor) -> None:
        pull = (self.centroids[clusters] - vectors) * (2.0 / max(vectors.numel(), 1))
        gradient = torch.zeros_like(self.centroids).index_add(0, clusters, pull)
        self.first_moment.lerp_(gradient, 1 - 0.9)
        self.second_moment.lerp_(gradient.square(), 1 - 0.999)
        steps = int(self.steps)
        size = (self.second_moment / (1 - 0.999**steps)).sqrt() + 1e-6
        self.centroids -= self.rate * self.first_moment / (1 - 0.9**steps) / size


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    dtype = torch.promote_types(compute_dtype(left), compute_dtype(right))
    with torch.autocast(left.device.type, enabled=False):
        return unit_rows(left.to(dtype)) @ unit_rows(right.to(dtype)).T


def _check_band(alpha: float, beta: float) -> None:
    check_at_least_zero(alpha, "alpha")
    if not (math.isfinite(beta) and beta >= alpha):
        raise RivalsError(f"beta must be a finite number of at least alpha, {alpha:g}; got {beta!r}")


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and 0 < rate <= 1):
        raise RivalsError(f"rate must lie in (0, 1]; got {rate!r}")


def _checked_pairs(
    queries: Tensor,
    documents: Tensor,
    mask: Tensor | None,
    hard_negatives: Tensor | None,
    false_negatives: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the pairs that are there in the dtype to compute in, with their centroids and cluster mates."""
    check_scores(queries, "queries", ndim=2)
    check_scores(documents, "documents", ndim=2)
    check_shape(documents, tuple(queries.shape), "documents", queries.device)
    there = torch.ones(len(queries), dtype=torch.bool, device=queries.device) if mask is None else mask
    check_shape(there, (len(queries),), "mask", queries.device)
    if there.dtype != torch.bool:
        raise RivalsError(f"mask must be boolean (True = the pair is there); got {there.dtype}")
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
    if hard_negatives is not None:
        check_shape(hard_negatives, tuple(queries.shape), "hard_negatives", queries.device)
        hard_negatives = hard_negatives.detach()[there].to(dtype)
    if false_negatives is not None:
        check_mask(false_negatives, queries[:, :1].expand(-1, len(queries)), "false_negatives")
        false_negatives = (false_negatives[there][:, there]).clone().fill_diagonal_(False)
    return queries[there].to(dtype), documents[there].to(dtype), hard_negatives, false_negatives
