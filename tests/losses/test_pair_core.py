"""The pair core: blocked, sorted and readable versions against loops over pairs, and what it keeps in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rivals.losses._fused.pair_blocks as blocks_module
import rivals.losses._fused.pairs as core
from rivals.errors import RivalsError
from rivals.losses import lambda_loss, pairwise_hinge_loss, pairwise_logistic_loss
from rivals.losses._common import Checked, check_lists
from rivals.losses._fused.pair_sorting import hinge_total

KERNELS: dict[core.Kernel, Callable[[float], float]] = {
    core.Logistic(): lambda d: math.log1p(math.exp(-d)),
    core.Logistic(0.7): lambda d: math.log1p(math.exp(-0.7 * d)),
    core.Hinge(0.8): lambda d: max(0.0, 0.8 - d),
    core.SquaredHinge(0.8): lambda d: max(0.0, 0.8 - d) ** 2,
    core.Squared(1.2): lambda d: (1.2 - d) ** 2,
    core.Exponential(0.5): lambda d: math.exp(-0.5 * d),
}
SETS = ("ordered", "tied", "all")
#: (cells up to which the readable version is taken, pairs of a block): readable; one block; tiny blocks; middling ones.
WAYS = ((10**9, 1 << 17), (0, 1 << 17), (0, 8), (0, 40), (0, 600))


def problem(seed: int, shape: tuple[int, ...] = (4, 7), weighted: bool = False) -> Checked:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    relevance = torch.randint(0, 4, shape, generator=generator).double()
    mask = torch.rand(shape, generator=generator) < 0.8
    if len(shape) == 2 and shape[0] > 3:
        mask[1], mask[2] = False, True
    weight = torch.rand(shape, generator=generator, dtype=torch.float64) if weighted else None
    return check_lists(scores, relevance, mask, weight, "sum")


def chosen_pairs(lists: Checked, kind: str, row: int) -> list[tuple[int, int]]:
    """The pairs of a list, by looking at all of them."""
    y, there = lists.relevance[row].tolist(), lists.mask[row].tolist()
    tests = {"ordered": lambda i, j: y[i] > y[j], "tied": lambda i, j: y[i] == y[j], "all": lambda i, j: y[i] > 0}
    return [
        (i, j) for i, j in itertools.product(range(len(y)), repeat=2) if there[i] and there[j] and tests[kind](i, j)
    ]


def pair_set(lists: Checked, kind: str) -> core.Pairs | None:
    if kind == "ordered":
        return None
    if kind == "tied":
        return core.tied_pairs(lists.relevance, lists.mask)
    return core.all_pairs(lists.relevance > 0, lists.mask)


def take(monkeypatch: pytest.MonkeyPatch, way: tuple[int, int]) -> None:
    monkeypatch.setattr(core, "DENSE_ELEMENTS", way[0])
    monkeypatch.setattr(blocks_module, "BLOCK_ELEMENTS", way[1])


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_every_way_gives_the_sum_over_pairs(kernel: core.Kernel, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = KERNELS[kernel]
    for weighted, with_term, with_margin in itertools.product(
        (False, True), (None, "tensor", "function"), (False, True)
    ):
        lists = problem(3, weighted=weighted)
        generator = torch.Generator().manual_seed(1)
        given = torch.rand(4, 7, 7, generator=generator, dtype=torch.float64)
        gain = torch.rand(4, 7, generator=generator, dtype=torch.float64)
        function = core.PairTerm(lambda first, second: (first[0] - second[0]).abs(), (gain,))
        term = {None: None, "tensor": given, "function": function}[with_term]
        margin = core.PairTerm(lambda first, second: first[0] * second[0], (gain,)) if with_margin else None
        s, v, g, w = lists.scores.tolist(), given.tolist(), gain.tolist(), lists.weight
        expected, number = [], []
        for row in range(4):
            found = 0.0
            pairs = chosen_pairs(lists, kind, row)
            for i, j in pairs:
                factor = {None: 1.0, "tensor": v[row][i][j], "function": abs(g[row][i] - g[row][j])}[with_term]
                factor *= 1.0 if w is None else float(w[row, i] * w[row, j])
                found += factor * cost(s[row][i] - s[row][j] - (g[row][i] * g[row][j] if with_margin else 0.0))
            expected.append(found)
            number.append(len(pairs))
        upstream = torch.tensor([1.0, 2.0, -0.5, 3.0], dtype=torch.float64)
        gradients = []
        for way in WAYS:
            take(monkeypatch, way)
            sums = core.pair_sums(lists, kernel, pairs=pair_set(lists, kind), pair_weight=term, pair_margin=margin)
            assert sums.total.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)
            assert sums.number.tolist() == number
            gradients.append(torch.autograd.grad(sums.total, lists.scores, upstream, retain_graph=True)[0])
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("kernel", [core.Logistic(0.7), core.Squared(), core.Exponential(0.5)], ids=str)
def test_derivatives_are_those_of_autograd(kernel: core.Kernel, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = problem(5, weighted=True)
    pairs = pair_set(lists, kind)
    for way in WAYS[1:]:
        take(monkeypatch, way)
        first, second = core.pair_derivatives(lists, kernel, pairs=pairs)
        total = core.pair_sums(lists, kernel, pairs=pairs).total
        assert first.value.sum(-1).tolist() == pytest.approx(total.tolist())
        assert second.value.sum(-1).tolist() == pytest.approx(total.tolist())
        (gradient,) = torch.autograd.grad(total.sum(), lists.scores, create_graph=True)
        torch.testing.assert_close(first.slope - second.slope, gradient.detach())
        if kind == "ordered":  # a candidate paired with itself has curvature here but none as a sum
            curvature = [
                torch.autograd.grad(g, lists.scores, retain_graph=True)[0].flatten()[n]
                for n, g in enumerate(gradient.flatten())
            ]
            torch.testing.assert_close((first.curvature + second.curvature).flatten(), torch.stack(curvature))


@pytest.mark.parametrize("kernel", [core.Logistic(), core.SquaredHinge(), core.Squared(), core.Exponential()], ids=str)
def test_second_derivatives(kernel: core.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "DENSE_ELEMENTS", 0)
    lists = problem(7)

    def total(scores: Tensor) -> Tensor:
        return core.pair_sums(lists._replace(scores=scores), kernel).total

    scores = lists.scores.detach().requires_grad_()
    assert torch.autograd.gradcheck(total, scores)
    assert torch.autograd.gradgradcheck(total, scores)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (1, 1), (0, 4), (3, 0), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("kernel", [core.Logistic(), core.Hinge(), core.Squared()], ids=str)
def test_any_leading_dimensions(shape: tuple[int, ...], kernel: core.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = problem(11, shape)
    flat = Checked(*(None if part is None else part.reshape(-1, max(shape[-1], 1)) for part in lists))
    for way in ((0, 16), (10**9, 16)):
        take(monkeypatch, way)
        sums = core.pair_sums(lists, kernel)
        assert sums.total.shape == sums.number.shape == shape[:-1]
        if lists.scores.numel():
            assert sums.total.flatten().tolist() == pytest.approx(core.pair_sums(flat, kernel).total.tolist())
        gradient = torch.autograd.grad(sums.total.sum(), lists.scores)[0]
        assert gradient.shape == shape


# ---------------------------------------------------------------------------------- hinges by sorting


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("power", [1, 2])
def test_hinges_with_many_levels(levels: int, power: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randn(3, 40, generator=generator, dtype=torch.float64).requires_grad_()
    relevance = torch.randint(0, levels, (3, 40), generator=generator).double()
    weight = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 40, generator=generator) < 0.8
    lists = check_lists(scores, relevance, mask, weight, "sum")
    kernel = core.Hinge(0.6) if power == 1 else core.SquaredHinge(0.6)
    # The kernel under a subset of pairs that is given takes the readable version.
    plain = core.pair_sums(lists, kernel, pairs=core.ordered_pairs(lists.relevance, lists.mask)).total
    found = core.pair_sums(lists, kernel).total
    torch.testing.assert_close(found, plain)
    for ours, wanted in zip(
        *(torch.autograd.grad(t.sum(), scores, retain_graph=True) for t in (found, plain)), strict=True
    ):
        torch.testing.assert_close(ours, wanted)


def test_a_pair_exactly_at_the_margin_pulls_nothing() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 5.0]], requires_grad=True)
    loss = pairwise_hinge_loss(scores, torch.tensor([[2.0, 1.0, 1.0, 2.0]]), reduction="sum")
    assert loss.item() == 0
    assert torch.autograd.grad(loss, scores)[0].tolist() == [[0, 0, 0, 0]]


def test_large_scores_keep_their_differences() -> None:
    """Sums of squares of scores near 1e4 would leave nothing of differences of 1e-2 in float32."""
    near = torch.tensor([[0.01, 0.0, 0.03, -0.02]])
    relevance = torch.tensor([[1.0, 0.0, 2.0, 1.0]])
    for kernel in (core.SquaredHinge(0.05), core.Squared(0.05)):
        exact = core.pair_sums(check_lists((near + 1e4).double(), relevance, None, None, "sum"), kernel).total
        found = core.pair_sums(check_lists(near + 1e4, relevance, None, None, "sum"), kernel).total
        assert found.item() == pytest.approx(exact.item(), rel=1e-6)


def test_hinge_values_by_hand() -> None:
    """Paper 103, check: max(0, 1 - d) of every pair; powers; the mean over the pairs of the batch."""
    scores, relevance = torch.tensor([[0.5, 0.0, 2.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    costs = [0.5, 2.5, 3.0]  # d = 0.5, -1.5, -2
    assert pairwise_hinge_loss(scores, relevance).item() == pytest.approx(sum(costs) / 3)
    assert pairwise_hinge_loss(scores, relevance, power=2).item() == pytest.approx(sum(c * c for c in costs) / 3)
    assert pairwise_hinge_loss(scores, relevance, margin=0.0, reduction="none").tolist() == pytest.approx([1.5 + 2.0])
    assert pairwise_hinge_loss(scores, torch.ones(1, 3)).item() == 0
    for bad in ({"margin": -0.1}, {"margin": math.nan}, {"power": 3}):
        with pytest.raises(RivalsError, match=next(iter(bad))):
            pairwise_hinge_loss(scores, relevance, **bad)


def test_one_level_needs_no_bits() -> None:
    start, stop = torch.tensor([[2, 2]]), torch.tensor([[2, 2]])
    assert hinge_total(torch.tensor([[1.0, 2.0]]), start, stop, None, 1.0, 1).tolist() == [0]


# ---------------------------------------------------------------------------------- weights


def test_weights_may_need_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "DENSE_ELEMENTS", 0)
    lists = problem(13)
    weight = torch.rand(4, 7, dtype=torch.float64, requires_grad=True)
    pair_weight = torch.rand(4, 7, 7, dtype=torch.float64, requires_grad=True)
    loss = pairwise_logistic_loss(
        lists.scores, lists.relevance, lists.mask, weight=weight, pair_weight=pair_weight, reduction="sum"
    )
    by_weight, by_pair = torch.autograd.grad(loss, (weight, pair_weight))
    assert loss.item() == pytest.approx((by_pair * pair_weight).sum().item())
    assert 2 * loss.item() == pytest.approx((by_weight * weight).sum().item())  # every pair has two weights


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_bad_pair_weight_is_found_in_any_block(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = problem(17)
    for way in WAYS:
        take(monkeypatch, way)
        pair_weight = torch.ones(4, 7, 7)
        i, j = chosen_pairs(lists, "ordered", 2)[-1]
        pair_weight[2, j, i] = bad  # the wrong way round: no pair, never read
        assert pairwise_logistic_loss(lists.scores, lists.relevance, lists.mask, pair_weight=pair_weight).isfinite()
        pair_weight[2, i, j] = bad
        with pytest.raises(RivalsError, match="pair_weight must be finite and not negative"):
            pairwise_logistic_loss(lists.scores, lists.relevance, lists.mask, pair_weight=pair_weight)


# ---------------------------------------------------------------------------------- long lists


def long_lists(dtype: torch.dtype = torch.float32, grades: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(19)
    scores = torch.randn(2, 400, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return scores, torch.randint(0, grades, (2, 400), generator=generator).to(dtype)


@pytest.mark.parametrize("grades", [2, 5, 400])
def test_float32_is_as_good_as_float64(grades: int) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        scores, relevance = long_lists(dtype, grades)
        loss = pairwise_logistic_loss(scores, relevance)
        results.append((loss.item(), torch.autograd.grad(loss, scores)[0].double()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert (results[0][1] - results[1][1]).abs().max() <= 1e-5 * results[1][1].abs().max()


class Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """The most elements of any tensor made."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize(
    "loss",
    [
        pairwise_logistic_loss,
        pairwise_hinge_loss,
        lambda_loss,
        lambda s, y: lambda_loss(s, y, scheme="ndcg1"),
        lambda s, y: lambda_loss(s, y, scheme="mrr", k=10),
    ],
)
def test_never_holds_the_matrix_and_keeps_lists_alone(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_ELEMENTS", 1 << 13)
    scores, relevance = long_lists()
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept = max(kept, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Watch() as watch:
        loss(scores, relevance).backward()
    assert 0 < watch.largest <= 1 << 13 < scores.shape[1] ** 2
    assert 0 < kept <= 2 * scores.numel() + 4


def test_no_gradient_where_none_is_wanted() -> None:
    scores, relevance = long_lists()
    expected = pairwise_logistic_loss(scores, relevance).item()
    with torch.no_grad():
        assert pairwise_logistic_loss(scores, relevance).item() == expected
    assert pairwise_logistic_loss(scores.detach(), relevance).requires_grad is False


def test_blocks_cover_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, size in itertools.product(range(4), (8, 64, 1024)):
        lists = problem(seed, (9, 11))
        pairs = core.ordered_pairs(lists.relevance, lists.mask)
        met = torch.zeros(9, 11, 11, dtype=torch.int64)
        monkeypatch.setattr(blocks_module, "BLOCK_ELEMENTS", size)
        for block in blocks_module.blocks(pairs, torch.device("cpu")):
            live = torch.ones_like(met[block.lists, block.rows, block.columns])
            start, stop = (part[block.lists, block.rows].unsqueeze(-1) for part in pairs[1:])
            for strip in block.strips:
                place = torch.arange(block.columns.start, block.columns.stop)[strip]
                live[..., strip] *= (place >= start) & (place < stop)
            met[block.lists, block.rows, block.columns] += live
        place = torch.arange(11)
        assert torch.equal(met, ((place >= pairs.start.unsqueeze(-1)) & (place < pairs.stop.unsqueeze(-1))).long())


@pytest.mark.parametrize("loss", [pairwise_logistic_loss, pairwise_hinge_loss])
def test_weight_two_is_the_candidate_twice(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = problem(23)
    weight = torch.ones(4, 7, dtype=torch.float64)
    weight[:, 2] = 2.0
    twice = [torch.cat([part, part[:, 2:3]], dim=1) for part in (lists.scores, lists.relevance, lists.mask)]
    for way in WAYS:
        take(monkeypatch, way)
        weighted = loss(lists.scores, lists.relevance, lists.mask, weight=weight, reduction="none")
        torch.testing.assert_close(weighted, loss(*twice, reduction="none"))
