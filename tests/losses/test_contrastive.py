"""InfoNCE over scores and over embeddings: the values of the cards of papers 1 and 3, several positives, directions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import in_batch_info_nce_loss, info_nce_loss, softmax_loss

BOTH = ("query_to_document", "document_to_query")
FOUR = (*BOTH, "query_to_query", "document_to_document")


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------- over scores


def test_two_pairs_of_paper_1() -> None:
    scores = rows([0.8, 0.6], [0.5, 0.9])
    per_row = info_nce_loss(scores, torch.eye(2), reduction="none")
    assert per_row.tolist() == pytest.approx([0.018149928, 0.000335406], abs=1e-9)
    assert info_nce_loss(scores, torch.eye(2)).item() == pytest.approx(0.009242667, abs=1e-9)


def test_a_lone_positive_costs_nothing_and_pulls_nothing() -> None:
    scores = rows([0.3]).requires_grad_()
    loss = info_nce_loss(scores, torch.ones(1, 1))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, scores)[0].item() == 0


def test_a_negative_equal_to_the_positive_costs_at_least_ln_2() -> None:
    loss = info_nce_loss(rows([0.7, 0.7, -0.5]), rows([1, 0, 0]))
    assert loss.item() >= math.log(2)


def test_other_positives_compete_only_when_asked() -> None:
    scores, relevance = rows([1, 2, 0.5]), rows([1, 3, 0])  # the grade does not matter, only that it is above 0
    each = (math.log1p(math.exp(0.5 - 1)) + math.log1p(math.exp(0.5 - 2))) / 2
    assert info_nce_loss(scores, relevance, temperature=1.0).item() == pytest.approx(each)
    everything = math.log(math.exp(1) + math.exp(2) + math.exp(0.5))
    found = info_nce_loss(scores, relevance, temperature=1.0, positives="all")
    assert found.item() == pytest.approx(everything - 1.5)


def test_weight_is_a_share_of_positives_and_a_multiplicity_of_negatives() -> None:
    scores, relevance, weight = rows([1, 2, 0.5, 0.1]), rows([1, 1, 0, 0]), rows([3, 1, 2, 0])
    negatives = 2 * math.exp(0.5)
    expected = 0.75 * math.log1p(negatives / math.exp(1)) + 0.25 * math.log1p(negatives / math.exp(2))
    assert info_nce_loss(scores, relevance, weight=weight, temperature=1.0).item() == pytest.approx(expected)
    doubled = info_nce_loss(rows([1, 2, 0.5, 0.5]), relevance, weight=rows([3, 1, 1, 1]), temperature=1.0)
    assert doubled.item() == pytest.approx(expected)


def test_lists_without_a_positive_are_left_out_of_the_mean() -> None:
    scores = rows([0.8, 0.6], [0.9, 0.1], [0.2, 0.3])
    relevance = rows([1, 0], [0, 0], [1, 0])
    weight = rows([1, 1], [1, 1], [0, 1])  # a positive of weight 0 is none
    alone = info_nce_loss(scores[:1], relevance[:1])
    assert info_nce_loss(scores, relevance, weight=weight).item() == pytest.approx(alone.item())


def test_symmetric_averages_rows_and_columns() -> None:
    scores = normal(4, 6)
    relevance = torch.eye(4, 6)
    by_row = info_nce_loss(scores, relevance)
    by_column = info_nce_loss(scores.T[:4], relevance.T[:4])  # documents 4 and 5 have no positive
    both = info_nce_loss(scores, relevance, symmetric=True)
    assert both.item() == pytest.approx(((by_row + by_column) / 2).item(), abs=1e-12)


def test_a_margin_is_taken_off_the_positive_alone() -> None:
    scores, relevance = rows([1, 2, 0.5]), rows([1, 0, 0])
    lowered = info_nce_loss(rows([0.7, 2, 0.5]), relevance, temperature=0.5)
    assert info_nce_loss(scores, relevance, temperature=0.5, margin=0.3).item() == pytest.approx(lowered.item())
    both = info_nce_loss(scores, rows([1, 1, 0]), temperature=0.5, margin=0.3, positives="all")
    moved = info_nce_loss(rows([0.7, 1.7, 0.5]), rows([1, 1, 0]), temperature=0.5, positives="all")
    assert both.item() == pytest.approx(moved.item())


def test_graded_positives_are_a_teachers_distribution() -> None:
    scores, teacher = normal(3, 5), normal(3, 5, seed=1).softmax(-1)
    expected = -(teacher * (scores / 0.3).log_softmax(-1)).sum(-1).mean()
    found = info_nce_loss(scores, teacher, temperature=0.3, positives="graded")
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    same = softmax_loss(scores, 7 * teacher, temperature=0.3, normalize_labels=True)
    assert found.item() == pytest.approx(same.item(), abs=1e-12)
    leaf = scores.clone().requires_grad_()
    at_teacher = info_nce_loss(leaf, (scores / 0.3).softmax(-1), temperature=0.3, positives="graded")
    assert torch.autograd.grad(at_teacher, leaf)[0].abs().max() < 1e-12
    binary = (teacher > 0.2).double()
    assert info_nce_loss(scores, binary, positives="graded").item() == pytest.approx(
        info_nce_loss(scores, binary, positives="all").item()
    )


def test_decoupled_positives_do_not_compete_with_themselves() -> None:
    scores, relevance = rows([1, 2, 0.5, 0.1]), rows([1, 1, 0, 0])
    negatives = math.log(math.exp(0.5) + math.exp(0.1))
    found = info_nce_loss(scores, relevance, temperature=1.0, positives="decoupled")
    assert found.item() == pytest.approx(negatives - 1.5)
    alone = rows([1, 2]).requires_grad_()
    loss = info_nce_loss(alone, torch.ones(1, 2), positives="decoupled")
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, alone)[0] == 0).all()


def debiased_row(positives: list[float], negatives: list[float], prior: float, t: float, lowest: float) -> float:
    """Chuang et al. (2020), eqs. 7 and 8, written down with the list's positives as the M samples."""
    count = len(negatives)
    mean_negative = sum(math.exp(s / t) for s in negatives) / count
    mean_positive = sum(math.exp(s / t) for s in positives) / len(positives)
    g = max((mean_negative - prior * mean_positive) / (1 - prior), math.exp(lowest / t))
    losses = [-math.log(math.exp(s / t) / (math.exp(s / t) + count * g)) for s in positives]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("prior", [0.0, 0.1, 0.9])
