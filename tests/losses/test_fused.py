"""The fused InfoNCE against the readable one: values, gradients, memory, and against sentence-transformers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import rivals.losses._fused.info_nce as fused_module
from rivals.errors import RivalsError
from rivals.losses import in_batch_info_nce_loss

QUERIES, DOCUMENTS, WIDTH, PRIVATE = 23, 31, 6, 3
DIRECTIONS = (
    ("query_to_document",),
    ("document_to_query",),
    ("query_to_document", "document_to_query"),
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 5 rows, so that a small problem has several, the last one short."""
    monkeypatch.setattr(fused_module, "MIN_ROWS", 1)
    monkeypatch.setattr(fused_module, "BLOCK_ELEMENTS", 5 * DOCUMENTS)


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(5)
    shapes = (QUERIES, WIDTH), (DOCUMENTS, WIDTH), (QUERIES, PRIVATE, WIDTH)
    queries, documents, negatives = (torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes)
    return queries, documents, negatives, generator


def value_and_gradients(fused: bool, dtype: torch.dtype, private: bool, **options: Any) -> tuple[Tensor, list[Tensor]]:
    queries, documents, negatives, generator = problem(dtype)
    if private:
        there = torch.rand(QUERIES, PRIVATE, generator=generator) < 0.7
        options |= {"negatives": negatives, "negative_mask": there}
    loss = in_batch_info_nce_loss(queries, documents, fused=fused, **options)
    found = torch.autograd.grad(2 * loss, (queries, documents, negatives), allow_unused=True)
    return loss.detach(), [torch.zeros(1) if gradient is None else gradient for gradient in found]


def assignments() -> dict[str, dict[str, Any]]:
    generator = torch.Generator().manual_seed(9)

    def uniform() -> Tensor:
        return torch.rand(QUERIES, DOCUMENTS, generator=generator)

    groups = {
        "query_groups": torch.randint(0, 12, (QUERIES,), generator=generator),
        "document_groups": torch.randint(0, 12, (DOCUMENTS,), generator=generator),
    }
    return {
        "diagonal": {},
        "masked": {"mask": uniform() < 0.7},
        "columns": {"positive_columns": torch.randperm(DOCUMENTS, generator=generator)[:QUERIES]},
        "relevance": {"relevance": (uniform() < 0.1).float(), "mask": uniform() < 0.7},
        "groups": groups,
        "ignored groups": {**groups, "same_group": "ignore"},
        "weighted": {"relevance": (uniform() < 0.1).float(), "weight": uniform() * (uniform() < 0.9)},
    }


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
@pytest.mark.parametrize("assignment", assignments())
def test_equals_the_readable_version(assignment: str, directions: Any) -> None:
    chosen = assignments()[assignment]
    options = itertools.product(("each", "all"), (True, False), (0.05, 0.004), (True, False), ("mean", "sum"))
    for positives, normalize, temperature, private, reduction in options:
        given = {
            **chosen,
            "directions": directions,
            "positives": positives,
            "normalize": normalize,
            "temperature": temperature,
            "reduction": reduction,
        }
        fast = value_and_gradients(True, torch.float64, private, **given)
        plain = value_and_gradients(False, torch.float64, private, **given)
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


