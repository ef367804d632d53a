"""Adapters of the preference and unlearning papers; paper 0 is the table of TRL's losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    PREFERENCE_LOSSES,
    DcgPairWeight,
    PreferenceForm,
    SequenceLogProbs,
    cringe_terms,
    idealized_log_ratio,
    likelihood_ratio_token_scores,
    preference_loss,
    preference_scores,
    token_kl,
    token_log_probs,
    unlearning_loss,
    vote_agreement,
    vote_log_ratio,
)
from rivals.training.merging import apply_delta, ties_merge
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional

Result = tuple[Any, dict[str, Any]]


def _pair(winners: Tensor, losers: Tensor) -> Tensor:
    return torch.stack([winners, losers], -1)


def _per_pair(form: PreferenceForm, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """The loss of every pair of `chosen_logps` and `rejected_logps`, with a reference where there is one."""
    logps = _pair(inputs["chosen_logps"], inputs["rejected_logps"])
    reference = (
        _pair(inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]) if "ref_chosen_logps" in inputs else None
    )
    relevance = torch.tensor([1.0, 0.0]).expand_as(logps)
    return replace(form, reduction="none", **options)(logps, relevance, reference, torch.ones_like(logps))


# ---------------------------------------------------------------------------------- the table of TRL

_WITH_REFERENCE = {
    "sigmoid": PREFERENCE_LOSSES["dpo"],
    "robust": PREFERENCE_LOSSES["robust_dpo"],
    "hinge": PREFERENCE_LOSSES["slic_norm"],
    "ipo": PREFERENCE_LOSSES["ipo"],
    "exo_pair": PREFERENCE_LOSSES["exo"],
    "nca_pair": PREFERENCE_LOSSES["nca"],
    "sppo_hard": PREFERENCE_LOSSES["sppo"],
    "bco_pair": PREFERENCE_LOSSES["bco"],
    "apo_zero": PREFERENCE_LOSSES["apo_zero"],
    "apo_down": PREFERENCE_LOSSES["apo_down"],
    "aot": PREFERENCE_LOSSES["aot"],
    "aot_pair": PREFERENCE_LOSSES["aot_unpaired"],
}
_WITHOUT_REFERENCE = {
    "cpo_sigmoid": replace(PREFERENCE_LOSSES["cpo"], nll_weight=0.0),
    "cpo_hinge": replace(PREFERENCE_LOSSES["slic_hf"], nll_weight=0.0),
    "cpo_ipo": replace(PREFERENCE_LOSSES["ipo"], score="log_prob"),
    "cpo_simpo": PREFERENCE_LOSSES["simpo"],
    "orpo_or_term": replace(PREFERENCE_LOSSES["orpo"], nll_weight=0.0),
}
_SMOOTHED = ("sigmoid", "robust", "exo_pair", "aot", "aot_pair", "cpo_sigmoid", "cpo_simpo")


def trl_table(case: Case) -> Result:
    """Paper 0: per-pair losses by name, gradients of their means; KTO from unpaired responses."""
    if "desirable_logps" in case["inputs"]:
        return _kto(case)
    params = case["params"]
    tensors = {name: leaf(values) for name, values in case["inputs"].items()}
    forms = _WITH_REFERENCE if "ref_chosen_logps" in tensors else _WITHOUT_REFERENCE
    moved = {name: tensor for name, tensor in tensors.items() if not name.startswith("ref_")}
    output, by_input = {}, {name: {} for name in moved}
    for key in case["output"]:
        options: dict[str, Any] = {"beta": params["beta"]}
        if key in params.get("label_smoothing_applies_to", _SMOOTHED):
            options["label_smoothing"] = params.get("label_smoothing", forms[key].label_smoothing)
        elif forms[key].label_smoothing and key != "exo_pair":
            options["label_smoothing"] = 0.0
        if key == "cpo_simpo":
            options["margin"] = params.get("simpo_gamma", 0.5)
        output[key] = _per_pair(forms[key], tensors, **options)
        for name, gradient in gradients(output[key].mean(), moved).items():
            by_input[name][key] = gradient
    return output, by_input


def _kto(case: Case) -> Result:
    inputs, params = case["inputs"], case["params"]
    tensors = {name: leaf(inputs[name]) for name in ("desirable_logps", "undesirable_logps")}
    reference = torch.cat([constant(inputs["ref_desirable_logps"]), constant(inputs["ref_undesirable_logps"])])
    logps = torch.cat(list(tensors.values()))
    good = len(inputs["desirable_logps"])
    kl = (constant(inputs["kl_logps"]) - constant(inputs["ref_kl_logps"])).mean().clamp(min=0)
    form = replace(
        PREFERENCE_LOSSES["kto"],
        beta=params["beta"],
        positive_weight=params.get("desirable_weight", 1.0),
        negative_weight=params.get("undesirable_weight", 1.0),
        reduction="none",
    )
    relevance = (torch.arange(len(logps)) < good).unsqueeze(-1)
    losses = form(logps.unsqueeze(-1), relevance, reference.unsqueeze(-1), reference_point=kl)
    return {"losses": losses, "kl": kl}, gradients(losses.mean(), tensors)


# ---------------------------------------------------------------------------------- likelihood ratio of two heads


def likelihood_ratio(case: Case) -> Result:
    """Paper 50: token scores of two heads by mode."""
    inputs, params = case["inputs"], case["params"]
    scores = likelihood_ratio_token_scores(
        *(optional(inputs.get(f"{head}_logits")) for head in ("positive", "negative", "base")),
        mode={
            "default": "ratio",
            "pos_only": "positive",
            "neg_only": "negative_vs_base",
            "pos_base": "positive_vs_base",
        }[params["mode"]],
        weights=tuple(params.get("weights", (1.0, -1.0))),
    )
    return scores, {}


# ---------------------------------------------------------------------------------- unlearning


def _log_probs(inputs: dict[str, Any], logits: Tensor, labels: str, ignore: int) -> SequenceLogProbs:
    """Summed log-probabilities of shifted labels."""
    tokens = constant(inputs[labels], torch.int64)
    return token_log_probs(logits, tokens, tokens != ignore)


def unlearning(case: Case) -> Result:
    """Papers 57 and 110: forget and retain logits with labels; kinds npo, simnpo, grad_ascent, grad_diff."""
    inputs, params = case["inputs"], case["params"]
    ignore = params.get("ignore_index", -100)
    tensors = {name: leaf(inputs[name]) for name in ("forget_logits", "retain_logits") if name in inputs}
    forget = _log_probs(inputs, tensors["forget_logits"], "forget_labels", ignore)
    counted = (constant(inputs["forget_labels"], torch.int64) != ignore).sum(-1)  # before the shift
    kind = {
        "npo": "npo",
        "simnpo": "simnpo",
        "grad_diff": "gradient_ascent",
        "grad_ascent": "gradient_ascent",
        "ga": "gradient_ascent",
    }[params["kind"]]
    output: dict[str, Any] = {"forget_logps": forget.sums, "forget_lengths": counted}
    options: dict[str, Any] = {"forget": kind, "beta": params.get("beta", 0.1), "delta": params.get("delta", 0.0)}
    options["forget_weight"] = params.get("gamma", 1.0)
    if "ref_forget_logits" in inputs:
        reference = _log_probs(inputs, constant(inputs["ref_forget_logits"]), "forget_labels", ignore)
        options["ref_logps"] = output["ref_forget_logps"] = reference.sums
    if params.get("retain_loss_type") == "KL":
        options["retain_kl"] = token_kl(tensors["retain_logits"], constant(inputs["ref_retain_logits"]))
        options["kl_weight"] = params.get("alpha", 1.0)
    elif "retain_logits" in tensors and params["kind"] not in ("grad_ascent", "ga"):
        retain = _log_probs(inputs, tensors["retain_logits"], "retain_labels", ignore)
        options |= {"retain_logps": retain.sums, "retain_lengths": retain.lengths}
        options["retain_weight"] = params.get("alpha", 1.0)
    lengths = counted if kind == "simnpo" else forget.lengths
    loss = unlearning_loss(forget.sums, lengths=lengths, **options)
    return output | {"loss": loss}, gradients(loss, tensors)


def merging(case: Case) -> Result:
    """Paper 105: TIES as PEFT or mergekit merge, or the objective of the two runs."""
    inputs, params = case["inputs"], case["params"]
    if "forget_logits" in inputs:
        return _two_run_objective(inputs, params)
    vectors = [constant(values) for values in inputs["task_vectors"]]
    options: dict[str, Any] = {
        "density": params["density"],
        "elect": _ELECT[_sign_method(params)],
    }
    if params["variant"] == "peft":
        return ties_merge(vectors, params["weights"], **options), {}
    merged = ties_merge(
        vectors,
        params["weights"],
        weight_before_election=True,
        normalize="weights" if params.get("normalize", True) else None,
        **options,
    )
    base = {"weight": constant(inputs["base"])}
    return apply_delta(base, {"weight": merged}, scale=params.get("lambda_", 1.0))["weight"], {}


def _sign_method(params: dict[str, Any]) -> str:
    return str(params.get("majority_sign_method", params.get("consensus_method", "total")))


_ELECT = {"total": "total", "sum": "total", "frequency": "frequency", "count": "frequency"}


def _two_run_objective(inputs: dict[str, Any], params: dict[str, Any]) -> Result:
    tensors = {name: leaf(inputs[name]) for name in ("forget_logits", "retain_logits")}
    forget = _log_probs(inputs, tensors["forget_logits"], "forget_labels", -100)
    reference = _log_probs(inputs, constant(inputs["ref_forget_logits"]), "forget_labels", -100)
    retain = _log_probs(inputs, tensors["retain_logits"], "retain_labels", -100)
    loss = unlearning_loss(
        forget.sums,
        reference.sums,
        forget.lengths,
        pooling="batch",
        beta=params["beta"],
        retain_logps=retain.sums,
        retain_lengths=retain.lengths,
        retain_kl=token_kl(tensors["retain_logits"], constant(inputs["ref_retain_logits"])),
        forget_weight=params["ga_ratio"],
        kl_weight=params["gd_ratio"],
        retain_weight=params["gk_ratio"],
    )
    return loss, gradients(loss, tensors)


# ---------------------------------------------------------------------------------- several responses


def alignment(case: Case) -> Result:
    """Paper 59: the baselines RRHF (from aligned logits) and PRO (from summed log-probabilities)."""
    return {"rrhf": _rrhf, "pro": _pro}[case["params"]["kind"]](case["inputs"], case["params"])


def _rrhf(inputs: dict[str, Any], params: dict[str, Any]) -> Result:
    logits, labels = leaf(inputs["logits"]), constant(inputs["labels"], torch.int64)
    found = token_log_probs(logits, labels, labels != -100, shift=False)
    exponent = params.get("length_penalty", 1.0)
    form = replace(
        PREFERENCE_LOSSES["rrhf"], length_exponent=exponent, preference_weight=params.get("rrhf_weight", 1.0)
    )
    padded = torch.tensor([float(labels.shape[-1])])  # its likelihood is a mean over all positions
    arguments = (found.sums.unsqueeze(0), constant(inputs["rewards"]).unsqueeze(0), None, found.lengths.unsqueeze(0))
    loss = form(*arguments, nll_lengths=padded)
    output = {
        "scores": preference_scores(
            found.sums, None, found.lengths, score="mean_log_prob", beta=1.0, length_exponent=exponent
        ),
        "rank": replace(form, preference_weight=1.0, nll_weight=0.0)(*arguments),
        "sft": replace(form, preference_weight=0.0)(*arguments, nll_lengths=padded),
        "loss": loss,
    }
    return output, gradients(loss, {"logits": logits})


def _pro(inputs: dict[str, Any], params: dict[str, Any]) -> Result:
    logps = leaf(inputs["logps"])
    form = replace(
        PREFERENCE_LOSSES["pro"], nll_weight=params.get("sft_weight", 0.05), epsilon=params.get("eps", 1e-10)
    )
    arguments = (logps, constant(inputs["rewards"]), None, constant(inputs["lengths"]))
    loss = form(*arguments)
    sft = replace(form, preference_weight=0.0)(*arguments)
    return {"loss": loss, "sft_term": sft}, gradients(loss, {"logps": logps})


_LISTWISE: dict[str, dict[str, Any]] = {
    "point_mse": {"structure": "pointwise", "link": "squared_error"},
    "point_sigmoid": {"structure": "pointwise", "link": "cross_entropy"},
    "pair_hinge": {"link": "hinge"},
    "pair_logistic": {},
    "list_mle": {"structure": "list_mle", "ties": "order"},
    "softmax": {"structure": "softmax", "normalize_labels": False},
}


def listwise(case: Case) -> Result:
    """Paper 103: the losses of rax on ready scores; `dcg_lambdaweight` is the matrix of pair weights."""
    inputs, params = case["inputs"], case["params"]
    scores, relevance = leaf(inputs["scores"]), constant(inputs["relevance"])
    mask = optional(inputs.get("mask"), torch.bool)
    weight = DcgPairWeight(
        scale_by_list_size=params.get("lambda_scaled_by") == "list size",
        top=params.get("topn"),
        normalize=params.get("normalize", False),
    )
    output: dict[str, Any] = {}
    by_loss: dict[str, Tensor] = {}
    for key in case["output"]:
        if key == "dcg_lambdaweight":
            output[key] = weight(scores, relevance, mask)
            continue
        options = {"pair_weight": weight} if key == "lambda_loss" else _LISTWISE[key]
        output[key] = preference_loss(scores, relevance, mask=mask, score="manual", **options)
        by_loss[key] = gradients(output[key], {"scores": scores})["scores"]
    return output, {"scores": by_loss}


# ---------------------------------------------------------------------------------- pairs


def ranking_of_pairs(case: Case) -> Result:
    """Paper 76: DPO with a reference weight, or the idealised ratio from perplexities and votes."""
    inputs, params = case["inputs"], case["params"]
    if "chosen_logps" in inputs:
        tensors = {name: leaf(values) for name, values in inputs.items()}
        form = replace(PREFERENCE_LOSSES["dpo"], beta=params["beta"], ref_weight=params["ref_weight"])
        losses = _per_pair(form, tensors)
        return {"losses": losses}, gradients(losses.mean(), tensors)
    lengths = _pair(constant(inputs["len_1"]), constant(inputs["len_2"]))
    reference = -_pair(constant(inputs["ppl_1"]), constant(inputs["ppl_2"])).log() * lengths
    share = constant(inputs["vote_1"])
    normalize = params.get("length_normalized", True)
    ideal = idealized_log_ratio(
        reference, share, beta=params["beta"], lengths=lengths, normalize=normalize, eps=params["eps"]
    )
    target = vote_log_ratio(share, eps=params["eps"])
    correct = vote_agreement(ideal, target, band=params["tie_band"])
    output = {"target_ratio": target.exp(), "ideal_ratio": ideal.exp(), "correct": correct.long()}
    return output | {"accuracy": correct.double().mean()}, {}


def iterative_reasoning(case: Case) -> Result:
    """Paper 106: DPO with the likelihood of the winner, from logits, the likelihood per token of the batch."""
    inputs, params = case["inputs"], case["params"]
    tensors = {name: leaf(inputs[name]) for name in ("chosen_logits", "rejected_logits")}
    found = {
        f"{prefix}{side}": _log_probs(inputs, logits, f"{side}_labels", -100)
        for side in ("chosen", "rejected")
        for prefix, logits in (("", tensors[f"{side}_logits"]), ("ref_", constant(inputs[f"ref_{side}_logits"])))
    }
    logps = _pair(found["chosen"].sums, found["rejected"].sums)
    reference = _pair(found["ref_chosen"].sums, found["ref_rejected"].sums)
    lengths = _pair(found["chosen"].lengths, found["rejected"].lengths)
    per_token = str(params.get("nll_reduction", "token")).startswith("token")
    form = replace(
        PREFERENCE_LOSSES["rpo"],
        beta=params["beta"],
        nll_weight=params["rpo_alpha"],
        nll_reduction="token" if per_token else "example",
    )
    arguments = (logps, torch.tensor([1.0, 0.0]).expand_as(logps), reference, lengths)
    loss = form(*arguments)
    output = {f"{name}_logps": value.sums for name, value in found.items()} | {
        "loss": loss,
        "dpo_losses": replace(form, nll_weight=0.0, reduction="none")(*arguments),
        "nll": replace(form, preference_weight=0.0, nll_weight=1.0)(*arguments),
    }
    return output, gradients(loss, tensors)


def token_contrast(case: Case) -> Result:
    """Paper 112: the binary loss token by token; only cases without a random draw can be compared."""
    inputs, params = case["inputs"], case["params"]
    logits, tokens = leaf(inputs["logits"]), constant(inputs["tokens"], torch.int64)
    terms = cringe_terms(
        logits,
        tokens,
        constant(inputs["labels"], torch.int64),
        tokens != params.get("ignore_index", -100),
        k=params["k"],
        detach_positives=params.get("detach_positives", False),
        contrast_on_positives=params.get("contrast_on_positives", False),
        cross_entropy_on_positives=params.get("ce_on_positives", True),
        generator=torch.Generator().manual_seed(0),  # the candidates tie, all but surely
    )
    loss = terms.cross_entropy + params.get("ct_weight", 1.0) * terms.contrast
    output = {"loss": loss, "ce": terms.cross_entropy, "contrast": terms.contrast}
    return output, gradients(loss.sum(), {"logits": logits})


ADAPTERS: dict[int, Adapter] = {
    0: trl_table,
    50: likelihood_ratio,
    57: unlearning,
    59: alignment,
    76: ranking_of_pairs,
    103: listwise,
    105: merging,
    106: iterative_reasoning,
    110: unlearning,
    112: token_contrast,
}
