"""The list-wise contrastive reranker and iterative scoring (paper 116): the card's checks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.models.list_transformer import ListContrastRanker, iterative_rerank


@pytest.fixture
def ranker() -> ListContrastRanker:
    torch.manual_seed(0)
    return ListContrastRanker(6, list_dim=8, heads=2, layers=2, d_ff=16).double().eval()


def lists() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, generator=generator).double(), torch.randn(2, 5, 6, generator=generator).double()


def test_the_order_of_the_passages_does_not_matter(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(ranker(query, passages[:, order]), ranker(query, passages)[:, order], rtol=0, atol=1e-12)


def test_padding_changes_nothing_and_gets_no_gradient(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    padded = passages.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    found = ranker(query, padded, mask)
    torch.testing.assert_close(found[0, mask[0]], ranker(query[:1], passages[:1, mask[0]])[0], rtol=0, atol=1e-12)
    assert (found[~mask] == 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), padded)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()


def test_passages_see_each_other_but_the_query_sees_none(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    seen: list[Tensor] = []
    handle = ranker.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    before = ranker(query, passages)
    passages[:, 0] += 1
    after = ranker(query, passages)
    handle.remove()
    assert (before[:, 1:] != after[:, 1:]).all()
    torch.testing.assert_close(seen[0][:, 0], seen[1][:, 0], rtol=0, atol=1e-13)


def test_without_the_list_branch_it_is_pointwise(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    with torch.no_grad():
        ranker.output.weight[:, 8:] = 0
    together = ranker(query, passages)
    apart = torch.cat([ranker(query, passages[:, i : i + 1]) for i in range(5)], 1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    assert together.shape == (2, 5)


def test_edges(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    assert ranker(query, passages[:, :1]).shape == (2, 1)
    assert ranker(query, passages[:, :0]).shape == (2, 0)
    nobody = ranker(query, passages, torch.zeros(2, 5, dtype=torch.bool))
    assert (nobody == 0).all()
    ranker.train()
    ranker(query, passages).sum().backward()
    assert all(parameter.grad is not None for parameter in ranker.parameters())


def test_bad_input_is_named(ranker: ListContrastRanker) -> None:
    query, passages = lists()
    with pytest.raises(RivalsError, match="heads=3 does not divide the width 8"):
        ListContrastRanker(8, heads=3)
    for arguments in (
        (query[0], passages),
        (query, passages[:1]),
        (query, passages[..., :5]),
        (query[:, :5], passages),
    ):
        with pytest.raises(RivalsError, match="query must be"):
            ranker(*arguments)
    with pytest.raises(RivalsError, match="mask must be"):
        ranker(query, passages, torch.ones(2, 5))


# ---------------------------------------------------------------------------------- rounds


def test_a_rule_that_ignores_the_list_keeps_its_order() -> None:
    values = torch.rand(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    final = iterative_rerank(lambda left: values[left], 60)
    assert torch.equal(final.argsort(), values.argsort())
    torch.testing.assert_close(final.frac(), values)


@pytest.mark.parametrize(
    ("n", "calls"), [(45, [45, 35, 25, 15]), (20, [20]), (1, [1]), (100, [100, 80, 64, 51, 40, 30, 20])]
)
def test_the_lists_shrink_as_they_should(n: int, calls: list[int]) -> None:
    seen: list[int] = []

    def score(left: Tensor) -> Tensor:
        seen.append(len(left))
        return left / n

    final = iterative_rerank(score, n)
    assert seen == calls
    assert final[-1].item() == pytest.approx((n - 1) / n + len(calls) - 1)


def test_ties_fall_together_and_a_list_of_ties_ends() -> None:
    values = torch.tensor([0.0] * 15 + [0.5] * 15)
    calls: list[int] = []
    final = iterative_rerank(lambda left: calls.append(len(left)) or values[left], 30)
    assert calls == [30, 15]
    assert final.tolist() == [0.0] * 15 + [1.5] * 15
    assert iterative_rerank(lambda left: torch.full((len(left),), 0.3), 50).tolist() == pytest.approx([0.3] * 50)


def test_rounds_refuse_bad_input() -> None:
    for options, name in (({"keep": 0}, "keep"), ({"drop": 1.0}, "drop"), ({"min_drop": 0}, "min_drop")):
        with pytest.raises(RivalsError, match=name):
            iterative_rerank(lambda left: left.double(), 30, **options)
    with pytest.raises(RivalsError, match="n, keep"):
        iterative_rerank(lambda left: left.double(), 0)
    with pytest.raises(RivalsError, match="shape"):
        iterative_rerank(lambda left: left[:1].double(), 30)