RULES: dict[str, dict[str, Any]] = {
    "margin": {"margin": 0.3},
    "margin, all": {"margin": 0.3, "positives": "all"},
    "decoupled": {"positives": "decoupled"},
    "debiased": {"positive_prior": 0.05},
    "debiased, all": {"positive_prior": 0.1, "positives": "all", "margin": 0.1},
    "debiased, decoupled": {"positive_prior": 0.05, "positives": "decoupled"},
    "debiased to the bound": {"positive_prior": 0.9, "lowest_score": -0.5},
    "graded": {"positives": "graded"},
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_equals_the_readable_version(rule: str, directions: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    soft = torch.rand(QUERIES, DOCUMENTS, generator=generator) * (torch.rand(QUERIES, 1, generator=generator) < 0.8)
    chosen = assignments() | {
        "soft": {"relevance": soft},
        "soft, masked, weighted": assignments()["weighted"] | assignments()["masked"] | {"relevance": soft},
    }
    for given in chosen.values():
        for temperature, normalize, reduction in ((0.5, True, "mean"), (0.01, True, "sum"), (0.7, False, "list_mean")):
            options = {
                **given,
                **RULES[rule],
                "directions": directions,
                "temperature": temperature,
                "normalize": normalize,
                "reduction": reduction,
            }
            fast = value_and_gradients(True, torch.float64, True, **options)
            plain = value_and_gradients(False, torch.float64, True, **options)
            torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
def test_float32_gradients_are_those_of_float64(directions: Any) -> None:
    exact = value_and_gradients(False, torch.float64, True, directions=directions)[1]
    queries, documents, negatives, generator = problem()
    there = torch.rand(QUERIES, PRIVATE, generator=generator) < 0.7
    leaves = [tensor.detach().float().requires_grad_() for tensor in (queries, documents, negatives)]
    loss = in_batch_info_nce_loss(
        leaves[0], leaves[1], negatives=leaves[2], negative_mask=there, directions=directions, fused=True
    )
    found = torch.autograd.grad(2 * loss, leaves, allow_unused=True)
    for single, double in zip(found, exact, strict=True):
        if single is not None:
            assert (single - double).abs().max() <= 1e-5 * double.abs().max()


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_module, "MIN_ROWS", 1)
    monkeypatch.setattr(fused_module, "BLOCK_ELEMENTS", 2 * 4)
    queries, documents, negatives = (
        t[:n].detach().requires_grad_() for t, n in zip(problem(), (3, 4, 3), strict=False)
    )

    def loss(*inputs: Tensor) -> Tensor:
        return in_batch_info_nce_loss(
            inputs[0], inputs[1], negatives=inputs[2], directions=DIRECTIONS[2], temperature=0.3, fused=True
        )

    assert torch.autograd.gradcheck(loss, (queries, documents, negatives))


def test_bfloat16_products_are_close() -> None:
    plain = value_and_gradients(False, torch.float32, True, directions=DIRECTIONS[2])
    fast = value_and_gradients(True, torch.float32, True, directions=DIRECTIONS[2], matmul_dtype=torch.bfloat16)
    assert fast[0].dtype == torch.float32
    assert fast[0].item() == pytest.approx(plain[0].item(), rel=0.02)
    for found, wanted in zip(fast[1], plain[1], strict=True):
        assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999


def test_only_the_side_that_needs_a_gradient_gets_one() -> None:
    expected = value_and_gradients(True, torch.float64, False)[1]
    for frozen in (0, 1):
        leaves = list(problem()[:2])
        leaves[frozen] = leaves[frozen].detach()
        in_batch_info_nce_loss(*leaves, fused=True).mul(2).backward()
        assert leaves[frozen].grad is None
        torch.testing.assert_close(leaves[1 - frozen].grad, expected[1 - frozen])
    with torch.no_grad():
        assert not in_batch_info_nce_loss(*problem()[:2], fused=True).requires_grad


def test_a_second_derivative_is_refused_with_the_way_out() -> None:
    queries, documents, _, _ = problem()
    loss = in_batch_info_nce_loss(queries, documents, fused=True)
    with pytest.raises(RivalsError, match="fused=False"):
        torch.autograd.grad(loss, queries, create_graph=True)


def test_half_precision_gradients_have_the_dtype_of_the_input() -> None:
    queries, documents = (tensor.detach().bfloat16().requires_grad_() for tensor in problem()[:2])
    loss = in_batch_info_nce_loss(queries, documents, fused=True)
    loss.backward()
    assert loss.dtype == torch.float32
    assert queries.grad is not None
    assert queries.grad.dtype == torch.bfloat16


def test_auto_takes_it_for_large_batches_and_only_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = fused_module.fused_in_batch_loss

    def spy(*arguments: Any, **options: Any) -> Tensor:
        calls.append(len(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr("rivals.losses.contrastive.fused_in_batch_loss", spy)
    for size in (8, 64):
        embeddings = torch.randn(size, 4)
        in_batch_info_nce_loss(embeddings, embeddings)
        in_batch_info_nce_loss(embeddings, embeddings, reduction="none")
        in_batch_info_nce_loss(embeddings, embeddings, fused=False)
    assert calls == [64]


def test_weights_and_targets_that_learn_take_the_readable_version() -> None:
    embeddings, learnt = torch.randn(64, 4), torch.rand(64, 64, requires_grad=True)
    for options in ({"weight": learnt}, {"relevance": learnt, "positives": "graded"}):
        loss = in_batch_info_nce_loss(embeddings, embeddings + 1, **options)  # type: ignore[arg-type]
        assert (torch.autograd.grad(loss, learnt)[0] != 0).any()
        with pytest.raises(RivalsError, match="gradient"):
            in_batch_info_nce_loss(embeddings, embeddings, fused=True, **options)  # type: ignore[arg-type]


def matrices(size: int) -> dict[str, dict[str, Any]]:
    """Options without a matrix of their own, and some with one, which may not be copied as a whole."""
    uniform = torch.rand(size, size)
    groups = torch.arange(size) // 2
    return {
        "groups": {"query_groups": groups, "document_groups": groups},
        "debiased": {"positive_prior": 0.1, "margin": 0.1},
        "decoupled": {"positives": "decoupled", "positive_prior": 0.1},
        "masked": {"mask": uniform < 0.9},
        "weighted": {"weight": uniform, "positive_prior": 0.1},
        "graded": {"relevance": uniform, "positives": "graded"},
    }


@pytest.mark.parametrize("options", matrices(1))
def test_never_holds_the_matrix(options: str) -> None:
    size, width = 2048, 16
    embeddings = torch.randn(size, width, requires_grad=True)
    given = matrices(size)[options]
    known = {value.untyped_storage().data_ptr() for value in given.values() if isinstance(value, Tensor)}
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                    largest = max(largest, tensor.untyped_storage().nbytes() // tensor.element_size())
            return result

    with Watch():
        in_batch_info_nce_loss(embeddings, embeddings.detach() + 1, directions=DIRECTIONS[2], **given).backward()
    assert 0 < largest <= fused_module.BLOCK_ELEMENTS < size * size


def test_equals_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    queries, documents, _, _ = problem()
    leaves = [tensor.detach().float().requires_grad_() for tensor in (queries, documents[:QUERIES])]
    reference = losses.MultipleNegativesRankingLoss(torch.nn.Identity())
    expected = reference.compute_loss_from_embeddings(leaves, None)
    found = in_batch_info_nce_loss(*leaves, fused=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    directions = ("query_to_doc", "query_to_query", "doc_to_doc")
    joint = losses.MultipleNegativesRankingLoss(torch.nn.Identity(), directions=directions)
    expected = joint.compute_loss_from_embeddings(leaves, None)
    found = in_batch_info_nce_loss(
        *leaves, joint=True, directions=("query_to_document", "query_to_query", "document_to_document")
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
