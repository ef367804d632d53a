"""The gradient cache: equal to the whole batch's gradient, dropout included, in the memory of one part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import in_batch_info_nce_loss, info_nce_loss
from rivals.training import CachedGradients, GradientCache, LoopConfig, Plain, cached_backward, fit


def tower(dropout: float = 0.0, width: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 4)).double()


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for module in modules for p in module.parameters()]  # type: ignore[union-attr]


def contrastive(queries: Tensor, documents: Tensor, **constants: Any) -> Tensor:
    return in_batch_info_nce_loss(queries, documents, temperature=0.2, **constants)


@settings(deadline=None, max_examples=20)
@given(chunks=st.tuples(st.integers(1, 9), st.integers(1, 9)), rows=st.integers(1, 8), tied=st.booleans())
def test_any_chunks_give_the_whole_batch_s_gradient(chunks: tuple[int, int], rows: int, tied: bool) -> None:
    first, second = tower(seed=1), tower(seed=2)
    second = first if tied else second
    torch.manual_seed(rows)
    queries, documents = torch.randn(rows, 6).double(), torch.randn(rows + 2, 6).double()
    cache = GradientCache([first, second], contrastive, chunk=list(chunks))
    loss = cache.step(queries, documents)
    found = gradients(first, second)
    first.zero_grad()
    second.zero_grad()
    whole = contrastive(first(queries), second(documents))
    whole.backward()
    assert loss == pytest.approx(float(whole.detach()), rel=1e-12)
    for mine, theirs in zip(found, gradients(first, second), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_with_dropout_each_part_keeps_its_masks() -> None:
    net, rows = tower(dropout=0.5), torch.randn(7, 6, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(5)
    loss = GradientCache([net], lambda v: v.square().sum().log(), chunk=3).step(rows)
    left = torch.rand(3)
    found = gradients(net)
    net.zero_grad()
    torch.manual_seed(5)
    whole = torch.cat([net(part) for part in rows.split(3)]).square().sum().log()
    assert torch.equal(torch.rand(3), left)  # the stream goes on as after one pass
    whole.backward()
    assert float(loss) == pytest.approx(float(whole.detach()), rel=1e-12)
    for mine, theirs in zip(found, gradients(net), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_without_repeating_random_numbers_the_gradient_would_be_another() -> None:
    net, rows = tower(dropout=0.5), torch.randn(8, 6).double()
    torch.manual_seed(5)
    GradientCache([net], lambda v: v.square().sum(), chunk=2).step(rows)
    kept = gradients(net)
    net.zero_grad()
    torch.manual_seed(6)
    net(rows).square().sum().backward()
    assert not torch.allclose(kept[0], gradients(net)[0])


def test_one_query_and_one_document_teach_nothing() -> None:
    net = tower()
    loss = GradientCache([net, net], contrastive, chunk=1).step(torch.ones(1, 6).double(), torch.ones(1, 6).double())
    assert float(loss) == 0
    assert all(bool((g == 0).all()) for g in gradients(net))


def test_a_second_step_adds_to_the_gradients() -> None:
    net, rows = tower(), torch.randn(4, 6).double()
    cache = GradientCache([net], lambda v: v.sum(), chunk=3)
    cache.step(rows)
    once = gradients(net)
    loss = cache.step(rows)
    assert not loss.requires_grad
    torch.testing.assert_close(gradients(net)[0], 2 * once[0])


def test_a_masked_column_s_document_learns_nothing() -> None:
    documents = nn.Embedding(3, 4).double()
    mask = torch.tensor([[True, True, False], [True, True, False]])
    queries = torch.randn(2, 4).double()
    cache = GradientCache([documents], lambda d, mask: contrastive(queries, d, mask=mask), chunk=1)
    cache.step(torch.arange(3), mask=mask)
    assert documents.weight.grad is not None
    assert bool((documents.weight.grad[2] == 0).all())
    assert not bool((documents.weight.grad[:2] == 0).all())


def test_a_scaler_scales_the_gradients_and_not_the_loss() -> None:
    class Scaler:
        def scale(self, loss: Tensor) -> Tensor:
            return loss * 1024

        def get_scale(self) -> float:
            return 1024.0

    net, rows = tower(), torch.randn(5, 6).double()
    plain = GradientCache([net], lambda v: v.square().sum(), chunk=2)
    value = plain.step(rows)
    expected = gradients(net)
    net.zero_grad()
    scaled = GradientCache([net], lambda v: v.square().sum(), chunk=2, scaler=Scaler())
    assert float(scaled.step(rows)) == pytest.approx(float(value))
    torch.testing.assert_close([g / 1024 for g in gradients(net)], expected)


def test_inputs_of_many_kinds_are_cut() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2).double()

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.inner(ids) * mask[:, None]

    net, ids, mask = Words(), torch.randn(5, 2).double(), torch.tensor([1, 0, 1, 1, 0]).double()
    expected = float(net(ids, mask).square().sum().detach())
    for given_as in ({"ids": ids, "mask": mask}, (ids, mask), [ids, mask]):
        assert float(GradientCache([net], lambda v: v.square().sum(), chunk=2).step(given_as)) == pytest.approx(
            expected
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientCache([tower()], contrastive, chunk=0), "chunk must be 1 or more"),
        (lambda: GradientCache([tower()], contrastive, chunk=[1, 2]), "one per model"),
        (lambda: GradientCache([nn.BatchNorm1d(2)], contrastive), "BatchNorm1d.*statistics"),
        (lambda: GradientCache([tower()], contrastive).step(), "0 inputs for 1 models"),
        (lambda: GradientCache([tower()], lambda v: v).step(torch.ones(2, 6).double()), "must be one number"),
        (lambda: GradientCache([tower()], lambda v: v.detach().sum()).step(torch.ones(2, 6).double()), "depends on"),
        (
            lambda: GradientCache([tower()], lambda v: v.sum()).step(torch.full((2, 6), torch.nan).double()),
            "not finite",
        ),
        (lambda: GradientCache([tower()], lambda v: v.sum()).step("text"), "cannot be cut into rows"),
        (lambda: GradientCache([tower()], lambda v: v.sum()).step([torch.ones(2), torch.ones(3)]), "as many rows each"),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        make()


def test_batch_statistics_may_be_frozen_or_allowed() -> None:
    GradientCache([nn.BatchNorm1d(2).eval()], contrastive)
    GradientCache([nn.BatchNorm1d(2)], contrastive, allow_batch_statistics=True)


class Rows:
    """Rows of numbers against each other; batches of 6 in parts of 2."""

    def __init__(self) -> None:
        self.model = tower(dropout=0.3)
        self.data = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).double()

    def batches(self, epoch: int) -> list[Tensor]:
        return list(torch.randperm(12, generator=torch.Generator().manual_seed(epoch)).split(6))

    def parts(self, batch: Tensor) -> list[Any]:
        return [lambda part=part: (self.model(self.data[part]),) for part in batch.split(2)]

    def joined(self, batch: Tensor, vectors: Any, generator: torch.Generator) -> Tensor:
        found = torch.cat([v for (v,) in vectors])
        return info_nce_loss(found @ found.T, torch.eye(len(found)), temperature=0.5)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return self.joined(batch, [part() for part in self.parts(batch)], generator)

    def evaluate(self) -> float:
        return 0.0


def test_the_loop_trains_to_the_same_weights_with_either_executor() -> None:
    plain, cached = Rows(), Rows()
    config = LoopConfig(epochs=3, evaluations=0, accumulate=2, learning_rate=0.01)
    losses = [fit(o, config, executor=e).losses for o, e in ((plain, Plain()), (cached, CachedGradients()))]
    assert [loss for _, loss in losses[0]] == pytest.approx([loss for _, loss in losses[1]], rel=1e-12)
    for mine, theirs in zip(plain.model.parameters(), cached.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_an_objective_of_one_piece_is_told_so() -> None:
    class Whole:
        model = tower()

        def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
            return torch.zeros(())

    with pytest.raises(RivalsError, match="`parts` and `joined`; Whole computes its loss in one piece"):
        CachedGradients().backward(Whole(), None, torch.Generator(), 1.0)


def test_the_graph_of_one_part_is_held_at_a_time() -> None:
    held, most, net = 0, 0, tower(width=64)

    def count(saved: Tensor) -> Tensor:
        nonlocal held, most
        held += saved.numel()
        most = max(most, held)
        return saved

    def peak(parts: int) -> int:
        nonlocal held, most
        held = most = 0

        def encode(rows: Tensor) -> tuple[Tensor]:
            nonlocal held
            held = 0  # the graph of the part before is gone
            with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
                return (net(rows),)

        pieces = [lambda r=r: encode(r) for r in torch.randn(64, 64).double().chunk(parts)]
        cached_backward(pieces, lambda vectors: torch.cat([v for (v,) in vectors]).square().sum())
        return most

    assert peak(8) * 6 < peak(1)
