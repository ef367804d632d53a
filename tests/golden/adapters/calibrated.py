"""Adapters of the papers on calibration, regression and survival losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rivals.losses import (
    AdaptiveLDRLoss,
    LearnedLink,
    SphericalOutput,
    absolute_error_loss,
    asymmetric_generalized_cross_entropy_loss,
    asymmetric_unhinged_loss,
    brier_loss,
    dual_focal_loss,
    generalized_cross_entropy_loss,
    hazard_loss,
    huber_loss,
    jensen_shannon_loss,
    ldr_loss,
    learned_link_loss,
    log_cosh_loss,
    log_softmax_plus,
    multiclass_hinge_loss,
    normalized_cross_entropy_loss,
    number_token_loss,
    poisson_loss,
    quantile_loss,
    robust_log_loss,
    smooth_l1_loss,
    spherical_loss,
    squared_error_loss,
    symmetric_cross_entropy_loss,
    taylor_softmax_loss,
    z_loss,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional

Outcome = tuple[Any, dict[str, Tensor]]


def learned_link(case: Case) -> Outcome:
    """Paper 33: the link with a recorded state, and the log-softmax with an appended zero."""
    inputs, params = case["inputs"], case["params"]
    if "state" not in inputs:
        z = leaf(inputs["z"])
        log_p = log_softmax_plus(z)
        return log_p, gradients(log_p[:, 0].sum(), {"z": z})
    scores, classes = leaf(inputs["scores"]), params["K"] + 1
    link = LearnedLink(
        classes,
        width=params.get("dim_hidden", 4),
        depth=params.get("depth", 4),
        blocks=params["n_blocks"],
        generator=torch.Generator(),
    ).double()
    link.load_state_dict(_link_state(inputs["state"]))
    nll = learned_link_loss(scores, constant(inputs["targets"], torch.int64), link=link, weight_decay=0.0)
    return {"log_probs": link(scores), "nll": nll}, gradients(nll, {"scores": scores})


def _link_state(state: dict[str, Any]) -> dict[str, Tensor]:
    """Rename the reference's parameters to ours."""
    renamed: dict[str, Tensor] = {}
    for name, values in state.items():
        _, block, *rest = name.split(".")
        value, prefix = constant(values), f"blocks.{block}."
        if rest[0] != "icnn":
            renamed[prefix + rest[0]] = value.reshape(())
            continue
        group, layer, kind = rest[1], int(rest[2]), rest[3]
        inside = prefix + "network."
        if group == "actnorms":
            renamed[f"{inside}norms.{layer}.{'shift' if kind == 'b' else 'log_scale'}"] = value.flatten()
            renamed[f"{inside}norms.{layer}.initialised"] = torch.tensor(True)
        elif group == "Wzs":
            renamed[inside + (f"convex.{layer - 1}." if layer else "first.") + kind] = value
        else:
            renamed[f"{inside}{ {'Wxs': 'skip', 'Wx2s': 'fresh'}[group] }.{layer}.{kind}"] = value
    return renamed


SPHERICAL: dict[str, str] = {"z_loss": "z", "mse": "squared", "squared": "squared", "taylor": "taylor"}


def spherical_family(case: Case) -> Outcome:
    """Paper 38: members of the family on logits, and one step of the factored output layer."""
    inputs, params = case["inputs"], case["params"]
    kind = SPHERICAL[params.get("function", "z_loss").removesuffix("_softmax")]
    options = {"sharpness": params.get("a", 1.0), "location": params.get("b", 0.0)}
    reduction = params.get("reduction", "sum")
    targets = constant(inputs["targets"], torch.int64)
    if "weight" in inputs:
        return _spherical_step(inputs, targets, kind, options, params["eta"], reduction)
    logits = leaf(inputs["logits"])
    relevance = one_hot(targets, logits.shape[1]).double()
    if kind == "z":
        loss = z_loss(logits, relevance, reduction=reduction, **options)
    elif kind == "squared":
        per_row = squared_error_loss(logits, relevance, reduction="none")
        loss = per_row.sum() if reduction == "sum" else per_row.mean()
    else:
        loss = taylor_softmax_loss(logits, relevance, reduction=reduction)
    return loss, gradients(loss, {"logits": logits})


