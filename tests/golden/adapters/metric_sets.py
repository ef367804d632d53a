"""Adapters of whitening, prototypes, submodular sets, cluster labels, word pairs and cluster negatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pairwise_distance

from rivals.losses import (
    OnlineClusters,
    cluster_negatives_loss,
    facility_location_loss,
    graph_cut_loss,
    icnn_loss,
    icnn_score,
    log_det_loss,
    log_sum_exp_multilabel_loss,
    online_contrastive_loss,
    pair_contrastive_loss,
    proto_triplet_loss,
    submodular_snn_loss,
    submodular_supcon_loss,
    submodular_triplet_loss,
    whiten,
    whitened_mse_loss,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional


def whitening(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 15: views [V][N][D] whitened in recorded groups, and the first group of view 0 by itself."""
    params = case["params"]
    views = leaf(case["inputs"]["views"])
    size, eps = params["w_size"], params.get("eps", 0.0)
    loss = whitened_mse_loss(
        views,
        group_size=size,
        iterations=params.get("w_iter", 1),
        eps=eps,
        normalize=params.get("normalize", True),
        permutations=constant(params["permutations"], torch.int64),
    )
    first = params["permutations"][0][:size]
    output = {
        "loss": loss,
        "first_group": first,
        "whitened_first_group_view0": whiten(views.detach()[0, first], eps=eps),
    }
    return output, gradients(loss, {"views": views})


def class_separation(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 25: the ICNN score and loss, of points among themselves or against a target set; the proto-triplet."""
    inputs, params = case["inputs"], case["params"]
    if params["function"] == "proto_triplet":
        tensors = {name: leaf(inputs[name]) for name in ("queries", "prototypes")}
        classes = inputs.get("prototype_labels")
        loss = proto_triplet_loss(
            *tensors.values(),
            query_groups=constant(inputs["query_labels"], torch.int64),
            document_groups=constant(range(len(inputs["prototypes"])) if classes is None else classes, torch.int64),
            margin=params.get("margin", 0.5),
        )
        return loss, gradients(loss, tensors)
    tensors = {name: leaf(inputs[name]) for name in ("features", "target") if inputs.get(name) is not None}
    options: dict[str, Any] = {
        "targets": tensors.get("target"),
        "target_labels": optional(inputs.get("target_labels"), torch.int64),
        "k": params.get("k", 4),
        "neighbours": params.get("neighbours_kept"),
        "drop_nearest": params.get("drop_nearest", True),  # the reference always does
    }
    points = tensors["features"], constant(inputs["labels"], torch.int64)
    loss = icnn_loss(*points, **options)
    return {"score": icnn_score(*points, **options).detach(), "loss": loss}, gradients(loss, tensors)


SET_LOSSES: dict[str, Callable[..., Tensor]] = {
    "facility_location": facility_location_loss,
    "graph_cut": graph_cut_loss,
    "log_det": log_det_loss,
    "snn": submodular_snn_loss,
    "supcon": submodular_supcon_loss,
    "triplet": submodular_triplet_loss,
}


def submodular_sets(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 27: features [item][view] become rows view after view; plain products except where a kernel is named."""
    features, params = leaf(case["inputs"]["features"]), dict(case["params"])
    rows = features.transpose(0, 1).flatten(0, 1)
    labels = constant(case["inputs"]["labels"], torch.int64).repeat(features.shape[1])
    function = params.pop("function").removeprefix("submodular_").removeprefix("submod_")
    form, style = params.pop("form", None), params.setdefault("style", "code")
    if function == "graph_cut":  # the released code has no other information form than the ratio
        params["form"] = "log_ratio" if form is None or (form, style) == ("information", "code") else form
    elif function == "log_det":
        params["form"] = form or "correlation"
    if function in ("facility_location", "graph_cut"):
        kernel = params.get("kernel", "cosine")
        params["kernel"] = "cosine" if kernel == "cosSim" else kernel
    else:  # the released code takes the vectors as they come
        params = {name: value for name, value in params.items() if name != "lam"} | {"kernel": "dot"}
    if function == "triplet":
        params.pop("temperature", None)  # it cancels
    loss = SET_LOSSES[function](rows, labels, **params)
    return loss, gradients(loss, {"features": features})


def multilabel(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 71: scores against multi-hot targets; an unknown label is one that is not there."""
    inputs, params = case["inputs"], dict(case["params"])
    scores = leaf(inputs["scores"])
    targets = constant([[math.nan if value is None else value for value in row] for row in inputs["targets"]])
    mask = optional(inputs.get("mask"), torch.bool)
    known = ~targets.isnan() if mask is None else mask & ~targets.isnan()
    loss = log_sum_exp_multilabel_loss(scores, targets.nan_to_num(), known, **params)
    return loss, gradients(loss, {"scores": scores})


def word_pairs(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 75: pairs of an acoustic and a phonetic vector; all of them, or the batch-hard ones summed."""
    inputs, params = case["inputs"], dict(case["params"])
    tensors = {name: leaf(inputs[name]) for name in ("acoustic", "phonetic")}
    function = {"contrastive": pair_contrastive_loss, "online": online_contrastive_loss}[params.pop("variant")]
    loss = function(-pairwise_distance(*tensors.values()), constant(inputs["same_word"]), **params)
    return loss, gradients(loss, tensors)


def cluster_negatives(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 85: one centroid update by z1, then hard negatives, false negatives and the loss."""
    inputs, params = case["inputs"], dict(case["params"])
    tensors = {name: leaf(inputs[name]) for name in ("z1", "z2")}
    centroids = constant(inputs["centroids"])
    rule = params.pop("update")
    clusters = OnlineClusters(
        centroids.shape[1],
        num_clusters=len(centroids),
        rate=params.pop("lr"),
        update="sum" if rule == "kmeans" else rule,
    ).double()
    clusters.start(centroids)
    view = clusters.step(tensors["z1"], tensors["z2"])
    assert view is not None
    loss = cluster_negatives_loss(*tensors.values(), **view._asdict(), **params)
    output = {
        "loss": loss,
        "updated_centroids": clusters.centroids,
        "hard_negative_cluster": clusters.ranked(tensors["z1"]),
        "false_negative_mask": view.false_negatives.int(),
    }
    return output, gradients(loss, tensors)


ADAPTERS: dict[int, Adapter] = {
    15: whitening,
    25: class_separation,
    27: submodular_sets,
    71: multilabel,
    75: word_pairs,
    85: cluster_negatives,
}
