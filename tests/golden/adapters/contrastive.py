"""Adapters of the papers on contrastive losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rivals.lists import masked_mean
from rivals.losses import (
    adversarial_negative,
    adversarial_noise_negatives,
    bank_contrastive_loss,
    continual_contrast_loss,
    continual_nt_xent_loss,
    debiased_contrastive_loss,
    distant_positive,
    extrapolate_positives,
    false_negative_weights,
    hardest_negatives,
    hardness_weights,
    imposter_contrastive_loss,
    in_batch_info_nce_loss,
    info_nce_loss,
    interpolate_negatives,
    mann_whitney_loss,
    momentum_contrast_loss,
    momentum_scores,
    softmax_loss,
    structure_aware_info_nce_loss,
)
from rivals.training import GradientCache
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional


def mann_whitney(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 17: `mean` over all pairs of the batch and `sum_over_negatives`; the gradient is that of the mean."""
    inputs, params = case["inputs"], case["params"]
    scores = leaf(inputs["scores"])
    rest = (constant(inputs["relevance"]), optional(inputs.get("mask"), torch.bool))
    options = {
        "weight": optional(inputs.get("weight", inputs.get("weights"))),
        "temperature": params.get("temperature", 1.0),
        "surrogate": params.get("surrogate", "logistic"),
        "margin": params.get("margin", 1.0),
        "graded": params.get("graded", False),
    }
    loss = mann_whitney_loss(scores, *rest, **options)
    added = mann_whitney_loss(scores, *rest, **options, average="positives")
    return {"mean": loss, "sum_over_negatives": added}, gradients(loss, {"scores": scores})


