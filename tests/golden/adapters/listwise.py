"""Adapters of the papers on list-wise and smooth losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    adversarial_feedback,
    adversarial_retriever_loss,
    circle_ranking_loss,
    dynamic_plackett_luce_loss,
    group_ordering_contrastive_loss,
    neural_ndcg_loss,
    neural_sort,
    plackett_luce_log_prob,
    policy_gradient_loss,
    ranking_utility,
    sinkhorn,
    soft_label_alignment_loss,
    soft_sort,
    softmax_loss,
    two_view_ranking_loss,
)
from rivals.models.list_transformer import ListContrastRanker, iterative_rerank
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf, optional


def judge_alignment(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 7: scores and a judge's target_scores."""
    inputs, params = case["inputs"], case["params"]
    scores = leaf(inputs["scores"])
    loss = soft_label_alignment_loss(
        scores,
        constant(inputs["target_scores"]),
        optional(inputs.get("mask"), torch.bool),
        temperature=params.get("temperature", 0.02),
        eps=params.get("eps", 1e-8),
        direction=params.get("direction", "symmetric"),
    )
    return loss, gradients(loss, {"scores": scores})


def neural_ndcg(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 8: the loss, deterministic, transposed or with given noise, or the sort matrix."""
    inputs, params = case["inputs"], case["params"]
    scores, mask = leaf(inputs["scores"]), optional(inputs.get("mask"), torch.bool)
    rounds = {"max_iter": params.get("max_iter", 50), "tol": params.get("tol", 1e-6)}
    quantity = params.get("quantity", "loss")
    if quantity.startswith("neural_sort"):
        matrix = neural_sort(scores, mask, temperature=params.get("temperature", 1.0))
        return matrix if quantity == "neural_sort" else sinkhorn(matrix, mask, **rounds), {}
    gumbel = optional(inputs.get("gumbel"))
    if gumbel is not None:
        gumbel = gumbel.reshape(-1, *scores.shape)
    loss = neural_ndcg_loss(
        scores,
        constant(inputs["relevance"]),
        mask,
        temperature=params.get("temperature", 1.0),
        k=params.get("k"),
        gain="exponential" if params.get("powered_relevancies", True) else "linear",
        transposed=params.get("transposed", False),
        noise=None if gumbel is None else "gumbel",
        gumbel=gumbel,
        beta=params.get("beta", 0.1),
        log_scores=params.get("log_scores", True),
        **rounds,
    )
    return loss, gradients(loss, {"scores": scores})


def adversarial_retriever_ranker(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 11: both branches; the first document of every query is the positive."""
    params = case["params"]
    tensors = {name: leaf(case["inputs"][name]) for name in ("queries", "documents", "ranker_logits")}
    scores = torch.einsum("qd,qcd->qc", tensors["queries"], tensors["documents"])
    if params.get("scale_by_sqrt_dim"):
        scores = scores / tensors["queries"].shape[1] ** 0.5
    relevance = torch.zeros_like(scores)
    relevance[:, 0] = 1
    eps = params.get("eps", 1e-7)

    def retriever(adv_lambda: float) -> Tensor:
        return adversarial_retriever_loss(
            scores,
            relevance,
            ranker_scores=tensors["ranker_logits"],
            adv_lambda=adv_lambda,
            temperature=params.get("temperature", 1.0),
            eps=eps,
            adversarial_reduction="mean" if params.get("adversarial_reduction", "sum").startswith("mean") else "sum",
        )

    loss, ranker = retriever(params.get("adv_lambda", 0.5)), softmax_loss(tensors["ranker_logits"], relevance)
    output = {
        "retriever_loss": loss,
        "adversarial_loss": retriever(1.0),
        "distillation_loss": retriever(0.0),
        "reward": adversarial_feedback(tensors["ranker_logits"], relevance, eps=eps),
        "ranker_loss": ranker,
    }
    return output, gradients(loss + ranker, tensors)


def group_ordering(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 22: the loss between views, or the sorting network alone."""
    inputs, params = case["inputs"], case["params"]
    options = {
        "steepness": params.get("steepness", 1.0),
        "cdf": params.get("cdf", params.get("distribution", "cauchy")),
        "phi": params.get("art_lambda", 0.25),
    }
    if "views" in inputs:
        views = leaf(inputs["views"])
        loss = group_ordering_contrastive_loss(
            views,
            top_negatives=params.get("topk_neg", 10),
            stop_grad=params.get("stop_grad", True),
            positive_views=params.get("n_pos_views"),
            **options,
        )
        return loss, gradients(loss, {"views": views})
    values = leaf(inputs["values"])
    found = soft_sort(values, network=params.get("network", params.get("sorting_network_type", "odd_even")), **options)
    output = {"sorted": found.values, "permutation": found.permutation}
    squared = gradients(found.values.square().sum(), {"values_of_sum_of_squared_sorted": values})
    return output, squared


def passage_embedding_reranking(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 83: decoder states times passages are the step scores, in one view or in two."""
    inputs, params = case["inputs"], case["params"]
    tensors = {name: leaf(values) for name, values in inputs.items() if name != "ranking"}
    order = constant(inputs["ranking"], torch.int64)
    steps = {
        name: torch.einsum("btd,bjd->btj", hidden, tensors["passages"])
        for name, hidden in tensors.items()
        if name.startswith("hidden")
    }
    if "hidden" in steps:
        loss = dynamic_plackett_luce_loss(steps["hidden"], order)
    else:
        loss = two_view_ranking_loss(
            steps["hidden_embedding_only"],
            steps["hidden_with_text"],
            order,
            kl_weight=params.get("kl_weight", 0.2),
            student_weight=params.get("w1", 1.0),
            teacher_weight=params.get("w2", 1.0),
        )
    return loss, gradients(loss, tensors)


def policy_gradient(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 97: one list and its sampled rankings; with a baseline also the log-probabilities and utilities."""
    inputs, params = case["inputs"], case["params"]
    scores, relevance = leaf(inputs["scores"]), constant(inputs["relevance"])
    weights, rankings = constant(inputs["rank_weights"]), constant(inputs["rankings"], torch.int64)
    mask = optional(inputs.get("mask"), torch.bool)
    loss = policy_gradient_loss(
        scores,
        relevance,
        mask,
        utility="dcg",
        rank_weights=weights,
        rankings=rankings,
        baseline={"loo": "leave_one_out"}.get(params.get("baseline"), params.get("baseline")),
        estimator="reward_to_go" if params.get("reward_to_go") else params.get("estimator", "reinforce"),
        temperature=params.get("temperature", 1.0),
    )
    output: Any = loss
    if isinstance(case["output"], dict):
        output = {
            "loss": loss,
            "log_prob": plackett_luce_log_prob(scores, rankings, mask, k=len(weights)),
            "utility": ranking_utility(rankings, relevance, mask, utility="dcg", rank_weights=weights),
        }
    return output, gradients(loss, {"scores": scores})


def list_contrast_ranker(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 116: circle loss of a list, the model's scores, and iterative inference."""
    inputs, params = case["inputs"], case["params"]
    if params["quantity"] == "circle_loss":
        tensors = {name: leaf(inputs[name]) for name in ("positive_scores", "negative_scores")}
        positive, negative = tensors.values()
        relevance = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])
        loss = circle_ranking_loss(
            torch.cat([positive, negative]),
            relevance,
            margin=params.get("m", -0.2),
            scale=params.get("gamma", 10.0),
            apply_sigmoid=False,
        )
        return loss, gradients(loss, tensors)
    if params["quantity"] == "iterative_inference":
        return _rounds(inputs, params)
    return _list_scores(inputs, params)


def _rounds(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    base = constant(inputs["base"])
    bump = constant(inputs.get("bump", [0.0] * len(base)))
    calls: list[int] = []

    def score(left: Tensor) -> Tensor:
        calls.append(len(left))
        return (base[left] + bump[left] * (len(left) % 7) / 7) % 1

    options = {ours: params[theirs] for ours, theirs in (("keep", "keep"), ("drop", "drop")) if theirs in params}
    return {"final": iterative_rerank(score, len(base), **options), "items_per_call": calls}, {}


_NAMES = {
    "list_transformer.layers": "blocks",
    "query_embedding.query_embedding": "kind",
    "query_embedding.layerNorm": "kind_norm",
    "linear_score3": "together",
    "linear_score2": "alone",
    "linear_score1": "output",
}


def _list_scores(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    ranker = ListContrastRanker(
        params["width"], heads=params["heads"], layers=params["layers"], d_ff=params["dim_feedforward"]
    ).double()
    state = {}
    for name, values in inputs["state"].items():
        old = next(old for old in _NAMES if name.startswith(old))
        state[_NAMES[old] + name.removeprefix(old)] = constant(values)
    ranker.load_state_dict(state)
    ranker.eval()
    features, counts = leaf(inputs["features"]), inputs["n_passages"]
    rows = torch.split(features, [count + 1 for count in counts])
    passages = torch.nn.utils.rnn.pad_sequence([row[1:] for row in rows], batch_first=True)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    scores = ranker(torch.stack([row[0] for row in rows]), passages, mask)[mask].sigmoid()
    return scores, gradients(scores.sum(), {"features": features})


ADAPTERS: dict[int, Adapter] = {
    7: judge_alignment,
    8: neural_ndcg,
    11: adversarial_retriever_ranker,
    22: group_ordering,
    83: passage_embedding_reranking,
    97: policy_gradient,
    116: list_contrast_ranker,
}
