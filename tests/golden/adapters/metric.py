"""Adapters of the papers on metric-learning losses over pairs, triplets and class weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    arcface_loss,
    circle_class_loss,
    circle_loss,
    class_cosines,
    cosface_loss,
    in_batch_circle_loss,
    in_batch_multi_similarity_loss,
    in_batch_triplet_loss,
    negative_pair_similarities,
    sphereface_loss,
    unified_negative_pair_loss,
    whisker_filter,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf


def triplets(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 12: batch-hard triplets (or another mining) on raw embeddings."""
    params = dict(case["params"])
    embeddings, labels = _labelled(case)
    loss = in_batch_triplet_loss(
        embeddings,
        labels,
        margin=params.get("margin", 0.2),
        mining=params.get("mining", "hard"),
        soft=params.get("soft", False),
        squared=params.get("squared", False),
        normalize=params.get("normalize", False),
        reduction=params.get("reduction", "mean"),
    )
    return loss, gradients(loss, {"embeddings": embeddings})


def unified_negative_pairs(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 14: the loss, the kept cosines of negative pairs in ascending order, and how many there are."""
    params = case["params"]
    embeddings, labels = _labelled(case)
    classes = leaf(case["inputs"]["class_weights"])
    whisker = params.get("whisker", 1.5)
    loss = unified_negative_pair_loss(
        embeddings,
        labels,
        classes=classes,
        head=params["head"],
        scale=float(params.get("s", 64.0)),
        margin=params.get("m", 0.5),
        whisker=whisker,
    )
    pairs = negative_pair_similarities(embeddings.detach(), labels)
    output = {
        "loss": loss,
        "kept_negative_similarities": pairs[whisker_filter(pairs, whisker=whisker)].sort().values,
        "n_negative_pairs": len(pairs),
    }
    return output, gradients(loss, {"embeddings": embeddings, "class_weights": classes})


def multi_similarity(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 41: the authors' code (unit rows, skipped anchors) or pytorch-metric-learning (raw rows, partial ones)."""
    params = case["params"]
    official = {"official": True, "library": False}[params["variant"]]
    mined = {"ms": True, "none": False}[params.get("mining", "ms")]
    embeddings, labels = _labelled(case)
    loss = in_batch_multi_similarity_loss(
        embeddings,
        labels,
        alpha=params.get("alpha", 2.0),
        beta=params.get("beta", 50.0),
        threshold=params.get("base", 0.5),
        epsilon=params.get("epsilon", 0.1) if mined else None,
        empty_anchor="skip" if official else "partial",
        normalize=not official,
    )
    return loss, gradients(loss, {"embeddings": embeddings})


def face_margins(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 44, the cases with params.class: margin softmax of pytorch-metric-learning; ArcFace's margin in degrees."""
    params, inputs = case["params"], case["inputs"]
    embeddings, classes = leaf(inputs["embeddings"]), leaf(inputs["class_weight"])
    labels = constant(inputs["targets"], torch.int64)
    cosines = class_cosines(embeddings, classes.T)
    kind = params["class"]
    if kind == "SphereFaceLoss":
        loss = sphereface_loss(
            cosines, labels, norms=embeddings.norm(dim=1), margin=params["margin"], scale=params["scale"]
        )
    else:
        function: Callable[..., Tensor] = {"ArcFaceLoss": arcface_loss, "CosFaceLoss": cosface_loss}[kind]
        margin = math.radians(params["margin"]) if kind == "ArcFaceLoss" else params["margin"]
        loss = function(cosines, labels, margin=margin, scale=params["scale"])
    return loss, gradients(loss, {"embeddings": embeddings, "class_weight": classes})


def circle(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 117: per anchor over labelled embeddings, one flat list of pairs, or class level."""
    params, inputs = case["params"], case["inputs"]
    options = {"margin": params["m"], "scale": float(params["gamma"])}
    variant = params["variant"]
    if variant == "per_anchor":
        embeddings, labels = _labelled(case)
        loss = in_batch_circle_loss(embeddings, labels, reduction="mean_positive", **options)
        return loss, gradients(loss, {"embeddings": embeddings})
    if variant == "flat":
        positives, negatives = leaf(inputs["sp"]), leaf(inputs["sn"])
        relevance = torch.cat([torch.ones_like(positives), torch.zeros_like(negatives)])
        loss = circle_loss(torch.cat([positives, negatives]), relevance, **options)
        return loss, gradients(loss, {"sp": positives, "sn": negatives})
    if variant == "class":
        similarities = leaf(inputs["similarities"])
        loss = circle_class_loss(similarities, constant(inputs["targets"], torch.int64), **options)
        return loss, gradients(loss, {"similarities": similarities})
    raise ValueError(f"variant {variant!r} is none of per_anchor, flat and class")


def _labelled(case: Case) -> tuple[Tensor, Tensor]:
    return leaf(case["inputs"]["embeddings"]), constant(case["inputs"]["labels"], torch.int64)


ADAPTERS: dict[int, Adapter] = {
    12: triplets,
    14: unified_negative_pairs,
    41: multi_similarity,
    117: circle,
}
