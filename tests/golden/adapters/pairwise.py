"""Adapters of the papers on pair losses and recommender losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rivals.losses import (
    CurriculumWeighting,
    absolute_error_loss,
    angle_loss,
    angle_similarity,
    cosent_loss,
    cosine_contrastive_loss,
    graded_margin_loss,
    info_nce_loss,
    lambda_loss,
    looks_relevant,
    multi_positive_softmax_loss,
    pairwise_hinge_loss,
    pairwise_logistic_loss,
    pairwise_softmax_loss,
    probability_error_loss,
    score_cdf,
    smooth_l1_loss,
    squared_error_loss,
)
from rivals.measures import krippendorff_alpha
from rivals.models.late_interaction import sentence_attention_score
from rivals.models.simplex import HistoryMixer
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf

Found = tuple[Any, dict[str, Tensor]]


def pairwise_softmax(case: Case) -> Found:
    """Paper 19: cosines of users with a positive and negatives; method 2 is the BPR-like form."""
    tensors = {name: leaf(values) for name, values in case["inputs"].items()}
    params = case["params"]
    items = torch.cat([tensors["positive"].unsqueeze(1), tensors["negatives"]], 1)
    scores = torch.nn.functional.cosine_similarity(tensors["user"].unsqueeze(1), items, dim=-1)
    relevance = torch.zeros_like(scores)
    relevance[:, 0] = 1
    tau, tau_star, activation = params["tau"], params.get("tau_star"), params["activation"]
    if activation == "exp":  # the baseline's temperature divides once
        tau_star = 1.0
    loss = pairwise_softmax_loss(
        scores,
        relevance,
        activation=activation,
        tau=tau,
        tau_star=tau_star if tau_star is not None else 1.0,
        form={1: "softmax", 2: "bpr"}[params.get("method", 1)],
        check_range=False,
    )
    return loss, gradients(loss, tensors)


def cosine_contrastive(case: Case) -> Found:
    """Paper 23: the loss on cosines, the first column positive; users mixed with their history."""
    inputs, params = case["inputs"], case["params"]
    if params.get("quantity", "ccl") == "ccl":
        scores = leaf(inputs["scores"])
        relevance = torch.zeros_like(scores)
        relevance[:, 0] = 1
        loss = cosine_contrastive_loss(
            scores,
            relevance,
            margin=params["margin"],
            negative_weight=params["negative_weight"] or None,
            check_range=False,
        )
        return loss, gradients(loss, {"scores": scores})
    tensors = {name: leaf(inputs[name]) for name in ("user", "history")}
    state = {name: constant(values) for name, values in inputs["state"].items()}
    mixer = HistoryMixer(
        tensors["user"].shape[1], pooling=params["aggregator"], gamma=params["gamma"], legacy_padding=True
    ).double()
    names = {
        "W_v.weight": "value.weight",
        "W_k.0.weight": "key.weight",
        "W_k.0.bias": "key.bias",
        "W_q.weight": "query",
    }
    loaded = {names[name]: value for name, value in state.items() if name in names}
    if "query" in loaded:
        loaded["query"] = loaded["query"].reshape(-1, 1)
    mixer.load_state_dict(loaded)
    found = mixer(tensors["user"], tensors["history"], tensors["history"].detach().sum(-1) != 0)
    return found, gradients(found.sum(), tensors)


def balanced_summaries(case: Case) -> Found:
    """Paper 36: the ranking loss on costs, the contrastive loss with weights, the sentence attention score."""
    inputs, params = case["inputs"], case["params"]
    if "summary" in inputs:
        tensors = {name: leaf(inputs[name]) for name in ("summary", "sentences")}
        found = sentence_attention_score(tensors["summary"], tensors["sentences"], normalize=False)
        return found, gradients(found.sum(), tensors)
    scores = leaf(inputs["scores"])
    if "costs" in inputs:
        relevance = 1 - constant(inputs["costs"])
        loss = graded_margin_loss(scores, relevance, margin=params["margin"], presorted=True)
        return loss, gradients(loss, {"scores": scores})
    negatives = leaf(inputs["negative_scores"])
    everything = torch.cat([scores, negatives], 1)
    relevance = torch.cat([torch.ones_like(scores), torch.zeros_like(negatives)], 1)
    weight = torch.ones_like(everything)
    if params.get("instance_weighting") and inputs.get("weights") is not None:
        weight = torch.cat([constant(inputs["weights"]), torch.ones_like(negatives)], 1)
    smoothing = params.get("label_smoothing", False)
    loss = multi_positive_softmax_loss(
        everything,
        relevance,
        weight=weight.detach(),
        label_smoothing=0.1 if smoothing is True else float(smoothing or 0.0),
    )
    return loss, gradients(loss, {"scores": scores, "negative_scores": negatives})


def answer_curricula(case: Case) -> Found:
    """Paper 48: the release's product of mean loss and mean weight, pair by pair or document by document."""
    inputs, params = case["inputs"], case["params"]
    if params.get("quantity") == "kde_cdf":
        return score_cdf(constant(inputs["run_scores"]), constant(inputs["x"])), {}
    scores = leaf(inputs["scores"])
    curriculum = CurriculumWeighting(
        end=params["end_of_curriculum"], anti=params.get("anti", False), reduction="product_of_means"
    )
    curriculum.step(params["epoch"])
    if "rank" in inputs:
        ranks = constant(inputs["rank"], torch.int64)
        looks = looks_relevant(torch.zeros_like(ranks, dtype=torch.float64), ranks=ranks)
    else:
        looks = constant(next(inputs[name] for name in ("normscore", "kdescore", "difficulty") if name in inputs))
    if params["form"] == "pointwise":
        relevance = constant(inputs["relevance"])
        rules: dict[str, Callable[..., Tensor]] = {
            "mse": squared_error_loss,
            "l1": absolute_error_loss,
            "smoothl1": smooth_l1_loss,
            "smooth_l1": smooth_l1_loss,
        }
        losses = rules[params["loss"]](scores.unsqueeze(-1), relevance.unsqueeze(-1), reduction="none")
        loss = curriculum(losses, curriculum.documents(looks, relevance))
        return loss, gradients(loss, {"scores": scores})
    width = 1 + params.get("num_neg", scores.shape[1] - 1)
    rows, looks = scores.reshape(-1, width), looks.reshape(-1, width)
    relevance = torch.zeros_like(rows)
    relevance[:, 0] = 1
    pair_rules: dict[str, Callable[..., Tensor]] = {
        "softmax": probability_error_loss,
        "cross_entropy": lambda *given, **options: info_nce_loss(*given, temperature=1.0, **options),
        "hinge": lambda *given, **options: pairwise_hinge_loss(*given, margin=0.0, **options) / (width - 1),
    }
    losses = pair_rules[params["loss"]](rows, relevance.detach(), reduction="none")
    loss = curriculum(losses, curriculum.pairs(looks[:, 0], looks[:, 1:]))
    return loss, gradients(loss, {"scores": scores})


