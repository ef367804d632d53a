"""Group ordering (paper 22): the card's hand-computed values, ragged lists, and the views of a batch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import group_ordering_contrastive_loss, group_ordering_loss, soft_sort


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def by_the_card(scores: Tensor, relevance: Tensor, k: int, steepness: float) -> Tensor:
    """One list, with the whole permutation and torch's binary cross entropy."""
    negatives = scores[relevance == 0].sort().values[-k:]
    positives = scores[relevance > 0].sort().values
    count = len(negatives)
    matrix = soft_sort(torch.cat([negatives, positives]), steepness=steepness).permutation
    low, high = (side.sum(-1).clip(0, 1) for side in (matrix[:, :count], matrix[:, count:]))
    target = (torch.arange(len(matrix)) < count).double()
    return (F.binary_cross_entropy(high, 1 - target) + F.binary_cross_entropy(low, target)) / 2


def test_two_by_hand() -> None:
    assert group_ordering_loss(rows([0.2, 0.5]), rows([0, 1])).item() == pytest.approx(0.5229427757004312, abs=1e-12)
    assert group_ordering_loss(rows([0.5, 0.2]), rows([0, 1])).item() == pytest.approx(0.898385931464041, abs=1e-12)
    bound = group_ordering_loss(rows([-1, 1]), rows([0, 1])).item()
    assert bound == pytest.approx(-math.log(0.5 + math.atan(2) / math.pi), abs=1e-12)
    assert bound == pytest.approx(0.1596801598555846, abs=1e-12)


@pytest.mark.parametrize("steepness", [0.5, 10.0])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_ragged_lists_against_whole_permutations(k: int, steepness: float) -> None:
    scores = randn(6, 8).requires_grad_()
    relevance = (randn(6, 8, seed=1) > 0.6).double()
    relevance[0], relevance[1], relevance[2, :5] = 0, 1, 1
    mask = randn(6, 8, seed=2) > -0.8
    loss = group_ordering_loss(scores, relevance, mask, top_negatives=k, steepness=steepness)
    expected = []
    for row in range(6):
        s, y = scores[row, mask[row]], relevance[row, mask[row]]
        if (y > 0).any() and (y == 0).any():
            expected.append(by_the_card(s, y, k, steepness))
    assert len(expected) >= 3
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-12)
    (ours,) = torch.autograd.grad(loss, scores)
    (theirs,) = torch.autograd.grad(torch.stack(expected).mean(), scores)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_only_the_strongest_negatives_feel_it() -> None:
    scores = rows([0.3, 0.9, 0.1, 0.5, 0.7]).requires_grad_()
    loss = group_ordering_loss(scores, rows([1, 0, 0, 0, 0]), top_negatives=2)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[0, 0] < 0
    assert (gradient[0, [1, 4]] > 0).all()
    assert (gradient[0, [2, 3]] == 0).all()


def test_grades_have_a_block_each() -> None:
    scores, relevance = rows([0.1, 0.8, 0.4, -0.5]), rows([1, 2, 0, 0])
    order = [3, 2, 0, 1]
    matrix = soft_sort(scores[0, order]).permutation
    blocks = torch.tensor([0, 0, 1, 2])
    mass = torch.stack([matrix[:, blocks == b].sum(-1) for b in range(3)], -1)
    expected = F.binary_cross_entropy(mass.clip(0, 1), F.one_hot(blocks, 3).double())
    found = group_ordering_loss(scores, relevance, graded=True)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    two = group_ordering_loss(scores, rows([1, 1, 0, 0]), graded=True)
    assert two.item() == pytest.approx(group_ordering_loss(scores, relevance).item(), abs=1e-12)
    both = group_ordering_loss(scores.repeat(2, 1), torch.cat([relevance, rows([1, 1, 0, 0])]), graded=True)
    assert both.item() == pytest.approx((found + two).item() / 2, abs=1e-12)


def test_weights_multiply_a_candidates_terms() -> None:
    scores, relevance = rows([0.2, 0.5, 0.1]), rows([0, 1, 1])
    whole = group_ordering_loss(scores, relevance, weight=rows([2, 2, 2]))
    assert whole.item() == pytest.approx(2 * group_ordering_loss(scores, relevance).item())
    parts = [group_ordering_loss(scores, relevance, weight=row[None]).item() for row in torch.eye(3).double()]
    assert sum(parts) == pytest.approx(group_ordering_loss(scores, relevance).item())


