"""Adapters of the retrieval papers: the multiple negatives ranking loss, routed experts, RankT5, NV-Retriever's mining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.data import Collection, Run
from rivals.losses import (
    binary_cross_entropy_loss,
    in_batch_info_nce_loss,
    pairwise_logistic_loss,
    poly1_softmax_loss,
    softmax_loss,
)
from rivals.models.routed import RoutedExperts
from rivals.negatives import KnownPositives, PositiveAware, Top
from tests.golden.adapters.case import Adapter, Case, gradients, leaf


def multiple_negatives_ranking(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 1: documents are the positives, then negatives_1, negatives_2, ...; temperature 1 / scale."""
    tensors = {name: leaf(values) for name, values in case["inputs"].items()}
    negatives = sorted((n for n in tensors if n.startswith("negatives")), key=lambda n: int(n.rpartition("_")[2] or 0))
    documents = torch.cat([tensors["positives"], *(tensors[name] for name in negatives)])
    params = case["params"]
    similarity = params.get("similarity", "cosine")
    loss = in_batch_info_nce_loss(
        tensors["queries"],
        documents,
        temperature=1.0 / params.get("scale", 20.0),
        normalize={"cosine": True, "cos": True, "cos_sim": True, "dot": False, "dot_score": False}[similarity],
    )
    return loss, gradients(loss, tensors)


def mixture_of_experts(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 3: `mnr` and `mnr_plus` on paired embeddings a and b; routed linear experts."""
    inputs, params = case["inputs"], case["params"]
    if "assignment" in inputs:
        return _routed(inputs)
    tensors = {name: leaf(inputs[name]) for name in ("a", "b")}
    plus = {"mnr": False, "mnr_plus": True}[params["kind"]]
    loss = in_batch_info_nce_loss(
        tensors["a"],
        tensors["b"],
        temperature=1.0,
        normalize=params.get("normalize", False),
        directions=("query_to_document", "document_to_query") if plus else ("query_to_document",),
        targets="similarity" if plus else "diagonal",
    )
    return loss, gradients(loss, tensors)


def _routed(inputs: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    hidden, weight, bias = (leaf(inputs[name]) for name in ("hidden", "weight", "bias"))
    number, out, width = weight.shape
    experts = RoutedExperts(nn.Linear(width, out, dtype=torch.float64), num_experts=number)
    with torch.no_grad():
        for expert, w, b in zip(experts.experts, weight, bias, strict=True):
            expert.weight.copy_(w)
            expert.bias.copy_(b)
    output = experts(hidden, torch.tensor(inputs["assignment"], dtype=torch.int64))
    output.sum().backward()

    def stacked(name: str) -> Tensor:
        parameters = [expert.get_parameter(name) for expert in experts.experts]
        return torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])

    return output.detach(), {"hidden": hidden.grad, "weight": stacked("weight"), "bias": stacked("bias")}


RANKING_LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax_loss,
    "pairwise_logistic": pairwise_logistic_loss,
    "pointwise_sigmoid": binary_cross_entropy_loss,
    "poly1_softmax": poly1_softmax_loss,
}


def ranking_losses(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 6: a loss by name over scores, relevance and, where given, mask."""
    inputs, params = case["inputs"], dict(case["params"])
    scores = leaf(inputs["scores"])
    mask = inputs.get("mask")
    loss = RANKING_LOSSES[params.pop("loss")](
        scores,
        torch.tensor(inputs["relevance"], dtype=torch.float64),
        None if mask is None else torch.tensor(mask, dtype=torch.bool),
        **params,
    )
    return loss, gradients(loss, {"scores": scores})


def positive_aware_mining(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 13: the negatives mined from a matrix of scores by `KnownPositives >> PositiveAware >> Top`."""
    params = case["params"]
    scores = np.asarray(case["inputs"]["scores"], dtype=np.float32)
    positives = [[p for p in row if p >= 0] for row in case["inputs"]["positives"]]
    if params.get("strategy", "top") != "top":
        raise ValueError(f"strategy {params['strategy']!r} draws at random; only 'top' can be compared")
    rules = {
        "relative": params.get("relative_margin"),
        "absolute": params.get("absolute_margin"),
        "max_score": params.get("max_score"),
        "min_score": params.get("min_score"),
    }
    rules = {name: value for name, value in rules.items() if value is not None}
    run = _candidates(scores, positives, params, bool(rules.keys() - {"min_score"}))
    pipeline = KnownPositives()
    if rules:
        pipeline = pipeline >> PositiveAware(**rules)
    marked = pipeline(run)
    sampler = Top(params["num_negatives"], skip=params.get("range_min", 0))
    if not sampler.pool(marked).any():  # our samplers refuse to draw from nothing; the reference returns nothing
        return {"negatives": [[] for _ in positives]}, {}
    draw = sampler.draw(marked, np.random.default_rng(0))
    rows = [candidates[mask].tolist() for candidates, mask in zip(draw.candidate, draw.mask, strict=True)]
    return {"negatives": rows}, {}


def _candidates(scores: Any, positives: list[list[int]], params: dict[str, Any], filtered: bool) -> Run:
    """The top `range_max` + most positives documents of every query, as the reference retrieves them."""
    most = max(map(len, positives))
    depth = params.get("range_max")
    if depth is None:
        depth = params.get("range_min", 0) + params["num_negatives"] * (10 if filtered else 1) + most
    width = scores.shape[1]
    depth = min(depth + most, width)
    document = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    ids = [f"{width - 1 - row:09d}" for row in range(width)]  # equal scores: the earlier document first
    owner = np.repeat(np.arange(len(scores)), [len(row) for row in positives])
    flat = np.asarray([p for row in positives for p in row], dtype=np.int64)
    return Run.build(
        Collection([f"q{row}" for row in range(len(scores))], name="query"),
        Collection(ids),
        np.arange(len(scores) + 1) * depth,
        document.reshape(-1),
        np.take_along_axis(scores, document, axis=1).reshape(-1),
        positives=(np.concatenate([[0], np.cumsum([len(row) for row in positives])]), flat),
        positive_score=scores[owner, flat],
        score_kind="cosine",
    )


ADAPTERS: dict[int, Adapter] = {
    1: multiple_negatives_ranking,
    3: mixture_of_experts,
    6: ranking_losses,
    13: positive_aware_mining,
}