def graded_sentences(case: Case) -> Found:
    """Paper 43: the CoSENT term of the batch balance loss."""
    tensors = {name: leaf(case["inputs"][name]) for name in ("left", "right")}
    labels = constant(case["inputs"]["similarity_labels"])
    loss = cosent_loss(tensors["left"], tensors["right"], labels, scale=1 / case["params"]["temperature"])
    return loss, gradients(loss, tensors)


def ordinal_words(case: Case) -> Found:
    """Paper 119: CoSENT and AnglE with their pair scores, Krippendorff's alpha."""
    inputs, params = case["inputs"], case["params"]
    if params["function"] == "krippendorff_alpha":
        ratings = [[float("nan") if value is None else float(value) for value in row] for row in inputs["reliability"]]
        return float(krippendorff_alpha(torch.tensor(ratings, dtype=torch.float64), level=params["level"])), {}
    tensors = {name: leaf(inputs[name]) for name in ("a", "b")}
    angle = params["function"] == "angle"
    loss = (angle_loss if angle else cosent_loss)(*tensors.values(), constant(inputs["labels"]), scale=params["scale"])
    similar = angle_similarity if angle else torch.nn.functional.cosine_similarity
    scores = similar(tensors["a"].detach(), tensors["b"].detach())
    return {"loss": loss, "pair_scores": scores}, gradients(loss, tensors)