def _spherical_step(
    inputs: dict[str, Any], targets: Tensor, kind: str, options: dict[str, float], lr: float, reduction: str
) -> Outcome:
    weight, hidden = constant(inputs["weight"]), leaf(inputs["hidden"])
    layer = SphericalOutput(
        weight.shape[1],
        len(weight),
        lr=lr,
        kind=kind,  # type: ignore[arg-type]
        generator=torch.Generator(),
        dtype=torch.float64,
        **options,
    )
    layer.set_weight(weight)
    target, q, s = layer.statistics(hidden, targets)
    for value in (target, q, s):
        value.retain_grad()
    columns = target.squeeze(1)
    loss = spherical_loss(columns, s, q, num_outputs=len(weight), kind=kind, reduction=reduction, **options)  # type: ignore[arg-type]
    loss.backward()
    output = {"target_output": columns, "q": q, "s": s, "loss": loss, "new_weight": layer.weight()}
    found = {"hidden": hidden.grad, "target_output": target.grad.squeeze(1), "q": q.grad, "s": s.grad}
    return output, found


ROBUST: dict[str, Callable[..., Tensor]] = {
    "CELoss_v1": lambda s, y: ldr_loss(s, y, margin=0.0),
    "LDRLoss_V1": lambda s, y, threshold=2.0, Lambda=1.0: ldr_loss(
        s, y, temperature=Lambda, margin=threshold, normalize="softplus_l1"
    ),
    "CSLoss": lambda s, y, threshold=1.0: ldr_loss(s, y, margin=threshold, top_k=1),
    "WWLoss": lambda s, y, threshold=1.0: multiclass_hinge_loss(s, y.argmax(1), margin=threshold),
    "MAELoss": lambda s, y: generalized_cross_entropy_loss(s, y, q=1.0),
    "MSELoss": brier_loss,
    "GCELoss": lambda s, y, q=0.7, k=0.0: generalized_cross_entropy_loss(s, y, q=q, truncate=k),
    "TGCELoss": lambda s, y, q=0.7, k=0.0: generalized_cross_entropy_loss(s, y, q=q),  # k prunes between epochs
    "SCELoss": lambda s, y, balance=0.5, A=4: symmetric_cross_entropy_loss(s, y, balance=balance, amplitude=A),
    "RCELoss": lambda s, y, scale=1.0: scale * _reverse(s, y),
    "NCELoss": lambda s, y, scale=1.0: scale * normalized_cross_entropy_loss(s, y),
    "AULLoss": lambda s, y, a=1.5, q=0.9, scale=1.0: scale * asymmetric_unhinged_loss(s, y, a=a, q=q),
    "AGCELoss": lambda s, y, a=1.0, q=2.0, scale=1.0: scale * asymmetric_generalized_cross_entropy_loss(s, y, a=a, q=q),
    "NCEandRCE": lambda s, y, alpha=1.0, beta=1.0: alpha * normalized_cross_entropy_loss(s, y) + beta * _reverse(s, y),
    "NCEandAGCE": lambda s, y, alpha=1.0, beta=1.0, a=3.0, q=1.5: (
        alpha * normalized_cross_entropy_loss(s, y) + beta * asymmetric_generalized_cross_entropy_loss(s, y, a=a, q=q)
    ),
    "NCEandAUL": lambda s, y, alpha=1.0, beta=1.0, a=6.0, q=1.5: (
        alpha * normalized_cross_entropy_loss(s, y) + beta * asymmetric_unhinged_loss(s, y, a=a, q=q)
    ),
    "JSCLoss": lambda s, y, weights: jensen_shannon_loss(s, y, label_share=_first(weights)),
    "RLLLoss": lambda s, y, threshold=1.0: robust_log_loss(s, y, offset=threshold),
}
"""By the names of the reference's classes, with their options and defaults."""


def _reverse(scores: Tensor, relevance: Tensor) -> Tensor:
    return symmetric_cross_entropy_loss(scores, relevance, balance=1.0, amplitude=REVERSE_AMPLITUDE)


REVERSE_AMPLITUDE = 9.210340371976182  # -log 1e-4, the reference's stand-in for -log 0


def _first(weights: Any) -> float:
    return float(weights.split()[0] if isinstance(weights, str) else weights[0])


def label_distributionally_robust(case: Case) -> Outcome:
    """Paper 89: LDR-KL, adaptive LDR-KL with its state, and the baselines, by the reference's class names."""
    inputs, params = case["inputs"], dict(case["params"])
    logits = leaf(inputs["logits"])
    relevance = one_hot(constant(inputs["targets"], torch.int64), logits.shape[1]).double()
    name = params.pop("class")
    if name != "ALDRLoss_V1":
        params = {key: value for key, value in params.items() if key not in ("num_classes", "N")}
        loss = ROBUST[name](logits, relevance, **params)
        return loss, gradients(loss, {"logits": logits})
    state = optional(inputs.get("state"))
    adaptive = AdaptiveLDRLoss(
        params.get("N") or len(state if state is not None else []),
        temperature=params.get("Lambda", 1.0),
        alpha=params.get("alpha", 1.0),
        margin=params.get("threshold", 1.0),
        normalize="softplus_l1" if params.get("softplus", False) else "l1",
    ).double()
    if state is not None:
        adaptive.load_state_dict({"temperatures": state.flatten()})
    loss = adaptive(logits, relevance, constant(inputs["ids"], torch.int64))
    return {"loss": loss, "state_after": adaptive.noise_scores()}, gradients(loss, {"logits": logits})


