"""Adapters of the papers on classification and multi-label losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    asymmetric_loss,
    asymmetric_pseudo_labels,
    asymmetric_softmax_loss,
    boosted_pool,
    confusion_loss,
    cross_entropy_loss,
    dice_loss,
    entropy_maximisation_loss,
    hinge_rank_loss,
    large_loss_modification_loss,
    large_loss_selection,
    multiclass_hinge_loss,
    softmax_dice_loss,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional


def dice(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 18: one column is one set over all examples; several are a softmax with one Dice an example and class.

    The reference multiplies by the mask, which makes an absent example worth 0 but leaves it in the mean.
    """
    inputs, params = case["inputs"], case["params"]
    logits = leaf(inputs["logits"])
    targets, mask = constant(inputs["targets"]), optional(inputs.get("mask"), torch.bool)
    reduction = params.get("reduction", "mean")
    options = {
        "alpha": params.get("alpha", 0.0),
        "smooth": params.get("smooth", 1e-4),
        "squared": params.get("square_denominator", False),
        "ohem_ratio": params.get("ohem_ratio", 0.0),
    }
    if logits.shape[-1] == 1 or logits.ndim == 1:
        activation = "sigmoid" if params.get("with_logits", True) else None
        there = None if mask is None else mask.flatten()
        loss = dice_loss(logits.flatten(), targets.flatten(), there, activation=activation, **options)
    else:
        there = None if mask is None else mask.flatten()
        labels = targets.long() if targets.ndim == 1 else targets.argmax(1)
        loss = softmax_dice_loss(logits, labels, there, level="example", reduction="none", **options)
        loss = {"mean": loss.mean(), "sum": loss.sum()}.get(reduction, loss.unsqueeze(1))
    return loss, gradients(loss.sum(), {"logits": logits})


def asymmetric(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 24: the multi-label classes return the sum, the single-label class its mean (or one value an example)."""
    inputs, params = case["inputs"], case["params"]
    logits = leaf(inputs["logits"])
    if params["class"] == "ASLSingleLabel":
        loss = asymmetric_softmax_loss(
            logits,
            constant(inputs["targets"], torch.int64),
            gamma_pos=params.get("gamma_pos", 0),
            gamma_neg=params.get("gamma_neg", 4),
            label_smoothing=params.get("eps", 0.1),
            reduction="mean" if params.get("reduction", "mean") == "mean" else "none",
        )
    else:
        loss = asymmetric_loss(
            logits,
            constant(inputs["targets"]),
            gamma_pos=params.get("gamma_pos", 1),
            gamma_neg=params.get("gamma_neg", 4),
            clip=params.get("clip", 0.05) or 0.0,
            eps=params.get("eps", 1e-8),
            detach_weight=params.get("disable_torch_grad_focal_loss", params["class"] == "AsymmetricLoss"),
            reduction="sum",
        )
    return loss, gradients(loss.sum(), {"logits": logits})


def rank_term(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 39: the ranking term over all entries of the batch at once, one column or two."""
    probabilities = leaf(case["inputs"]["probabilities"])
    loss = hinge_rank_loss(probabilities, constant(case["inputs"]["targets"]), level="set", activation=None)
    return loss, gradients(loss, {"probabilities": probabilities})


METRICS = {"Fbeta": "fbeta", "BAccu": "balanced_accuracy", "Accu": "accuracy", "Gmean": "gmean"}


def anyloss(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 46: functions Any_*, Ours_* (amplified) and Pure_* (not); only Ours_Gmean has the square root."""
    inputs, params = case["inputs"], case["params"]
    origin, metric = params["function"].split("_")
    name = METRICS[metric]
    probabilities = leaf(inputs["probabilities"])
    loss = confusion_loss(
        probabilities,
        constant(inputs["targets"]),
        metric="gmean_squared" if name == "gmean" and origin != "Ours" else name,
        beta=params.get("beta", 1.0),
        amplification=None if origin == "Pure" else params["L"],
        smoothing=params.get("smoothing", 0.0 if origin == "Ours" else 1e-5),
        activation=None,
    )
    return loss, gradients(loss, {"probabilities": probabilities})


def large_loss(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 80: BoostLU on a map [B, K, H, W] (gradient of the sum of squares), and the three large-loss schemes."""
    inputs, params = case["inputs"], case["params"]
    if "class_activation_map" in inputs:
        activation = leaf(inputs["class_activation_map"])
        pooled = boosted_pool(activation.flatten(2), alpha=params["alpha"])
        return pooled, gradients(pooled.square().sum(), {"class_activation_map": activation})
    logits, observed = leaf(inputs["logits"]), constant(inputs["observed"])
    permanent = params["scheme"] == "LL-Cp"
    fraction = 1 - params["clean_rate"]
    if permanent and fraction:
        fraction = params["delta_rel"]
    relevance, unknown = observed.clamp(min=0), observed == params.get("unobserved_code", 0)
    loss = large_loss_modification_loss(
        logits,
        relevance,
        unknown=unknown,
        fraction=fraction,
        scheme={"LL-R": "reject", "LL-Ct": "correct", "LL-Cp": "correct"}[params["scheme"]],
    )
    selected = large_loss_selection(logits, relevance, unknown=unknown, fraction=fraction)
    rows, columns = selected.nonzero(as_tuple=True)
    output = {"loss": loss, "corrected_rows": rows, "corrected_cols": columns}
    return output, gradients(loss, {"logits": logits})


def single_positives(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 91: observed is 1 (positive), 0 (unknown) or -s (negative pseudo-label s)."""
    inputs, params = case["inputs"], case["params"]
    observed = constant(inputs["observed"])
    pseudo = torch.where(observed < 0, -observed, float("nan"))
    if "probabilities" in inputs:
        labels = asymmetric_pseudo_labels(
            constant(inputs["probabilities"]),
            observed <= 0,
            pseudo,
            rounds=params["num_epochs"] - params["warmup_epochs"],
            negative_fraction=params["negative_proportion"],
            positive_fraction=params.get("positive_proportion", 0.0),
            initial=optional(inputs.get("initial_unannotated_per_class")),
        )
        return {"observed_after": torch.where(labels.isnan(), observed, -labels)}, {}
    logits = leaf(inputs["logits"])
    kind = params["loss"].upper()
    loss = entropy_maximisation_loss(
        logits,
        observed.clamp(min=0),
        unknown={"AN": torch.zeros_like(observed, dtype=torch.bool)}.get(kind, observed <= 0),
        pseudo=pseudo if kind == "EM_APL" else None,
        alpha=0.1 if params.get("alpha") is None else params["alpha"],
        beta=0.2 if params.get("beta") is None else params["beta"],
        eps=params.get("log_epsilon", 1e-5),
    )
    return loss, gradients(loss, {"logits": logits})


def classification_rows(case: Case) -> dict[str, Tensor]:
    """Paper 44, cases of class logits: the recorded entries that are losses."""
    logits, labels = leaf(case["inputs"]["logits"]), constant(case["inputs"]["targets"], torch.int64)
    rows: dict[str, Tensor] = {}
    for name in case["output"]:
        if name == "cross_entropy":
            rows[name] = cross_entropy_loss(logits, labels)
        elif name.startswith("cross_entropy_smoothing_"):
            rows[name] = cross_entropy_loss(logits, labels, label_smoothing=float(name.rpartition("_")[2]))
        elif name == "multi_margin":
            rows[name] = multiclass_hinge_loss(logits, labels)
    return rows


ADAPTERS: dict[int, Adapter] = {
    18: dice,
    24: asymmetric,
    39: rank_term,
    46: anyloss,
    80: large_loss,
    91: single_positives,
}