def dense_retrieval_pairs(case: Case) -> Found:
    """Paper 29: STAR's pairs over in-batch and hard documents with masks, random pairs, and ADORE on retrieved lists."""
    inputs, params = case["inputs"], case["params"]
    if params["objective"] == "adore_lambda":
        return _adore(inputs, params)
    names = ("queries", "positives", "hard_negatives", "other_negatives")
    tensors = {name: leaf(inputs[name]) for name in names if inputs.get(name) is not None}
    queries, positives = tensors["queries"], tensors["positives"]
    further = next((tensors[name] for name in names[2:] if name in tensors), None)
    size, width = len(queries), queries.shape[1]
    own = torch.eye(size, dtype=torch.bool)
    star = params["objective"] == "star_pairwise"
    usable = inputs.get("in_batch_mask")
    inside = ~own if usable is None else constant(usable).bool() & ~own
    mask = (inside if star else torch.zeros_like(own)) | own
    scores = queries @ positives.T
    if further is not None:
        documents = further.reshape(-1, width)
        hard = inputs.get("hard_mask")
        scores = torch.cat([scores, queries @ documents.T], 1)
        usable_hard = torch.ones(size, len(documents)) if hard is None else constant(hard).reshape(size, -1)
        mask = torch.cat([mask, usable_hard.bool()], 1)
    relevance = torch.zeros_like(scores)
    relevance[:, :size] = own.double()
    loss = pairwise_logistic_loss(scores, relevance.detach(), mask)
    return loss, gradients(loss, tensors)


def _adore(inputs: dict[str, Any], params: dict[str, Any]) -> Found:
    queries, corpus = leaf(inputs["queries"]), constant(inputs["corpus"])
    lists = []
    for retrieved, relevant in zip(inputs["retrieved"], inputs["relevant"], strict=True):
        found = set(retrieved) & set(relevant)
        lists.append([*retrieved, *([] if found else relevant)])
    longest = max(map(len, lists))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in lists])
    mask = torch.tensor([[place < len(row) for place in range(longest)] for row in lists])
    judged = zip(lists, inputs["relevant"], strict=True)
    relevance = torch.tensor([[float(d in good) for d in row] + [0.0] * (longest - len(row)) for row, good in judged])
    scores = (corpus[rows] @ queries.unsqueeze(-1)).squeeze(-1)
    per_query = lambda_loss(
        scores,
        relevance.double(),
        mask,
        scheme="mrr",
        k=params["metric_cut"],
        sigma=float(params.get("sigma", 1)),
        positions=torch.arange(1, longest + 1).expand(rows.shape),
        normalize=False,
        log_base=torch.e,
        reduction="none",
    )
    pairs = ((relevance > 0) & mask).sum(1) * ((relevance <= 0) & mask).sum(1)
    per_query = per_query / pairs
    loss = per_query.mean()
    return {"loss": loss, "per_query": per_query}, gradients(loss, {"queries": queries})


ADAPTERS: dict[int, Adapter] = {
    19: pairwise_softmax,
    23: cosine_contrastive,
    29: dense_retrieval_pairs,
    36: balanced_summaries,
    43: graded_sentences,
    48: answer_curricula,
    119: ordinal_words,
}