def views_by_the_card(views: Tensor, k: int, positives: int, steepness: float) -> Tensor:
    losses = []
    for v in range(len(views)):
        for i in range(views.shape[1]):
            anchor = views[v, i]
            near = [F.cosine_similarity(anchor, views[p, i].detach(), dim=0) for p in range(positives) if p != v]
            far = [F.cosine_similarity(anchor, views[v, j].detach(), dim=0) for j in range(views.shape[1]) if j != i]
            scores = torch.stack(near + far)
            losses.append(by_the_card(scores, torch.tensor([1.0] * len(near) + [0.0] * len(far)), k, steepness))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("count", "positives"), [(2, 2), (3, 3), (4, 2)])
def test_views_against_loops(count: int, positives: int) -> None:
    views = randn(count, 4, 3).requires_grad_()
    loss = group_ordering_contrastive_loss(views, top_negatives=2, steepness=2.0, positive_views=positives)
    expected = views_by_the_card(views, 2, positives, 2.0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (ours,), (theirs,) = torch.autograd.grad(loss, views), torch.autograd.grad(expected, views)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_group_ordering_contrastive_loss_is_symmetric_in_views_and_images() -> None:
    views = randn(2, 5, 4)
    loss = group_ordering_contrastive_loss(views, top_negatives=3).item()
    assert group_ordering_contrastive_loss(views.flip(0), top_negatives=3).item() == pytest.approx(loss, abs=1e-12)
    assert group_ordering_contrastive_loss(views[:, [3, 1, 4, 0, 2]], top_negatives=3).item() == pytest.approx(loss)
    assert group_ordering_contrastive_loss(views * 7, top_negatives=3).item() == pytest.approx(loss)
    each = group_ordering_contrastive_loss(views, top_negatives=3, reduction="none")
    assert each.shape == (2, 5)
    assert each.mean().item() == pytest.approx(loss)


def test_stop_grad_leaves_only_the_anchor() -> None:
    views = randn(2, 4, 3).requires_grad_()

    def gradient(stop: bool) -> Tensor:
        each = group_ordering_contrastive_loss(views, top_negatives=2, stop_grad=stop, reduction="none")
        return torch.autograd.grad(each[0, 0], views)[0]

    stopped = gradient(True)
    assert (stopped[0, 0] != 0).any()
    stopped[0, 0] = 0
    assert (stopped == 0).all()
    assert (gradient(False)[1, 0] != 0).any()
    torch.testing.assert_close(
        group_ordering_contrastive_loss(views, top_negatives=2, stop_grad=False),
        group_ordering_contrastive_loss(views, top_negatives=2),
    )


def test_views_in_half_precision_and_their_gradient() -> None:
    views = randn(2, 4, 3).requires_grad_()
    call = lambda x: group_ordering_contrastive_loss(x, top_negatives=2, stop_grad=False)  # noqa: E731
    assert torch.autograd.gradcheck(call, (views,))
    for dtype in (torch.bfloat16, torch.float16):
        half = (views.detach().sign() * 1e4).to(dtype).requires_grad_()
        loss = call(half)
        loss.backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert torch.isfinite(half.grad).all()


def test_bad_input_is_named() -> None:
    views = randn(2, 4, 3)
    for call, name in (
        (lambda: group_ordering_contrastive_loss(views, top_negatives=4), "top_negatives"),
        (lambda: group_ordering_contrastive_loss(views[:1], top_negatives=2), "views"),
        (lambda: group_ordering_contrastive_loss(views, top_negatives=2, positive_views=3), "positives"),
        (lambda: group_ordering_contrastive_loss(views[0], top_negatives=2), "views"),
        (lambda: group_ordering_loss(rows([1, 0]), rows([1, 0]), top_negatives=0), "top_negatives"),
        (lambda: group_ordering_loss(rows([1, 0]), rows([1, 0]), steepness=0.0), "steepness"),
        (lambda: group_ordering_loss(rows([1, 0]), rows([1, 0]), cdf="normal"), "cdf"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RivalsError, match=name):
            call()
