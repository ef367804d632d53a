"""Adapters of the papers on loss weighting and gradient combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    MomentumConFIG,
    UncertaintyWeighting,
    align_gradients,
    binary_kl_loss,
    combine_gradients,
    ddim_step,
    guided_prediction,
    listwise_kl_loss,
    logit_distance_loss,
    perpendicular_guidance,
    predict_clean,
    squared_error_loss,
    uncertainty_weighted_sum,
    view_weights,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional

Outcome = tuple[Any, dict[str, Tensor]]


def uncertainty(case: Case) -> Outcome:
    """Paper 65: LibMTL's form on losses, and the authors' example on predictions [task, N, D]."""
    inputs = case["inputs"]
    log_vars = leaf(inputs["log_vars"])
    if "losses" in inputs:
        losses = leaf(inputs["losses"])
        total = uncertainty_weighted_sum(losses, log_vars)
        weighting = UncertaintyWeighting(len(losses)).double()
        weighting.load_state_dict({"log_vars": log_vars.detach()})
        return {"loss": total, "weights": weighting.weights()}, gradients(
            total, {"losses": losses, "log_vars": log_vars}
        )
    predictions, targets = leaf(inputs["predictions"]), constant(inputs["targets"])
    _, rows, dims = predictions.shape
    # the example adds log_var for every dimension: each (task, dimension) is a loss with its task's variance
    errors = squared_error_loss(predictions.transpose(1, 2), targets.transpose(1, 2), reduction="none") / rows
    total = uncertainty_weighted_sum(errors.flatten(), log_vars.repeat_interleave(dims), kinds="doubled")
    return total, gradients(total, {"predictions": predictions, "log_vars": log_vars})


METHODS = {
    "config": "config",
    "pcgrad": "pcgrad",
    "imtl": "imtl_g",
    "imtlg": "imtl_g",
    "mgda": "mgda",
    "sum": "sum",
    "mean": "mean",
}
LENGTHS = {
    "projection": "projection",
    "projectionlength": "projection",
    "minimum": "minimum",
    "min": "minimum",
    "maximum": "maximum",
    "max": "maximum",
    "harmonic": "harmonic",
    "harmonicmean": "harmonic",
    "harmonicaverage": "harmonic",
    "arithmetic": "arithmetic",
    "arithmeticmean": "arithmetic",
    "arithmeticaverage": "arithmetic",
    "mean": "arithmetic",
    "geometric": "geometric",
    "geometricmean": "geometric",
    "geometricaverage": "geometric",
}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def conflict_free(case: Case) -> Outcome:
    """Paper 66: ConFIG with its options, the other combiners by name, and a sequence of momentum steps."""
    rows, params = constant(case["inputs"]["gradients"]), case["params"]
    weights = optional(params.get("weights"))
    length = params.get("length") or "projection"
    if isinstance(length, str):
        length = LENGTHS[_plain(length).removeprefix("track")]
    if "indices" in case["inputs"]:
        momentum = MomentumConFIG(
            params["num_losses"],
            rows.shape[-1],
            beta1=params.get("beta_1", 0.9),
            beta2=params.get("beta_2", 0.999),
            eps=params.get("eps", 1e-8),
            weights=weights,
            length=length,
            dtype=torch.float64,
        )
        steps = zip(case["inputs"]["indices"], rows, strict=True)
        return torch.stack([momentum.step(index, gradient) for index, gradient in steps]), {}
    method = METHODS[_plain(params.get("method", params.get("operator", "config"))).removesuffix("operator")]
    return combine_gradients(rows, method, weights=weights, length=length), {}  # type: ignore[arg-type]


def perpendicular_negatives(case: Case) -> Outcome:
    """Paper 74: the combination of directions, and the weights by view."""
    inputs, params = case["inputs"], case["params"]
    if "azimuth" in inputs:
        view = view_weights(inputs["azimuth"], **params)
        return {
            "basis": ["front", "side", "back"],
            "positive_mix": view.main,
            "negatives": view.negatives,
            "weights": view.weights,
        }, {}
    deltas, weights = leaf(inputs["deltas"]), constant(inputs["weights"])
    combined = perpendicular_guidance(deltas[0], deltas[1:], weights[1:])
    return combined, gradients(combined.sum(), {"deltas": deltas})


def reward_guidance(case: Case) -> Outcome:
    """Paper 96: one guided prediction, the clean sample it implies, its reward, and the sampler's step."""
    tensors = {name: leaf(case["inputs"][name]) for name in ("eps_negative", "eps_positive", "x_t")}
    params = case["params"]
    guided = guided_prediction(tensors["eps_negative"], tensors["eps_positive"], params["scale"])
    clean = predict_clean(tensors["x_t"], guided, params["alpha_bar_t"])
    reward = (constant(case["inputs"]["reward_weight"]) * clean).sum()
    output = {
        "guided_eps": guided,
        "pred_x0": clean,
        "x_prev": ddim_step(tensors["x_t"], guided, params["alpha_bar_t"], params["alpha_bar_prev"]),
        "reward": reward,
    }
    return output, gradients(reward, tensors)


def _softmax_kl(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    return temperature**2 * listwise_kl_loss(student, teacher, temperature=temperature)


DISTILLATION: dict[str, Callable[..., Tensor]] = {
    "binary_kl": binary_kl_loss,
    "binary_kl_norm": logit_distance_loss,
    "logit_distance": logit_distance_loss,
    "kd": _softmax_kl,
    "softmax_kl": _softmax_kl,
}


def dual_head(case: Case) -> Outcome:
    """Paper 101: the distillation losses by kind, and the aligned sum of two heads' gradients (whole vectors)."""
    inputs, params = case["inputs"], case["params"]
    if "main_grad" in inputs:
        main, auxiliary = (
            {name: constant(values) for name, values in inputs[side].items()} for side in ("main_grad", "aux_grad")
        )
        return align_gradients(main, auxiliary, scope=params.get("scope", "all")), {}
    student, options = leaf(inputs["student"]), {k: v for k, v in params.items() if k != "kind"}
    loss = DISTILLATION[params["kind"]](student, constant(inputs["teacher"]), **options)
    return loss, gradients(loss, {"student": student})


ADAPTERS: dict[int, Adapter] = {
    65: uncertainty,
    66: conflict_free,
    74: perpendicular_negatives,
    96: reward_guidance,
    101: dual_head,
}