def dual_focal(case: Case) -> Outcome:
    """Paper 109; the reference flattens trailing dimensions [N, C, ...] and sums unless told to average."""
    inputs, params = case["inputs"], case["params"]
    logits, targets = leaf(inputs["logits"]), constant(inputs["targets"], torch.int64)
    rows = logits if logits.ndim == 2 else logits.flatten(2).transpose(1, 2).flatten(0, 1)
    relevance = one_hot(targets.flatten(), rows.shape[1]).double()
    average = params.get("size_average", params.get("reduction") == "mean")
    loss = dual_focal_loss(rows, relevance, gamma=params.get("gamma", 0), reduction="mean" if average else "sum")
    return loss, gradients(loss, {"logits": logits})


NUMBER_ERRORS: dict[str, str] = {
    "mse_loss": "squared",
    "l1_loss": "absolute",
    "huber_loss": "huber",
    "smooth_l1_loss": "huber",
}


def number_tokens(case: Case) -> Outcome:
    """Paper 30: the Wasserstein and the dot-product class of the reference."""
    inputs, params = case["inputs"], case["params"]
    logits = leaf(inputs["logits"])
    labels = constant(inputs["labels"], torch.int64)
    values = constant([float("nan") if value is None else value for value in inputs["token_values"]])
    dot_product = params.get("class", "NTLoss") == "NTLossDotProduct"
    loss = number_token_loss(
        logits,
        labels,
        values=values,
        weight=optional(inputs.get("loss_weights", inputs.get("loss_mask"))),
        kind=NUMBER_ERRORS[params.get("loss_function", "mse_loss")] if dot_product else "wasserstein",  # type: ignore[arg-type]
        squash=params.get("squash_factor"),
        reweigh=params.get("reweigh", True),
        ignore_index=params.get("ignore_index", -100),
        reduction=params.get("reduction", "mean"),
    )
    return loss, gradients(loss.sum(), {"logits": logits})


def hazard(case: Case) -> Outcome:
    """Paper 115: the discrete-time hazard likelihood, in total and per item."""
    inputs, params = case["inputs"], case["params"]
    logits, labels = leaf(inputs["logits"]), constant(inputs["duration"], torch.int64)
    options = {
        "events": constant(inputs["event"]),
        "weight": optional(inputs.get("weights", inputs.get("weight"))),
        "boundary": params.get("boundary", params.get("tau")),
        "long_weight": params.get("long_weight", params.get("mu", 1.0)),
    }
    loss = hazard_loss(logits, labels, reduction=params.get("reduction", "mean"), **options)
    per_item = hazard_loss(logits, labels, reduction="none", **options)
    return {"loss": loss, "per_item": per_item}, gradients(loss.sum(), {"logits": logits})


REGRESSION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_cosh": log_cosh_loss,
    "mse": squared_error_loss,
    "mae": absolute_error_loss,
    "poisson_log_input": poisson_loss,
}
REGRESSION_WITH_OPTION: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "pinball_": lambda p, t, q: quantile_loss(p, t, quantile=q),
    "quantile_": lambda p, t, q: quantile_loss(p, t, quantile=q),
    "huber_": lambda p, t, delta: huber_loss(p, t, delta=delta),
    "smooth_l1_": lambda p, t, beta: smooth_l1_loss(p, t, beta=beta),
}


def regression_rows(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Paper 44, case `regression`: the recorded rows that are losses; gradients are those of log cosh."""
    predictions, targets = leaf(case["inputs"]["predictions"]), constant(case["inputs"]["targets"])
    found: dict[str, Tensor] = {}
    for row in case["output"]:
        if row in REGRESSION:
            found[row] = REGRESSION[row](predictions, targets)
        for prefix, loss in REGRESSION_WITH_OPTION.items():
            if row.startswith(prefix):
                found[row] = loss(predictions, targets, float(row.removeprefix(prefix)))
    return found, gradients(log_cosh_loss(predictions, targets), {"predictions": predictions})


ADAPTERS: dict[int, Adapter] = {
    30: number_tokens,
    33: learned_link,
    38: spherical_family,
    89: label_distributionally_robust,
    109: dual_focal,
    115: hazard,
}