def feature_transformation(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 34: extrapolated positives and interpolated negatives with the draws given; `mix` names what is on."""
    inputs, params = case["inputs"], case["params"]
    query, key, queue = leaf(inputs["query"]), constant(inputs["key"]), constant(inputs["queue"])
    mix = params.get("mix", "posneg")
    if mix not in ("posneg", "pos", "neg", "none"):
        raise ValueError(f"unknown mix {mix!r}")
    pushed, keys = query, key
    if "pos" in mix:
        pushed, keys, _ = extrapolate_positives(
            query, key, factor=constant(inputs["pos_lambda"]), normalize=params.get("renormalize_positives", False)
        )
    if "neg" in mix:
        queue = interpolate_negatives(
            queue, factor=constant(inputs["neg_lambda"]), permutation=constant(inputs["queue_permutation"], torch.int64)
        )
    temperature = params.get("temperature", 0.07)
    loss = momentum_contrast_loss(pushed, keys, queue, temperature=temperature, normalize=False)
    logits = momentum_scores(pushed, keys, queue, normalize=False).scores / temperature
    return {"loss": loss, "logits": logits}, gradients(loss, {"query": query})


def structure_aware(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 35: the losses over [tails, heads, hard tails], and the probabilities of the sampler."""
    inputs, params = case["inputs"], case["params"]
    if params["kind"] == "sampler":
        return _sampler(case), {}
    names = ("query", "tails", "heads", "hard_tails", "false_tails")
    tensors = {name: leaf(inputs[name]) for name in names if inputs.get(name) is not None}
    query, tails, heads = tensors["query"], tensors["tails"], tensors["heads"]
    hard = tensors.get("hard_tails", query.new_zeros(0, query.shape[1])).reshape(-1, query.shape[1])
    scores = query @ torch.cat([tails, heads, hard]).T
    relevance = torch.eye(*scores.shape, dtype=torch.float64)
    if params["kind"] == "simple_infonce":
        options: dict[str, Any] = {}
    else:
        options = {"weight": constant(inputs["prob"]), "num_negatives": params.get("num_neg_used")}
    if params["kind"] == "hasa":
        false = tensors["false_tails"].reshape(len(query), -1, query.shape[1])
        options |= {
            "false_scores": torch.einsum("qd,qfd->qf", query, false),
            "false_weight": constant(inputs["false_prob"]),
            "positive_prior": params["tau"],
        }
    elif params["kind"] not in ("hard_infonce", "simple_infonce"):
        raise ValueError(f"unknown kind {params['kind']!r}")
    margin = params.get("margin", 1.0)
    loss = structure_aware_info_nce_loss(scores, relevance, margin=margin, **options)
    if params.get("plus", False):
        block = scores[:, : len(query)].T
        loss = loss + info_nce_loss(block, torch.eye(len(query)), margin=margin, temperature=1.0)
    return loss, gradients(loss, tensors)


def _sampler(case: Case) -> dict[str, Any]:
    """The reference draws the false tails at random: which ones is read from the record, their weights are ours."""
    inputs, params = case["inputs"], case["params"]
    query, entities = constant(inputs["query"]), constant(inputs["entities"])
    known = torch.zeros(len(query), len(entities))
    for row, tails in enumerate(inputs["known_tail_ids"]):
        known[row, tails] = 1
    known[torch.arange(len(query)), inputs["tail_ids"]] = 1
    hard = hardest_negatives(query @ entities.T, known, count=params["hard_size"])[0].flatten()
    columns = torch.cat([torch.tensor(inputs["tail_ids"]), torch.tensor(inputs["head_ids"]), hard])
    scores = query @ entities[columns].T
    true = torch.zeros(scores.shape, dtype=torch.bool)
    true[:, : len(query)] = known[:, inputs["tail_ids"]] > 0
    prob = hardness_weights(scores, torch.eye(*scores.shape), known=true, known_logit=-10.0)
    false_ids = case["output"]["false_tail_ids"]
    false = torch.einsum("qd,qfd->qf", query, entities[false_ids].reshape(len(query), -1, query.shape[1]))
    false_prob = hardness_weights(false, torch.zeros_like(false))
    return {"prob": prob, "hard_tail_ids": hard, "false_tail_ids": false_ids, "false_prob": false_prob}


def frozen_bank(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 51: the composed query is the sum of a raw reference row and the text; normalising is the loss's part."""
    inputs, params = case["inputs"], case["params"]
    text = leaf(inputs["text"])
    loss = bank_contrastive_loss(
        constant(inputs["reference_bank"])[inputs["reference_index"]] + text,
        constant(inputs["target_bank"]),
        constant(inputs["positive_index"], torch.int64),
        temperature=params.get("temperature", 0.02),
    )
    return loss, gradients(loss, {"text": text})


def large_batch(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 52: a cached step over two towers: its loss and the gradients it leaves in the parameters."""
    inputs, params = case["inputs"], case["params"]
    if params.get("encoder", "tanh(x @ W + b)") != "tanh(x @ W + b)":
        raise ValueError(f"unknown encoder {params['encoder']!r}")
    weights = {name: leaf(values) for name, values in inputs.items() if name.endswith(("_weight", "_bias"))}
    other = "query" if params.get("tied", False) else "document"

    def tower(name: str) -> Callable[[Tensor], Tensor]:
        return lambda rows: (rows @ weights[f"{name}_weight"] + weights[f"{name}_bias"]).tanh()

    def loss(queries: Tensor, documents: Tensor) -> Tensor:
        return in_batch_info_nce_loss(
            queries,
            documents,
            positive_columns=torch.arange(len(queries)) * (1 + params.get("n_hard_negatives", 0)),
            temperature=params.get("temperature", 1.0),
            normalize={"dot": False, "cos": True, "cosine": True}[params.get("similarity", "dot")],
        )

    chunks = [params.get(f"chunk_{name}", params.get("chunk", 2)) for name in ("query", "document")]
    cache = GradientCache([tower("query"), tower(other)], loss, chunk=chunks)
    value = cache.step(constant(inputs["queries"]), constant(inputs["documents"]))
    return value, {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}


def adversarial_perturbations(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 99: imposters and distant targets from hidden states, and the contrastive value over pooled projections."""
    inputs, params = case["inputs"], case["params"]
    encoder, decoder = leaf(inputs["encoder_hidden"]), leaf(inputs["decoder_hidden"])
    head, weight, bias = (constant(inputs[name]) for name in ("lm_head", "proj_weight", "proj_bias"))
    labels = constant(inputs["labels"], torch.int64)
    source_mask, target_mask = (constant(inputs[name], torch.bool) for name in ("source_mask", "target_mask"))
    real = labels >= 0
    temperature = params.get("temperature", 0.1)
    target = torch.zeros(*labels.shape, len(head), dtype=torch.float64)
    target = target.scatter(-1, labels.clamp(min=0).unsqueeze(-1), 1.0)

    def pooled(states: Tensor, mask: Tensor) -> Tensor:
        projected = torch.nn.functional.linear(states, weight, bias).relu()
        return masked_mean(projected, mask.unsqueeze(-1), 1)

    def vocabulary(states: Tensor, towards: Tensor, mask: Tensor) -> Tensor:
        logits = states[mask] @ head.T
        return softmax_loss(logits, towards[mask])

    def likelihood(states: Tensor) -> Tensor:
        return vocabulary(states, target, real)

    def likeness(states: Tensor) -> Tensor:
        return in_batch_info_nce_loss(
            pooled(encoder.detach(), source_mask), pooled(states, target_mask), temperature=temperature
        )

    original = (decoder.detach() @ head.T).softmax(-1)

    def unlikeness(states: Tensor) -> Tensor:
        return vocabulary(states, original, target_mask)  # the divergence from it, up to a constant

    imposter = adversarial_negative(decoder, likelihood, epsilon=params.get("neg_eps", 1.0))
    distant = distant_positive(decoder, likeness, unlikeness, epsilon=params.get("pos_eps", 3.0))
    loss = imposter_contrastive_loss(
        pooled(encoder, source_mask),
        pooled(decoder, target_mask),
        imposters=pooled(imposter, target_mask).unsqueeze(1),
        distant=pooled(distant, target_mask),
        temperature=temperature,
        distant_temperature=params.get("distant_temperature", 1.0),
    )
    output = {"nll": likelihood(decoder), "contrastive": loss, "imposter": imposter, "distant_target": distant}
    return output, gradients(loss, {"encoder_hidden": encoder, "decoder_hidden": decoder})


def continual(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 102: one direction of the form with queues ("moco"), or the form over a batch ("simclr")."""
    inputs, params = case["inputs"], case["params"]
    if params["function"] == "moco":
        tensors = {name: leaf(inputs[name]) for name in ("query", "predicted")}
        loss = continual_contrast_loss(
            tensors["query"],
            constant(inputs["key"]),
            constant(inputs["queue_current"]).T,
            predicted=tensors["predicted"],
            frozen=constant(inputs["frozen"]),
            frozen_queue=constant(inputs["queue_frozen"]).T,
            temperature=params.get("temperature", 0.2),
            distill_temperature=params.get("distill_temperature", 0.2),
            normalize=False,
        )
    elif params["function"] == "simclr":
        tensors = {name: leaf(inputs[name]) for name in ("z1", "z2", "p1", "p2")}
        loss = continual_nt_xent_loss(
            *tensors.values(),
            constant(inputs["frozen1"]),
            constant(inputs["frozen2"]),
            temperature=params.get("temperature", 0.2),
            positive_in_denominator=params.get("positive_in_denominator", False),
        )
    else:
        raise ValueError(f"unknown function {params['function']!r}")
    return loss, gradients(loss, tensors)


def debiased(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 114: weights from the complementary model, noise after its steps, and the loss in either form."""
    inputs, params = case["inputs"], case["params"]
    tensors = {name: leaf(inputs[name]) for name in ("z1", "z2")}
    temperature = params.get("temperature", 0.05)
    unit = {name: torch.nn.functional.normalize(tensor) for name, tensor in tensors.items()}
    noise = adversarial_noise_negatives(
        tensors["z1"],
        unit["z1"] @ unit["z2"].T,
        noise=constant(inputs["noise"]).reshape(-1, tensors["z1"].shape[1]),
        steps=params.get("noise_steps", 4),
        step_size=params.get("noise_step_size", 1e-3),
        temperature=temperature,
    )
    weight = false_negative_weights(constant(inputs["c1"]), constant(inputs["c2"]), threshold=params.get("phi", 0.85))
    loss = debiased_contrastive_loss(
        tensors["z1"],
        tensors["z2"],
        weight=weight,
        noise=noise,
        temperature=temperature,
        form=params.get("form", "paper"),
    )
    documents = torch.cat([unit["z2"], torch.nn.functional.normalize(noise)])
    return {"loss": loss, "similarities": unit["z1"] @ documents.T / temperature, "noise": noise}, gradients(
        loss, tensors
    )


ADAPTERS: dict[int, Adapter] = {
    17: mann_whitney,
    34: feature_transformation,
    35: structure_aware,
    51: frozen_bank,
    52: large_batch,
    99: adversarial_perturbations,
    102: continual,
    114: debiased,
}
