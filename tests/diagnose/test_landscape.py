"""Loss landscapes: directions, curves, interpolation, paths, curvature (paper 92)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from rivals.diagnose.curvature import hessian_extremes, project_displacement, trajectory_plane
from rivals.diagnose.landscape import (
    direction_cosine,
    interpolate_models,
    loss_curve,
    loss_surface,
    normalize_direction,
    random_direction,
    sharpness,
)
from rivals.errors import RivalsError


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int, Tensor]:
    logits = model(batch[0])
    hits = (logits.argmax(-1) == batch[1]).sum()
    return functional.cross_entropy(logits, batch[1], reduction="sum"), len(batch[1]), hits


@pytest.fixture(scope="module")
def digits() -> list[tuple[Tensor, Tensor]]:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32)[:600], torch.tensor(labels)[:600]
    return list(zip(x.split(100), y.split(100), strict=True))


@pytest.fixture(scope="module")
def trained(digits: list[tuple[Tensor, Tensor]]) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A small ReLU network on digits, and its checkpoints epoch by epoch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    states = [copy.deepcopy(model.state_dict())]
    for _ in range(30):
        for batch in digits:
            optimizer.zero_grad()
            functional.cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()
        states.append(copy.deepcopy(model.state_dict()))
    return model, states


class Quadratic(nn.Module):
    """0.5 t' A t of a parameter at its minimum."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.theta = nn.Parameter(torch.zeros(1, len(matrix), dtype=torch.float64))

    def loss(self) -> Tensor:
        return 0.5 * (self.theta @ self.matrix @ self.theta.T).sum()


# ------------------------------------------------------------------------------------------------ directions


