"""The factored output layer against dense plain SGD."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import one_hot

from rivals.errors import RivalsError
from rivals.losses import SphericalOutput, squared_error_loss, taylor_softmax_loss, z_loss

DENSE = {"z": z_loss, "squared": squared_error_loss, "taylor": taylor_softmax_loss}


def layer(kind: str = "z", outputs: int = 11, **options: object) -> SphericalOutput:
    generator = torch.Generator().manual_seed(1)
    return SphericalOutput(
        4,
        outputs,
        lr=0.05,
        generator=generator,
        dtype=torch.float64,
        kind=kind,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


def batch(rows: int, seed: int = 2, outputs: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_()
    return hidden, torch.randint(0, outputs, (rows,), generator=generator)


def dense_step(weight: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor, kind: str, lr: float) -> tuple:
    weight, hidden = weight.clone().requires_grad_(), hidden.detach().clone().requires_grad_()
    loss = DENSE[kind](hidden @ weight.T, one_hot(targets, len(weight)).double(), reduction="sum")
    by_weight, by_hidden = torch.autograd.grad(loss, (weight, hidden))
    return loss.detach(), by_hidden, weight.detach() - lr * by_weight


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("rows", [3, 9])  # fewer rows than dimensions, and more
@pytest.mark.parametrize("stabilize_every", [1, 100])
def test_steps_are_those_of_dense_sgd(kind: str, rows: int, stabilize_every: int) -> None:
    out = layer(kind, stabilize_every=stabilize_every)
    weight = out.weight().clone()
    for seed in range(4):
        hidden, targets = batch(rows, seed)
        loss = out(hidden, targets, reduction="sum")
        loss.backward()
        wanted_loss, wanted_hidden, weight = dense_step(weight, hidden, targets, kind, 0.05)
        torch.testing.assert_close(loss.detach(), wanted_loss)
        torch.testing.assert_close(hidden.grad, wanted_hidden, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(out.weight(), weight, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(out.gram, weight.T @ weight, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(out.row_sum, weight.sum(0), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(out.logits(hidden.detach()), hidden.detach() @ weight.T, rtol=1e-8, atol=1e-10)


def test_several_target_columns() -> None:
    out, (hidden, _) = layer("taylor"), batch(3)
    targets = torch.tensor([[0, 5], [5, 5], [10, 2]])
    start = out.weight().clone().requires_grad_()
    again = hidden.detach().clone().requires_grad_()
    logits = again @ start.T
    by_column = [taylor_softmax_loss(logits, one_hot(column, 11).double()) for column in targets.T]
    by_weight, by_hidden = torch.autograd.grad((by_column[0] + by_column[1]) / 2, (start, again))
    loss = out(hidden, targets)
    loss.backward()
    assert loss.item() == pytest.approx(((by_column[0] + by_column[1]) / 2).item())
    torch.testing.assert_close(hidden.grad, by_hidden)
    torch.testing.assert_close(out.weight(), start.detach() - 0.05 * by_weight)


def test_stabilisation_changes_the_factors_only() -> None:
    for singular_values in ([3.0, 1.0, 1.0, 1.0], [0.2, 1.0, 3.0, 1.0]):  # one outside, and more than a third
        out = layer()
        values = torch.tensor(singular_values, dtype=torch.float64)
        rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).double()).Q
        out.V = out.V @ torch.linalg.inv(rotation * values)
        out.U = rotation * values
        out.inverse = torch.linalg.inv(out.U)
        out.omega += 0.3
        before = out.weight().clone()
        out._stabilize()
        torch.testing.assert_close(out.weight(), before)
        torch.testing.assert_close(out.U @ out.inverse, torch.eye(4, dtype=torch.float64))
        assert (torch.linalg.svdvals(out.U) - 1).abs().max() < 1e-10


def test_evaluation_only_gives_the_gradient() -> None:
    out, (hidden, targets) = layer().eval(), batch(3)
    before = copy.deepcopy(out.state_dict())
    out(hidden, targets).backward()
    assert hidden.grad is not None
    assert all(torch.equal(before[name], value) for name, value in out.state_dict().items())


def test_no_work_per_output_but_the_targets() -> None:
    """Rows that are no target keep their part of V: the step touches target rows only."""
    out, (hidden, _) = layer(outputs=1000), batch(3)
    before = out.V.clone()
    out(hidden, torch.tensor([3, 500, 3])).backward()
    changed = (before != out.V).any(1).nonzero().flatten().tolist()
    assert changed == [3, 500]
    assert list(out.parameters()) == []


def test_bad_input() -> None:
    out, (hidden, targets) = layer(), batch(3)
    for wrong in (targets + 20, targets - 20):
        with pytest.raises(RivalsError, match="targets"):
            out(hidden, wrong)
    with pytest.raises(RivalsError, match="targets"):
        out(hidden, targets[:2])
    with pytest.raises(RivalsError, match="hidden"):
        out(hidden[:, :3], targets)
    for options in ({"stabilize_every": 0}, {"lr": 0.0}, {"num_outputs": 1}, {"kind": "cubic"}):
        given = {"dim": 4, "num_outputs": 9, "lr": 0.1, "generator": torch.Generator()}
        with pytest.raises(RivalsError):
            SphericalOutput(**(given | options))  # type: ignore[arg-type]
