"""Adapters of papers on pairs weighted by ranks, values or another model, and on boosting: 5, 21, 47, 69, 77, 84."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rivals.losses import (
    coupled_losses,
    first_loss,
    lambda_loss,
    lambdamart_gradients,
    ordinal_loss,
    pairwise_logistic_gradients,
    pairwise_logistic_loss,
    profit_aware_pairwise_loss,
    rank_weighted_ranknet_loss,
    yeti_weights,
)
from rivals.models.grownet import GrowNetEnsemble
from rivals.models.list_ranker import ContextRanker
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional

Answer = tuple[Any, dict[str, Tensor]]

SCHEMES = {
    None: None,
    "ndcgLoss1_scheme": "ndcg1",
    "ndcgLoss2_scheme": "ndcg2",
    "ndcgLoss2PP_scheme": "ndcg2pp",
    "lambdaRank_scheme": "lambdarank",
    "rankNet_scheme": "ranknet",
    "rankNetWeightedByGTDiff_scheme": "ranknet_diff",
    "rankNetWeightedByGTDiffPowed_scheme": "ranknet_diff2",
}


def coupled_estimation(case: Case) -> Answer:
    """Paper 5: pairs of a positive (column 0) and a negative, scored by a relevance and by a selection model."""
    tensors = {name: leaf(case["inputs"][name]) for name in ("relevance_scores", "selection_scores")}
    own, other = tensors.values()
    relevance = torch.zeros_like(own.detach())
    relevance[:, 0] = 1.0
    found = coupled_losses(own, other, relevance, debias_ratio=case["params"].get("debias_ratio", 10.0))
    output = {
        "relevance_weights": found.relevance_weight[:, 1],
        "selection_weights": found.selection_weight[:, 1],
        "relevance_loss": found.relevance_loss,
        "selection_loss": found.selection_loss,
        "relevance_loss_unweighted": pairwise_logistic_loss(own, relevance),
        "selection_loss_unweighted": pairwise_logistic_loss(other, relevance),
    }
    return output, gradients(found.relevance_loss + found.selection_loss, tensors)


def context_aware_ranking(case: Case) -> Answer:
    """Paper 21: lambda losses, the ordinal loss, and the ranker itself."""
    inputs, params = case["inputs"], case["params"]
    if "x" in inputs:
        return _ranker(inputs, params)
    mask = optional(inputs.get("mask"), torch.bool)
    if params.get("loss") == "ordinal":
        logits = leaf(inputs["logits"])
        loss = ordinal_loss(logits, constant(inputs["relevance"]), mask, reduction=params.get("reduction", "mean"))
        return loss, gradients(loss, {"logits": logits})
    scores = leaf(inputs["scores"])
    loss = lambda_loss(
        scores,
        constant(inputs["relevance"]),
        mask,
        scheme=SCHEMES[params["weighing_scheme"]],
        k=params.get("k"),
        mu=params.get("mu", 10.0),
        sigma=params.get("sigma", 1.0),
        log_base={"binary": 2.0, "natural": torch.e}[params.get("reduction_log", "binary")],
        reduction=params.get("reduction", "sum"),
    )
    return loss, gradients(loss, {"scores": scores})


def _ranker(inputs: Case, params: Case) -> Answer:
    state = {_ranker_name(name): constant(values) for name, values in inputs["state"].items()}
    widths = [len(values) for name, values in state.items() if re.fullmatch(r"fc\.\d+\.weight", name)]
    activation = params.get("output_activation")
    ranker = ContextRanker(
        params["n_features"],
        fc=tuple(widths),
        n_layers=params["n_layers"],
        heads=params["heads"],
        d_ff=params["d_ff"],
        d_output=params.get("d_output", 1),
        output_activation=None if activation is None else activation.lower(),
        norm="annotated",
    )
    ranker.double().eval().load_state_dict(state)
    x, mask = leaf(inputs["x"]), constant(inputs["mask"], torch.bool)
    scores = ranker.score(x, mask).masked_fill(~mask, 0.0)
    return scores, gradients(scores.sum(), {"x": x})


def _ranker_name(name: str) -> str:
    """The name in `ContextRanker` of a parameter of the reference."""
    name = re.sub(r"^input_layer\.layers\.(\d+)", lambda found: f"fc.{3 * int(found[1])}", name)
    name = re.sub(r"^encoder\.layers\.(\d+)\.", r"blocks.\1.", name)
    for number, part in enumerate(("query", "key", "value", "out")):
        name = name.replace(f"self_attn.linears.{number}", part)
    name = re.sub(r"sublayer\.(\d)\.norm", r"norms.\1", name)
    for theirs, ours in (
        ("feed_forward.w_1", "wide"),
        ("feed_forward.w_2", "narrow"),
        ("encoder.norm", "norm"),
        ("output_layer.w_1", "output"),
        ("a_2", "scale"),
        ("b_2", "shift"),
    ):
        name = name.replace(theirs, ours)
    return name


def catboost_ranking(case: Case) -> Answer:
    """Paper 47: the step of a tree that isolates every document. YetiRank there knows no other gains and discounts."""
    params = case["params"]
    scores, relevance = constant(case["inputs"]["scores"]), constant(case["inputs"]["relevance"])
    top = params.get("top")
    top = None if top in (None, -1) else int(top)
    if params["loss"] == "LambdaMart":
        if params.get("metric", "NDCG") not in ("NDCG", "DCG"):  # they differ by a factor that CatBoost divides out
            raise ValueError(f"LambdaMart for {params['metric']} is not what the card defines")
        found = lambdamart_gradients(
            scores,
            relevance,
            top=top,
            gain={"Base": "linear", "Exp": "exponential"}[params.get("type", "Base")],
            denominator={"LogPosition": "log", "Position": "position"}[params.get("denominator", "LogPosition")],
            sigma=params.get("sigma", 1.0),
            norm=params.get("norm", True),
        )
        return found.gradient, {}
    if params.get("noise", "Gumbel") != "No":
        raise ValueError("a case with noise cannot be compared")
    weights = yeti_weights(
        scores,
        relevance,
        metric=params.get("mode", "Classic").lower(),
        top=top,
        num_neighbors=params.get("num_neighbors", 1),
        decay=params.get("decay", 0.85),
        noise=None,
    )
    found = pairwise_logistic_gradients(scores, relevance, pair_weight=weights)
    step = torch.where(found.curvature > 0, -found.gradient / found.curvature, 0.0)
    return step - step.mean(), {}


def grownet(case: Case) -> Answer:
    """Paper 69: losses, gradients and second derivatives of RankNet with ties, and the ensemble of networks."""
    inputs, params = case["inputs"], case["params"]
    if "stages" in inputs:
        return _grownet_ensemble(inputs, params)
    scores = constant(inputs["scores"])
    found = pairwise_logistic_gradients(
        scores,
        constant(inputs["relevance"]),
        optional(inputs.get("mask"), torch.bool),
        sigma=params.get("sigma", 1.0),
        ties=True,
    )
    output = {"loss": found.value, "order1": found.gradient, "order2": found.curvature}
    return output, {"scores_of_sum_of_loss": 2 * found.gradient}  # both ends of a pair count it


def _grownet_ensemble(inputs: Case, params: Case) -> Answer:
    x = leaf(inputs["x"])
    ensemble = GrowNetEnsemble(
        x.shape[1], params["hidden"], offset=params.get("c0", 0.0), boost_rate=params.get("boost_rate", 1.0)
    )
    for recorded in inputs["stages"]:
        state = {_grownet_name(name): constant(values) for name, values in recorded.items()}
        if not len(ensemble.learners):  # the reference makes, and never uses, a norm of the first learner's input
            state = {name: values for name, values in state.items() if not name.startswith("input_norm.")}
        learner = ensemble.add_learner().double()
        learner.load_state_dict(learner.state_dict() | state)
    prediction, penultimate = ensemble.eval()(x)
    output = {"prediction": prediction, "penultimate_of_last_stage": penultimate}
    return output, gradients(prediction.sum(), {"x": x})


def _grownet_name(name: str) -> str:
    """The name in `GrowNetLearner` of a parameter of the reference."""
    layer, _, part = name.partition(".")
    ours = {"in_layer": "inner", "hidden_layer": "hidden", "out_layer": "output", "bn": "norm", "bn2": "input_norm"}
    return f"{ours[layer]}.{part}"


def profit_aware(case: Case) -> Answer:
    """Paper 77: flat scores and profits, split into lists by their lengths."""
    inputs, params = case["inputs"], case["params"]
    flat = leaf(inputs["scores"])
    parts = [values.split(inputs["lengths"]) for values in (flat, constant(inputs["pnl"]), torch.ones(len(flat)))]
    scores, value, there = (pad_sequence(list(part), batch_first=True) for part in parts)
    loss = profit_aware_pairwise_loss(scores, value, there.bool(), top_k=params.get("top_k"))
    return loss, gradients(loss, {"scores": flat})


def first_token_reranking(case: Case) -> Answer:
    """Paper 84: a target rank (0 = best) for every candidate."""
    inputs, params = case["inputs"], case["params"]
    scores, rank = leaf(inputs["scores"]), constant(inputs["rank"])
    mask = optional(inputs.get("mask"), torch.bool)
    weighting = "inverse_rank_sum" if params.get("weighted", True) else None
    arguments = scores, rank.max() - rank, mask
    if "lm_loss" in inputs:
        given = constant(inputs["lm_loss"])
        loss = first_loss(*arguments[:2], given, mask, weighting=weighting, rank_weight=params.get("rank_weight", 10.0))
        return {"loss": loss}, gradients(loss, {"scores": scores})
    loss = rank_weighted_ranknet_loss(*arguments, weighting=weighting)
    each = rank_weighted_ranknet_loss(*arguments, weighting=weighting, reduction="none")
    return {"loss": loss, "per_list": each}, gradients(loss, {"scores": scores})


ADAPTERS: dict[int, Adapter] = {
    5: coupled_estimation,
    21: context_aware_ranking,
    47: catboost_ranking,
    69: grownet,
    77: profit_aware,
    84: first_token_reranking,
}
TOLERANCES = {47: 1e-5}
"""CatBoost keeps pair weights in float32 (the recorded note asks for 1e-5)."""