def test_filters_take_the_norms_of_the_weights() -> None:
    """Check 1, with a filter of zeros."""
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        model[3].weight[1] = 0
    direction = random_direction(model, generator=torch.Generator().manual_seed(0))
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            assert torch.allclose(direction[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-6)
        else:
            assert not direction[name].any()


def test_every_norm_against_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, change = (torch.randn(3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    for norm in ("filter", "layer", "weight", "dfilter", "dlayer", "none"):
        found = normalize_direction({"w": change}, {"w": weight}, norm=norm)["w"]
        for f, (d, w) in enumerate(zip(change, weight, strict=True)):
            wanted = {
                "filter": d * w.norm() / (d.norm() + 1e-10),
                "layer": d * weight.norm() / change.norm(),
                "weight": d * w,
                "dfilter": d / (d.norm() + 1e-10),
                "dlayer": d / change.norm(),
                "none": d,
            }[norm]
            assert torch.allclose(found[f], wanted, rtol=1e-12), norm
    bias = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])
    for vectors, wanted in (("zero", [0, 0]), ("weight", [5, 6]), ("keep", [1, 2])):
        assert normalize_direction({"b": bias[0]}, {"b": bias[1]}, vectors=vectors)["b"].tolist() == wanted


def test_two_directions() -> None:
    """Check 5."""
    model = nn.Linear(200, 100)
    one, same = (random_direction(model, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    other = random_direction(model, generator=torch.Generator().manual_seed(4))
    assert torch.equal(one["weight"], same["weight"])
    assert abs(direction_cosine(one, other)) < 0.1
    assert direction_cosine(one, same) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------ curves


def test_the_model_stays_as_it_is(trained, digits) -> None:
    """Check 1."""
    model, _ = trained
    model.train()
    before = copy.deepcopy(model.state_dict())
    curve = loss_curve(model, cross_entropy, digits, random_direction(model), [-0.5, 0.0, 0.5])
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        parts = [cross_entropy(model, batch) for batch in digits]
    assert curve.loss[1] == pytest.approx(sum(float(p[0]) for p in parts) / 600, abs=0)
    assert curve.metric[1] == sum(float(p[2]) for p in parts) / 600
    assert curve.loss[0] > curve.loss[1] < curve.loss[2]


def test_quadratic() -> None:
    """Check 2."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = root @ root.T - 2 * torch.eye(6, dtype=torch.float64)
    model = Quadratic(matrix)
    change = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    bend = float((change @ matrix @ change.T).sum())
    curve = loss_curve(model, lambda m, _: (m.loss(), 1), [0], {"theta": change}, [-2.0, -1.0, 0.5])
    assert curve.loss == pytest.approx([0.5 * x * x * bend for x in (-2.0, -1.0, 0.5)])
    values = torch.linalg.eigvalsh(matrix)
    for copies in (1, 3):
        extremes = hessian_extremes(model, lambda m, _: (m.loss(), 1), [0] * copies)
        assert extremes.max == pytest.approx(float(values[-1]), rel=1e-2)
        assert extremes.min == pytest.approx(float(values[0]), abs=1e-2 * float(values.abs().max()))
    assert extremes.ratio == pytest.approx(abs(extremes.min / extremes.max))


def test_spectra_at_the_edge() -> None:
    for values in ([2.0] * 4, [0.0] * 4, [-1.0, -2.0, -3.0, -9.0], [1.0, 1.01, 1.02, 1.03], [3.0], [3.0, -1.0]):
        model = Quadratic(torch.diag(torch.tensor(values, dtype=torch.float64)))
        extremes = hessian_extremes(model, lambda m, _: (m.loss(), 1), [0])
        assert (extremes.max, extremes.min) == pytest.approx((max(values), min(values)), rel=2e-2)


def test_hessian_against_the_full_one(digits) -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 2).double()
    data = [(x[:20].double(), y[:20] % 2) for x, y in digits[:2]]
    inputs, labels = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])

    def loss(flat: Tensor) -> Tensor:
        return functional.cross_entropy(inputs @ flat.reshape(2, 64).T + model.bias.detach(), labels)

    full = torch.autograd.functional.hessian(loss, model.weight.detach().flatten())
    values = torch.linalg.eigvalsh(full)
    extremes = hessian_extremes(model, cross_entropy, data, tol=1e-6)
    assert extremes.max == pytest.approx(float(values[-1]), rel=1e-5)
    assert extremes.min == pytest.approx(float(values[0]), abs=1e-8)


def test_interpolation_ends_in_both_models(trained, digits) -> None:
    """Check 3, with running statistics."""
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)) for _ in range(2))
    for model in (a, b):
        model(digits[0][0])
    curve = interpolate_models(a, b, cross_entropy, digits, [0.0, 1.0])
    for model, loss in zip((a, b), curve.loss, strict=True):
        model.eval()
        with torch.no_grad():
            wanted = sum(float(cross_entropy(model, batch)[0]) for batch in digits) / 600
        assert loss == pytest.approx(wanted, rel=1e-5)


def test_rescaling_changes_nothing_under_filter_normalisation(trained, digits) -> None:
    """Check 6: first layer times 10, second divided by 10 (experiment A)."""
    model, _ = trained
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight *= 10
        scaled[0].bias *= 10
        scaled[3].weight /= 10
    curves = {}
    for norm in ("filter", "none"):
        for name, net in (("plain", model), ("scaled", scaled)):
            direction = random_direction(net, norm=norm, generator=torch.Generator().manual_seed(5))
            curves[norm, name] = loss_curve(net, cross_entropy, digits, direction, [-1.0, -0.5, 0.5, 1.0]).loss
    assert curves["filter", "plain"] == pytest.approx(curves["filter", "scaled"], rel=1e-4)
    assert curves["none", "plain"] != pytest.approx(curves["none", "scaled"], rel=0.5)
    wide, narrow = (
        sharpness(model, cross_entropy, digits, radius=r, n_directions=3, generator=torch.Generator().manual_seed(0))
        for r in (1.0, 0.25)
    )
    assert wide > narrow > 0


def test_surface_holds_its_curves(trained, digits) -> None:
    model, _ = trained
    generator = torch.Generator().manual_seed(0)
    first, second = (random_direction(model, generator=generator) for _ in range(2))
    xs, ys = [-1.0, 0.0], [0.0, 0.5, 1.0]
    surface = loss_surface(model, cross_entropy, digits[:1], first, second, xs, ys)
    assert [row[0] for row in surface.loss] == pytest.approx(
        loss_curve(model, cross_entropy, digits[:1], first, xs).loss
    )
    assert surface.loss[1] == pytest.approx(loss_curve(model, cross_entropy, digits[:1], second, ys).loss)
    assert np.shape(surface.metric) == np.shape(surface.to_json()["loss"]) == (2, 3)
    assert surface.cosine == direction_cosine(first, second)


def test_half_precision_moves_in_single() -> None:
    model = nn.Linear(4, 4).half()
    curve = loss_curve(
        model, lambda m, _: (m.weight.sum(), 1), [0], {"weight": torch.full((4, 4), 1e-5)}, torch.tensor([0.0, 1.0])
    )
    assert curve.loss[1] - curve.loss[0] == pytest.approx(16e-5, rel=1e-2)
    assert model.weight.dtype == torch.float16


# ------------------------------------------------------------------------------------------------ paths


def test_projections() -> None:
    generator = np.random.default_rng(0)
    change, x, y = generator.normal(size=(3, 9))
    found = project_displacement(*map(torch.tensor, (change, x, y)))
    gram = np.array([[x @ x, x @ y], [x @ y, y @ y]])
    assert found == pytest.approx(np.linalg.solve(gram, [change @ x, change @ y]))
    cos = project_displacement(*map(torch.tensor, (change, x, y)), method="cos")
    assert cos == pytest.approx([change @ x / np.linalg.norm(x), change @ y / np.linalg.norm(y)])
    q, _ = np.linalg.qr(np.stack([x, y], 1))
    pair = [torch.tensor(change), *map(torch.tensor, q.T.copy())]
    assert project_displacement(*pair) == pytest.approx(project_displacement(*pair, method="cos"))


def test_a_path_in_a_plane() -> None:
    """Check 4."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    points = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    flat = 3.0 + points @ axes
    states = [{"a": row[:8].reshape(4, 2), "b": row[8:], "steps": torch.tensor(1)} for row in flat]
    plane = trajectory_plane(states)
    assert sum(plane.explained_variance) == pytest.approx(1)
    directions = torch.stack([torch.cat([d["a"].flatten(), d["b"]]) for d in plane.directions])
    assert torch.allclose(torch.tensor(plane.coordinates) @ directions, flat - flat[-1])
    assert directions.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_real_path_is_low_dimensional(trained) -> None:
    """Experiment B, and the same components as scikit-learn's."""
    _, states = trained
    plane = trajectory_plane(states, projection="cos")
    assert sum(plane.explained_variance) > 0.6
    flat = np.stack([torch.cat([t.flatten() for t in state.values()]).double().numpy() for state in states])
    peer = PCA(2).fit(flat - flat[-1])
    assert plane.explained_variance == pytest.approx(peer.explained_variance_ratio_, rel=1e-6)


def test_bad_input(trained, digits) -> None:
    model, states = trained
    infinite = nn.Linear(2, 2)
    with torch.no_grad():
        infinite.weight[0, 0] = float("inf")
    for call in (
        lambda: random_direction(model, norm="layers"),
        lambda: random_direction(model, vectors="half"),
        lambda: random_direction(nn.ReLU()),
        lambda: random_direction(infinite),
        lambda: normalize_direction({"a": torch.ones(2)}, {"b": torch.ones(2)}),
        lambda: normalize_direction({"a": torch.ones(2)}, {"a": torch.ones(3)}),
        lambda: loss_curve(model, cross_entropy, [], random_direction(model), [0.0]),
        lambda: loss_curve(model, cross_entropy, iter(digits), random_direction(model), [0.0, 1.0]),
        lambda: loss_curve(model, cross_entropy, digits, {"missing": torch.ones(1)}, [0.0]),
        lambda: loss_curve(model, cross_entropy, digits, random_direction(model), []),
        lambda: interpolate_models(model, nn.Linear(2, 2), cross_entropy, digits, [0.0]),
        lambda: sharpness(model, cross_entropy, digits, radius=0),
        lambda: hessian_extremes(model, cross_entropy, []),
        lambda: hessian_extremes(nn.BatchNorm1d(3), cross_entropy, digits),
        lambda: project_displacement(torch.ones(2), torch.ones(3), torch.ones(2)),
        lambda: project_displacement(torch.ones(2), torch.zeros(2), torch.ones(2)),
        lambda: project_displacement(torch.ones(2), torch.ones(2), torch.ones(2), method="pca"),
        lambda: trajectory_plane(states[:2]),
        lambda: trajectory_plane([{"w": torch.tensor([float(t), 0.0])} for t in range(4)]),
        lambda: trajectory_plane([*states[:3], {"w": torch.ones(1)}]),
    ):
        with pytest.raises(RivalsError):
            call()
