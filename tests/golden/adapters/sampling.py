"""Adapters of the papers on negative sampling, mining and training regimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.diagnose.curvature import project_displacement
from rivals.diagnose.landscape import normalize_direction
from rivals.losses import pairwise_logistic_loss
from rivals.models.passages import max_passage
from rivals.negatives.ambiguous import ambiguous_log_weights, ambiguous_probabilities
from rivals.negatives.selection import neighbour_reciprocal_rank, select_negatives
from rivals.negatives.text_clusters import TextClusterNegatives, degree_weight
from rivals.negatives.walks import semantic_walk
from rivals.training.branch_merging import greedy_merge, weighted_average
from rivals.training.task_curriculum import (
    curriculum_terms,
    layer_similarity,
    soft_rank,
    switch_probability,
    target_ranks,
)
from tests.golden.adapters.case import Adapter, Case, constant, gradients, leaf


def ambiguous_negatives(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 10: weights and probabilities of one list; b in the paper's sign, or minus the code's."""
    inputs, params = case["inputs"], case["params"]
    given = {
        "a": params.get("a", 0.5),
        "b": params["b"] if "b" in params else -params.get("b_in_official_code", 0.0),
        "power": params.get("power", 2),
    }
    scores = np.asarray(inputs["negative_scores"])
    positive = np.asarray(inputs["positive_score"], dtype=np.float64)
    return {
        "unnormalised": np.exp(ambiguous_log_weights(scores, positive, **given)),
        "probabilities": ambiguous_probabilities(scores, positive, **given),
    }, {}


