"""Landscapes of what `fit` trains (paper 92): its own loss, its path, grids that go on after an interruption."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rivals.diagnose.curvature import curvature_surface, hessian_extremes
from rivals.diagnose.landscape import loss_curve, loss_surface, random_direction, sharpness
from rivals.diagnose.trained import ObjectiveLoss, TrajectoryRecorder, trajectory_surface
from rivals.errors import RivalsError
from rivals.losses import cross_entropy_loss, in_batch_triplet_loss
from rivals.models.images import FeatureEncoder, ImageEncoder
from rivals.training import LoopConfig, SupervisedObjective, fit


def objective(*, seed: int = 0, dropout: float = 0.2) -> SupervisedObjective:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 5, generator=rng)
    y = (x[:, 0] + x[:, 1] > 0).long()
    model = FeatureEncoder(5, 2, hidden=(8,), dropout=dropout, seed=seed)
    return SupervisedObjective(model, [x], [y], cross_entropy_loss, batch_size=20, seed=seed)


CONFIG = LoopConfig(epochs=6, learning_rate=0.02, evaluations=0, precision="float32")


def plain(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


# ------------------------------------------------------------------------------------------------ the objective's loss


def test_it_is_the_loss_of_the_objective_and_leaves_no_trace() -> None:
    made = objective()
    fit(made, CONFIG)
    made.model.train()
    before = copy.deepcopy(made.model.state_dict())
    parameters = [id(p) for p in made.model.parameters()]
    loss = ObjectiveLoss(made)
    data = [(made.inputs[0], made.targets[0])]
    direction = random_direction(made.model, generator=torch.Generator().manual_seed(1))
    for given, batches in ((loss, loss.data), (plain, data)):
        curve = loss_curve(made.model, given, batches, direction, [-1, 0, 0.5])
        if given is loss:
            mine = curve.loss
    assert mine == pytest.approx(curve.loss, rel=1e-5)  # batches of equal size: their mean is the mean
    assert made.model.training
    assert [id(p) for p in made.model.parameters()] == parameters
    assert all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())


def test_curvature_reaches_the_moved_weights() -> None:
    made = objective()
    fit(made, CONFIG)
    loss = ObjectiveLoss(made)
    mine = hessian_extremes(made.model, loss, loss.data)
    theirs = hessian_extremes(made.model, plain, [(made.inputs[0], made.targets[0])])
    assert mine == pytest.approx(theirs, rel=2e-2)
    assert not any(p.requires_grad is False for p in made.model.parameters())


def test_what_the_loss_draws_is_the_same_at_every_point() -> None:
    made = objective()

    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy_loss(outputs + torch.randn(outputs.shape), targets)

    made._loss = noisy
    loss = ObjectiveLoss(made)
    state = torch.get_rng_state()
    first, again = (loss_curve(made.model, loss, loss.data, {}, [0, 1]).loss for _ in range(2))
    assert first == again
    assert first[0] == first[1]
    assert torch.equal(state, torch.get_rng_state())
    other = ObjectiveLoss(made, seed=1)
    assert loss_curve(made.model, other, other.data, {}, [0]).loss[0] != first[0]


def test_pictures_and_in_batch_losses() -> None:
    pictures = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 4
    model = ImageEncoder(channels=1, dimension=8, widths=(8, 8), normalisation="batch")
    made = SupervisedObjective(
        model, [pictures], [labels], in_batch_triplet_loss, classes=labels, each=3, batch_size=12
    )
    path = TrajectoryRecorder(model, every=2, buffers=True)
    fit(made, LoopConfig(epochs=3, learning_rate=0.01, evaluations=0, precision="float32"), regime=path)
    loss = ObjectiveLoss(made, batches=1)
    assert len(loss.data) == 1
    assert sharpness(model, loss, loss.data, n_directions=2, generator=torch.Generator().manual_seed(0)) > 0
    found = trajectory_surface(model, path.states, loss, loss.data, points=3)
    assert found.surface.loss[0][0] >= 0
    json.dumps(found.to_json())


def test_errors_of_objective_losses() -> None:
    made = objective()
    with pytest.raises(RivalsError, match="batches is -1"):
        ObjectiveLoss(made, batches=-1)
    loss = ObjectiveLoss(made, batches=2)
    assert [number for number, _ in loss.data] == [0, 1]
    with pytest.raises(RivalsError, match="a copy of the objective's"):
        loss(nn.Linear(5, 2), loss.data[0])


# ------------------------------------------------------------------------------------------------ the path


def test_the_path_is_recorded_and_lies_on_its_surface() -> None:
    made = objective(dropout=0.0)
    start = copy.deepcopy(made.model.state_dict())
    path = TrajectoryRecorder(made.model, every=4)
    fit(made, CONFIG, regime=path)
    assert path.steps == [0, 4, 8, 12, 16, 18]
    assert all(torch.equal(path.states[0][name], value) for name, value in start.items())
    assert all(torch.equal(path.states[-1][name], p) for name, p in made.model.named_parameters())
    loss = ObjectiveLoss(made)
    ends = []
    for state in (path.states[0], path.states[-1]):
        made.model.load_state_dict(state)
        ends.append(loss_curve(made.model, loss, loss.data, {}, [0]).loss[0])
    with torch.no_grad():
        for parameter in made.model.parameters():  # the surface is that of the path, wherever the model is now
            parameter.zero_()
    found = trajectory_surface(made.model, path.states, loss, loss.data, points=9, margin=0.25)
    xs, ys = np.array(found.surface.x), np.array(found.surface.y)
    inside = found.plane.coordinates
    assert xs.min() < inside[:, 0].min() < inside[:, 0].max() < xs.max()
    assert ys.min() < inside[:, 1].min() < inside[:, 1].max() < ys.max()
    grid = np.array(found.surface.loss)
    near = [grid[np.abs(xs - x).argmin(), np.abs(ys - y).argmin()] for x, y in inside]
    assert near[-1] == pytest.approx(ends[-1], abs=0.05)  # the path's end lies in the plane
    assert near[0] == pytest.approx(ends[0], abs=0.1)
    assert near[-1] < near[0]
    assert sum(found.plane.explained_variance) > 0.6


def test_a_resumed_run_has_the_whole_path(tmp_path) -> None:
    whole_objective = objective()
    whole = TrajectoryRecorder(whole_objective.model, every=3)
    fit(whole_objective, CONFIG, folder=tmp_path / "whole", regime=whole)

    class Stop(Exception):
        pass

    class Stopping(TrajectoryRecorder):
        def begin(self, step: int, total: int) -> None:
            super().begin(step, total)
            if step == 11:
                raise Stop

    from dataclasses import replace

    config = replace(CONFIG, checkpoint_seconds=0.0)
    cut = objective()
    with pytest.raises(Stop):
        fit(cut, config, folder=tmp_path / "cut", regime=Stopping(cut.model, every=3))
    again = objective()
    resumed = TrajectoryRecorder(again.model, every=3)
    fit(again, config, folder=tmp_path / "cut", resume=True, regime=resumed)
    assert resumed.steps == whole.steps
    for one, two in zip(resumed.states, whole.states, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in two)


def test_errors_of_paths() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(RivalsError, match="every is 0"):
        TrajectoryRecorder(model, every=0)
    states = [{"weight": torch.randn(1, 3)} for _ in range(3)]
    with pytest.raises(RivalsError, match="no tensor 'weight'"):
        trajectory_surface(model, states, plain, [])
    with pytest.raises(RivalsError, match="points must be 2 or more"):
        trajectory_surface(model, states, plain, [], points=1)


# ------------------------------------------------------------------------------------------------ grids


class Counting:
    """A loss that counts its calls and can be interrupted."""

    def __init__(self, stop: int = 10**9) -> None:
        self.calls, self.stop = 0, stop

    def __call__(self, model: nn.Module, _: int) -> tuple[Tensor, int, Tensor]:
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return model.weight.square().sum(), 1, model.weight.sum()


def test_an_interrupted_grid_goes_on(tmp_path) -> None:
    model = nn.Linear(3, 2)
    ways = [random_direction(model, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    whole = loss_surface(model, Counting(), [0], *ways, [-1, 0, 1], [0, 1])
    cache = tmp_path / "deep" / "grid.jsonl"
    with pytest.raises(KeyboardInterrupt):
        loss_surface(model, Counting(stop=4), [0], *ways, [-1, 0, 1], [0, 1], cache=cache)
    text = cache.read_text()
    assert len(text.splitlines()) == 5
    cache.write_text(text[:-4])  # killed in the middle of a line
    counting = Counting()
    again = loss_surface(model, counting, [0], *ways, [-1, 0, 1], [0, 1], cache=cache)
    assert again == whole
    assert counting.calls == 1 + 3  # the first once more, to see that the loss is the same
    counting = Counting()
    assert loss_surface(model, counting, [0], *ways, [-1, 0, 1], [0, 1], cache=cache) == whole
    assert counting.calls == 1


def test_a_cache_of_something_else_is_refused(tmp_path) -> None:
    model, cache = nn.Linear(3, 2), tmp_path / "curve.jsonl"
    way = random_direction(model, generator=torch.Generator().manual_seed(0))
    loss_curve(model, Counting(), [0], way, [0, 1], cache=cache)
    for other, xs in ((nn.Linear(3, 2), [0, 1]), (model, [0, 2])):
        with pytest.raises(RivalsError, match="is not of this model, directions and points"):
            loss_curve(other, Counting(), [0], way, xs, cache=cache)
    with pytest.raises(RivalsError, match="where this loss and data give"):
        loss_curve(model, lambda m, _: (m.weight.sum() * 3, 1, m.weight.sum()), [0], way, [0, 1], cache=cache)
    with pytest.raises(RivalsError, match="where this loss and data give"):
        loss_curve(model, lambda m, _: (m.weight.square().sum(), 1), [0], way, [0, 1], cache=cache)


def test_losses_that_explode_are_kept(tmp_path) -> None:
    model = nn.Linear(1, 1)

    def explode(moved: nn.Module, _: int) -> tuple[Tensor, int]:
        return torch.tensor(torch.inf) if bool(moved.bias > model.bias) else torch.tensor(torch.nan), 1

    way = {"bias": torch.ones(1)}
    for _ in range(2):
        curve = loss_curve(model, explode, [0], way, [0, 1], cache=tmp_path / "curve.jsonl")
        assert np.isnan(curve.loss[0])
        assert curve.loss[1] == np.inf


def test_the_curvature_of_a_cubic_changes_along_a_line(tmp_path) -> None:
    """sum w^3 / 6 has the Hessian diag(w)."""
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
    ones = {"weight": torch.ones(1, 3)}
    nothing = {"weight": torch.zeros(1, 3)}
    found = curvature_surface(
        model, lambda m, _: ((m.weight**3).sum() / 6, 1), [0], ones, nothing, [-2, 0, 1], [0], cache=tmp_path / "grid"
    )
    assert np.array(found.max).ravel() == pytest.approx([1, 3, 4], abs=0.05)
    assert np.array(found.min).ravel() == pytest.approx([-1, 1, 2], abs=0.05)
    assert found.ratio[0][0] == pytest.approx(1, abs=0.05)
    json.dumps(found.to_json())
