"""Adapters of the papers on negative sampling, mining and training regimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.losses import pairwise_logistic_loss
from rivals.models.passages import max_passage
from rivals.negatives.ambiguous import ambiguous_log_weights, ambiguous_probabilities
from rivals.negatives.selection import neighbour_reciprocal_rank, select_negatives
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


ADAPTERS: dict[int, Adapter] = {
    10: ambiguous_negatives,
    37: approximate_nearest_neighbours,
}