def approximate_nearest_neighbours(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 37: the triplet loss on first or best passages, and the selection from an index's neighbours."""
    if "neighbours" in case["inputs"]:
        return _selected(case)
    inputs, params = case["inputs"], case["params"]
    tensors = {name: leaf(inputs[name]) for name in ("queries", "positives", "negatives")}
    if params.get("similarity", "dot") != "dot":
        raise ValueError(f"similarity {params['similarity']!r} is not one of the paper's")
    scores = []
    for name in ("positives", "negatives"):
        documents = tensors[name]
        if params.get("pooling", "first_passage") == "max_passage":
            chunks = (tensors["queries"][:, None] * documents).sum(-1)
            mask = constant(inputs[f"{name.removesuffix('s')}_chunk_mask"]).bool()
            scores.append(max_passage(chunks, mask))
        else:
            scores.append((tensors["queries"] * documents).sum(-1))
    stacked = torch.stack(scores, dim=-1)
    loss = pairwise_logistic_loss(stacked, torch.tensor([1.0, 0.0]).expand_as(stacked))
    return loss, gradients(loss, tensors)


def _selected(case: Case) -> tuple[Any, dict[str, Tensor]]:
    inputs, params = case["inputs"], case["params"]
    if params.get("select", "top") != "top":
        raise ValueError(f"select {params['select']!r} shuffles; only 'top' can be compared")
    names = [str(query) for query in inputs["query_ids"]]
    known = {str(query): document for query, document in inputs["positive_document"].items()}
    documents = [known[name] for name in names if known.get(name) is not None]
    positives = (np.cumsum([0, *(known.get(name) is not None for name in names)]), documents)
    n = params["negative_sample"]
    table = (inputs["neighbours"], inputs["row_to_document"], positives)
    width = len(inputs["neighbours"][0])
    selected = select_negatives(*table, min(n, width), order="top", window=n + 1)
    rank = neighbour_reciprocal_rank(*table, window=n + 1, rows="all")
    lists = {name: row for name, row in zip(names, selected.lists(), strict=True) if known.get(name) is not None}
    return {"negatives": lists, "ann_mrr_at_10": float(np.nanmean(rank))}, {}


def loss_landscape(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 92: normalised directions over lists of tensors, and projections of a displacement."""
    inputs, params = case["inputs"], case["params"]
    if "displacement" in inputs:
        vectors = (constant(inputs[name]) for name in ("displacement", "dx", "dy"))
        return list(project_displacement(*vectors, method=params["method"])), {}
    weights, directions = (
        {str(place): constant(values) for place, values in enumerate(inputs[name])}
        for name in ("weights", "directions")
    )
    ignored = params.get("ignore", "biasbn") == "biasbn"
    found = normalize_direction(
        directions, weights, norm=params.get("norm") or "none", vectors="zero" if ignored else "weight"
    )
    return list(found.values()), {}


def citation_walks(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 32: the walk that takes the most probable step, its negatives as a set."""
    inputs, params = case["inputs"], case["params"]
    if params.get("random_negative") or "most" not in params.get("choice", "most probable"):
        raise ValueError("a walk that draws cannot be compared")
    positive = inputs.get("positive_index")
    walk = semantic_walk(
        inputs["query_embedding"],
        inputs["document_embeddings"],
        inputs["hop"],
        paths=params["num_paths"],
        length=params["path_length"],
        top_k=params["top_k"],
        temperature=params.get("temperature", 1.0),
        choice="most_probable",
        positive=() if positive is None else positive if isinstance(positive, list) else (positive,),
    )
    return {"negatives": sorted(walk.collected), "step_probabilities": walk.step_probabilities}, {}


def text_clusters(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 49: the pools of all triples, heads first, and their weights, from the clusters recorded."""
    inputs, params = case["inputs"], case["params"]
    triples = inputs["triples"]
    source = TextClusterNegatives.from_clusters(
        inputs["reduced"],
        inputs["centers"],
        inputs["labels"],
        nearest=params["nearest"],
        min_cosine=params.get("min_cosine"),
    )
    weight = degree_weight(triples)
    rows = []
    for side in ("head", "tail"):
        members, offsets = source.pool(triples, side, known=triples)
        rows += [
            {
                "mode": side,
                "triple": triple,
                "allowed": members[offsets[row] : offsets[row + 1]],
                "subsampling_weight": weight[row],
            }
            for row, triple in enumerate(triples)
        ]
    return rows, {}


def fork_and_merge(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 58: weighted averages of states, and the greedy search by nearness of the merge to a target vector."""
    inputs, params = case["inputs"], case["params"]
    if "states" in inputs:
        states = [{name: constant(t) for name, t in state.items()} for state in inputs["states"].values()]
        weights = params["weights"]
        if isinstance(weights, dict):
            weights = [weights[name] for name in inputs["states"]]
        return weighted_average(states, weights, exclude=params.get("no_sum") or params.get("exclude") or ()), {}
    names = list(inputs["branch_vectors"])
    target = constant(inputs["target"])
    merged = greedy_merge(
        [{"vector": constant(inputs["branch_vectors"][name])} for name in names],
        [inputs["branch_scores"][name] for name in names],
        lambda state: 100 - float((state["vector"] - target).square().sum()),
        alphas=params["alphas"],
    )
    coefficients = dict(zip(names, merged.coefficients, strict=True))
    return {
        "lambdas": coefficients,
        "merged": merged.state["vector"],
        "best_criterion": merged.score,
    }, {}


def task_curriculum(case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Paper 2: soft ranks, the terms of one task's objective, the switch between passes."""
    inputs, params = case["inputs"], case["params"]
    if "points" in inputs:
        return soft_rank(constant(inputs["points"]), scale=params["tanh_scale"], shift=params.get("shift", 0.01)), {}
    losses = constant(inputs["task_losses"])
    if "normalised_losses" in inputs:
        return switch_probability(
            losses,
            constant(inputs["normalised_losses"]),
            params["episode"],
            n_std=params.get("n_std", 2),
            decay_rounds=params.get("decay_episodes", 1000),
            decay_loss=params.get("decay_loss", 40),
        ), {}
    task, scale, shift = params["task"], params["tanh_scale"], params.get("shift", 0.01)
    transfer, weights = constant(inputs["transfer_matrix"]), constant(inputs["task_weights"])
    kind = "cosine" if "cosine" in str(params.get("similarity", "sign")) else "sign"
    terms = curriculum_terms(
        transfer,
        losses,
        task,
        weights=weights,
        layers=weights,
        earlier=params["order"][: max(params["position"] - 1, 0)],
        untrained=params["untrained"],
        prior_ranks=constant(inputs["prior_ranks"]),
        mu1=params["mu"],
        scale=scale,
        shift=shift,
        similarity=kind,
    )
    own = torch.arange(len(losses)) == task
    return {
        "soft_ranks": soft_rank(transfer[task], scale=scale, shift=shift),
        "rank_target_loss": target_ranks(losses + own),
        "rank_target_similarity": target_ranks(layer_similarity(weights, task, kind=kind) + 100 * own),
        **{f"term_{name}": value for name, value in terms._asdict().items()},
        "total_first_call": terms.total(),
    }, {}


ADAPTERS: dict[int, Adapter] = {
    2: task_curriculum,
    10: ambiguous_negatives,
    32: citation_walks,
    37: approximate_nearest_neighbours,
    49: text_clusters,
    58: fork_and_merge,
    92: loss_landscape,
}