def test_the_debiased_estimator_of_chuang(prior: float) -> None:
    scores, relevance = rows([0.6, 0.3, 0.5, -0.2, 0.1]), rows([1, 1, 0, 0, 0])
    for positive in ([1, 1, 0, 0, 0], [1, 0, 0, 0, 0]):
        relevance = rows(positive)
        inside = [s for s, p in zip(scores[0].tolist(), positive, strict=True) if p]
        outside = [s for s, p in zip(scores[0].tolist(), positive, strict=True) if not p]
        for lowest in (-1.0, 0.0):
            found = info_nce_loss(scores, relevance, temperature=0.5, positive_prior=prior, lowest_score=lowest)
            expected = debiased_row(inside, outside, prior, 0.5, lowest if prior else -math.inf)
            assert found.item() == pytest.approx(expected, abs=1e-12)


def test_debiasing_counts_weights_and_private_negatives_as_candidates() -> None:
    scores, relevance = rows([0.6, 0.5, 0.5, -0.2]), rows([1, 0, 0, 0])
    options: dict[str, Any] = {"temperature": 0.5, "positive_prior": 0.2}
    twice = info_nce_loss(scores, relevance, **options)
    weighted = info_nce_loss(rows([0.6, 0.5, -0.2]), rows([1, 0, 0]), weight=rows([1, 2, 1]), **options)
    assert weighted.item() == pytest.approx(twice.item(), abs=1e-12)
    queries, documents = F.normalize(normal(1, 3)), F.normalize(normal(5, 3, seed=1))
    shared = in_batch_info_nce_loss(queries, documents, **options)
    private = in_batch_info_nce_loss(queries, documents[:1], negatives=documents[1:][None], **options)
    assert private.item() == pytest.approx(shared.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"positives": "some"}, "positives"),
        ({"symmetric": True, "reduction": "none"}, "symmetric"),
        ({"margin": -0.1}, "margin"),
        ({"positive_prior": 1.0}, "positive_prior"),
        ({"positive_prior": -0.1}, "positive_prior"),
        ({"lowest_score": -math.inf}, "lowest_score"),
        ({"positives": "graded", "margin": 0.1}, "graded"),
        ({"positives": "graded", "positive_prior": 0.1}, "graded"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        info_nce_loss(normal(2, 2), torch.eye(2), **options)


def test_symmetric_needs_a_matrix() -> None:
    with pytest.raises(RivalsError, match="symmetric"):
        info_nce_loss(normal(2, 3, 3), torch.eye(3).expand(2, 3, 3), symmetric=True)


# ---------------------------------------------------------------------------------- over embeddings


def test_identity_embeddings_of_paper_3() -> None:
    identity = torch.eye(3, dtype=torch.float64)
    expected = -1 + math.log(math.e + 2)
    assert in_batch_info_nce_loss(identity, identity, temperature=1.0).item() == pytest.approx(expected, abs=1e-12)
    plus = in_batch_info_nce_loss(identity, identity, temperature=1.0, directions=BOTH, targets="similarity")
    assert plus.item() == pytest.approx(expected, abs=1e-12)


def test_similarity_targets_leave_the_diagonal_only_for_raw_vectors() -> None:
    vectors = rows([1, 0], [3, 0])
    logits = vectors @ vectors.T
    found = in_batch_info_nce_loss(
        vectors, vectors, temperature=1.0, normalize=False, directions=BOTH, targets="similarity"
    )
    expected = (F.cross_entropy(logits, torch.tensor([1, 1])) + F.cross_entropy(logits.T, torch.tensor([0, 1]))) / 2
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    queries, documents = normal(5, 4), normal(5, 4, seed=1)
    cosines = F.normalize(queries) @ F.normalize(documents).T
    target = torch.arange(5)
    symmetric = (F.cross_entropy(cosines, target) + F.cross_entropy(cosines.T, target)) / 2
    found = in_batch_info_nce_loss(queries, documents, temperature=1.0, directions=BOTH, targets="similarity")
    assert found.item() == pytest.approx(symmetric.item(), abs=1e-12)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("directions", [BOTH[:1], BOTH])
def test_a_batch_of_one_costs_exactly_nothing(fused: bool, directions: Any) -> None:
    query, document = normal(1, 4).requires_grad_(), normal(1, 4, seed=1).requires_grad_()
    loss = in_batch_info_nce_loss(query, document, fused=fused, directions=directions)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (query, document)))


RULES: list[dict[str, Any]] = [
    {"positives": "each"},
    {"positives": "all", "margin": 0.2},
    {"positives": "graded"},
    {"positives": "decoupled"},
    {"positive_prior": 0.1},
]


def test_equals_the_ranking_form_on_cosines() -> None:
    queries, documents = normal(4, 3), normal(6, 3, seed=1)
    relevance, mask = (normal(4, 6, seed=2) > 0.5).double(), normal(4, 6, seed=3) > -1
    cosines = F.normalize(queries) @ F.normalize(documents).T
    for directions, symmetric in ((BOTH[:1], False), (BOTH, True)):
        for options in RULES:
            expected = info_nce_loss(cosines, 2 * relevance, mask, symmetric=symmetric, **options)
            found = in_batch_info_nce_loss(queries, documents, 2 * relevance, mask, directions=directions, **options)
            assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_private_negatives_extend_their_own_row_only() -> None:
    queries, documents, private = normal(2, 3), normal(2, 3, seed=1), normal(2, 2, 3, seed=2)
    there = torch.tensor([[True, False], [True, True]])
    unit_queries, unit_private = F.normalize(queries), F.normalize(private, dim=-1)
    cosines = torch.cat(
        [unit_queries @ F.normalize(documents).T, torch.einsum("qd,qnd->qn", unit_queries, unit_private)], 1
    )
    mask = torch.cat([torch.ones(2, 2, dtype=torch.bool), there], 1)
    expected = info_nce_loss(cosines, torch.eye(2, 4), mask)
    found = in_batch_info_nce_loss(queries, documents, negatives=private, negative_mask=there)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_groups_name_positives_or_hide_them() -> None:
    queries, documents = normal(3, 4), normal(4, 4, seed=1)
    query_groups, document_groups = torch.tensor([7, 8, 7]), torch.tensor([7, 8, 7, 9])
    same = query_groups[:, None] == document_groups[None]
    groups = {"query_groups": query_groups, "document_groups": document_groups}
    expected = in_batch_info_nce_loss(queries, documents, same.double())
    assert in_batch_info_nce_loss(queries, documents, **groups).item() == pytest.approx(expected.item(), abs=1e-12)
    own = torch.eye(3, 4, dtype=torch.bool)
    expected = in_batch_info_nce_loss(queries, documents, own.double(), ~same | own)
    found = in_batch_info_nce_loss(queries, documents, **groups, same_group="ignore")
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_positive_columns_move_the_diagonal() -> None:
    queries, documents = normal(2, 4), normal(6, 4, seed=1)
    relevance = torch.zeros(2, 6)
    relevance[0, 4] = relevance[1, 5] = 1
    expected = in_batch_info_nce_loss(queries, documents, relevance)
    found = in_batch_info_nce_loss(queries, documents, positive_columns=torch.tensor([4, 5]))
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_joint_puts_all_directions_under_one_softmax() -> None:
    queries, documents = F.normalize(normal(4, 3)), F.normalize(normal(4, 3, seed=1))
    across, within, between = queries @ documents.T / 0.5, queries @ queries.T / 0.5, documents @ documents.T / 0.5
    other = ~torch.eye(4, dtype=torch.bool)
    terms = []
    for i in range(4):
        rivals = [across[i][other[i]], across[:, i][other[i]], within[i][other[i]], between[i][other[i]]]
        terms.append(torch.cat([across[i, i : i + 1], *rivals]).logsumexp(0) - across[i, i])
    found = in_batch_info_nce_loss(queries, documents, temperature=0.5, directions=FOUR, joint=True)
    assert found.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-12)
    one_way = in_batch_info_nce_loss(queries, documents, joint=True)
    assert one_way.item() == pytest.approx(in_batch_info_nce_loss(queries, documents).item(), abs=1e-12)
    with_margin = in_batch_info_nce_loss(queries, documents, joint=True, margin=0.2)
    plain = in_batch_info_nce_loss(queries, documents, margin=0.2)
    assert with_margin.item() == pytest.approx(plain.item(), abs=1e-12)
    assert with_margin > one_way


def test_zero_vectors_have_cosine_zero_and_no_gradient() -> None:
    for fused in (True, False):
        queries = torch.stack([torch.zeros(3), torch.ones(3)]).double().requires_grad_()
        documents = normal(2, 3).requires_grad_()
        loss = in_batch_info_nce_loss(queries, documents, fused=fused, reduction="sum")
        gradient = torch.autograd.grad(loss, queries)[0]
        assert loss.isfinite()
        assert (gradient[0] == 0).all()
        assert (gradient[1] != 0).any()


def test_autocast_does_not_reach_the_cosines() -> None:
    queries, documents = normal(4, 8).float(), normal(4, 8, seed=1).float()
    plain = in_batch_info_nce_loss(queries, documents)
    for fused in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert in_batch_info_nce_loss(queries, documents, fused=fused).item() == pytest.approx(plain.item())


GROUP = torch.zeros(3, dtype=torch.int64)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1.0}, "temperature"),
    ({"directions": ()}, "directions"),
    ({"directions": "query_to_document"}, "directions"),
    ({"directions": ("sideways",)}, "directions"),
    ({"directions": ("query_to_query",)}, "joint"),
    ({"directions": BOTH, "reduction": "none"}, "reduction"),
    ({"targets": "best"}, "targets"),
    ({"targets": "similarity", "mask": torch.ones(3, 3, dtype=torch.bool)}, "targets"),
    ({"joint": True, "positives": "all"}, "joint"),
    ({"joint": True, "positive_prior": 0.1}, "joint"),
    ({"margin": float("nan")}, "margin"),
    ({"fused": "maybe"}, "fused"),
    ({"fused": True, "joint": True}, "fused"),
    ({"fused": True, "reduction": "none"}, "fused"),
    ({"negatives": torch.zeros(2, 1, 4)}, "negatives"),
    ({"negative_mask": torch.ones(3, 1, dtype=torch.bool)}, "negative_mask"),
    ({"negatives": torch.zeros(3, 1, 4), "negative_mask": torch.ones(3, 1)}, "negative_mask"),
    ({"query_groups": GROUP}, "document_groups"),
    ({"query_groups": GROUP, "document_groups": GROUP.float()}, "document_groups"),
    ({"query_groups": GROUP, "document_groups": GROUP, "same_group": "hide"}, "same_group"),
    ({"query_groups": GROUP, "document_groups": GROUP, "relevance": torch.eye(3)}, "relevance"),
    ({"query_groups": GROUP, "document_groups": GROUP, "positive_columns": GROUP}, "same_group"),
    ({"positive_columns": GROUP + 3}, "positive_columns"),
    ({"documents": torch.zeros(2, 4)}, "documents"),
    ({"documents": torch.zeros(3, 5)}, "documents"),
    ({"queries": torch.zeros(3)}, "queries"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[f"{name}-{number}" for number, (_, name) in enumerate(BAD)])
def test_bad_arguments_are_named(options: dict[str, Any], name: str) -> None:
    arguments = {"queries": torch.randn(3, 4), "documents": torch.randn(3, 4)} | options
    with pytest.raises(RivalsError, match=name):
        in_batch_info_nce_loss(**arguments)
