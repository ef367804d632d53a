"""Gradient combiners: directions, lengths, degenerate cases; projection; M-ConFIG; writing into `.grad`."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import (
    MomentumConFIG,
    align_gradients,
    combination_coefficients,
    combine_gradients,
    conflict_report,
    multi_loss_backward,
    project_out,
)

G = torch.randn(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
METHODS = ("config", "sum", "mean", "pcgrad", "imtl_g", "mgda")


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def cosines(update: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    return gradients @ update / (gradients.norm(dim=1) * update.norm())


# ----------------------------------------------------------------------------------------------------------- ConFIG


def test_by_hand() -> None:
    found = combine_gradients(rows([1, 0], [-1, 2]))
    assert found.tolist() == pytest.approx([0.8944272, 1.4472136], abs=1e-7)
    assert (rows([1, 0], [-1, 2]) @ found).tolist() == pytest.approx([0.8944272, 2.0])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_definition(size: int) -> None:
    """d = pinv(U) w, in the length sum_i g_i . d / |d|; cosines are proportional to the weights."""
    weights = rows([1, 3, 0.5, 2])[0, :size]
    gradients = G[:size]
    units = gradients / gradients.norm(dim=1, keepdim=True)
    d = torch.as_tensor(np.linalg.pinv(units.numpy()) @ weights.numpy())
    d = d / d.norm()
    found = combine_gradients(gradients, weights=weights)
    torch.testing.assert_close(found, (gradients @ d).sum() * d)
    angles = cosines(found, gradients)
    torch.testing.assert_close(angles / angles[0], weights / weights[0])
    assert (cosines(combine_gradients(gradients), gradients) > 0).all()


def test_two_gradients_in_closed_form() -> None:
    first, second = G[0], G[1] - 2 * G[0]  # in conflict
    weights = rows([1, 3])[0]
    u, v = first / first.norm(), second / second.norm()
    o1 = second - (first @ second) / first.square().sum() * first
    o2 = first - (first @ second) / second.square().sum() * second
    o1, o2 = o1 / o1.norm(), o2 / o2.norm()
    d = (o2 @ u) / ((weights[0] / weights[1]) * (o1 @ v)) * o1 + o2
    d = d / d.norm()
    wanted = (first @ d + second @ d) * d
    torch.testing.assert_close(
        combine_gradients(torch.stack([first, second]), weights=weights), wanted, rtol=1e-10, atol=1e-10
    )


def test_special_cases() -> None:
    torch.testing.assert_close(combine_gradients(G[:1]), G[0])
    torch.testing.assert_close(combine_gradients(rows([2, 0], [0, 2])), rows([2, 2])[0])
    torch.testing.assert_close(combine_gradients(G[:1].repeat(3, 1)), 3 * G[0])
    for scale in (1.0, 1e-5, 1e6):
        opposite = torch.stack([G[0], -scale * G[0]])
        assert (combine_gradients(opposite) == 0).all()
    assert (combine_gradients(torch.zeros(3, 5)) == 0).all()
    with_zero = torch.cat([G[:3], torch.zeros(1, 30).double()])
    torch.testing.assert_close(combine_gradients(with_zero), combine_gradients(G[:3]))


def test_invariances() -> None:
    found = combine_gradients(G)
    scaled = combine_gradients(G * rows([1, 5, 1, 0.01]).T)
    torch.testing.assert_close(scaled / scaled.norm(), found / found.norm())
    rotation = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(1)).double()).Q
    torch.testing.assert_close(combine_gradients(G @ rotation), found @ rotation)
    torch.testing.assert_close(combine_gradients(G[[2, 0, 3, 1]]), found)


@pytest.mark.parametrize(
    ("length", "common"),
    [
        ("minimum", lambda n: n.min()),
        ("maximum", lambda n: n.max()),
        ("arithmetic", lambda n: n.mean()),
        ("harmonic", lambda n: 4 / (1 / n).sum()),
        ("geometric", lambda n: n.prod() ** 0.25),
        (2, lambda n: n[2]),
    ],
)
def test_lengths(length: str | int, common: object) -> None:
    gradients = G * rows([1, 4, 0.3, 2]).T
    norms = gradients.norm(dim=1)
    units = gradients / norms[:, None]
    direction = combine_gradients(gradients)
    direction = direction / direction.norm()
    found = combine_gradients(gradients, length=length)  # type: ignore[arg-type]
    torch.testing.assert_close(found, common(norms) * (units @ direction).sum() * direction)  # type: ignore[operator]


def test_float32_is_added_up_in_float64() -> None:
    near = torch.stack([G[0], -G[0] + 1e-3 * G[1]]).float()
    torch.testing.assert_close(combine_gradients(near), combine_gradients(near.double()).float())
    assert (combine_gradients(near) != 0).any()
    assert combine_gradients(near).dtype == torch.float32
    assert combine_gradients(G.half()).dtype == torch.float16


def test_more_losses_than_parameters() -> None:
    update = combine_gradients(rows([1, 0.2], [0.3, 1], [1, 1]))
    assert torch.isfinite(update).all()
    assert (rows([1, 0.2], [0.3, 1], [1, 1]) @ update > 0).all()


# ---------------------------------------------------------------------------------------------------- other combiners


@pytest.mark.parametrize("method", METHODS)
def test_coefficients_need_products_only(method: str) -> None:
    coefficients = combination_coefficients(G @ G.T, method)  # type: ignore[arg-type]
    torch.testing.assert_close(coefficients @ G, combine_gradients(G, method))  # type: ignore[arg-type]


def test_sum_and_mean() -> None:
    weights = rows([1, 2, 3, 4])[0]
    torch.testing.assert_close(combine_gradients(G, "sum"), G.sum(0))
    torch.testing.assert_close(combine_gradients(G, "mean"), G.mean(0))
    torch.testing.assert_close(combine_gradients(G, "mean", weights=weights), (weights @ G) / 10)


def test_pcgrad_one_at_a_time() -> None:
    gradients = G - 0.4 * G.sum(0)
    changed = [g.clone() for g in gradients]
    for i in range(4):
        for j in range(4):
            product = changed[i] @ gradients[j]
            if i != j and product < 0:
                changed[i] -= product / gradients[j].square().sum() * gradients[j]
    torch.testing.assert_close(combine_gradients(gradients, "pcgrad"), torch.stack(changed).sum(0))


def test_imtl_g_has_equal_projections() -> None:
    update = combine_gradients(G, "imtl_g")
    units = G / G.norm(dim=1, keepdim=True)
    torch.testing.assert_close(units @ update, (units @ update).mean().expand(4))
    assert combination_coefficients(G @ G.T, "imtl_g").sum().item() == pytest.approx(1)
    torch.testing.assert_close(combine_gradients(G[:1], "imtl_g"), G[0])


def test_mgda_is_the_least_norm_in_the_hull() -> None:
    gradients = G + 0.3
    update = combine_gradients(gradients, "mgda")
    coefficients = combination_coefficients(gradients @ gradients.T, "mgda")
    assert (coefficients >= 0).all()
    assert coefficients.sum().item() == pytest.approx(1)
    assert (gradients @ update >= update.square().sum() - 1e-9).all()  # the condition of the optimum
    two = combine_gradients(rows([1, 0], [0, 3]), "mgda")
    assert two.tolist() == pytest.approx([0.9, 0.3])
    assert combine_gradients(rows([1, 0], [3, 0]), "mgda").tolist() == pytest.approx([1, 0])
    assert (combine_gradients(rows([1, 0], [0, 0]), "mgda") == 0).all()


def test_conflicts_are_reported() -> None:
    report = conflict_report(rows([1, 0], [-1, 1], [0, 2]))
    assert report.cosines[0].tolist() == pytest.approx([1, -math.sqrt(0.5), 0])
    assert report.conflicting == pytest.approx(1 / 3)
    assert (report.with_update > 0).all()
    with_zero = conflict_report(rows([1, 0], [0, 0]), rows([1, 1])[0])
    assert with_zero.conflicting == 0
    assert with_zero.with_update[1].isnan()
    assert with_zero.with_update[0].item() == pytest.approx(math.sqrt(0.5))


# ------------------------------------------------------------------------------------------------- projection, alignment


def test_project_out() -> None:
    x, reference = G[:3] * torch.tensor([[1.0], [-1.0], [1.0]]), G[3]
    away = project_out(x, reference)
    assert (away @ reference).abs().max() < 1e-13
    torch.testing.assert_close(project_out(x, 7 * reference), away)
    conflicts = project_out(x, reference, only_conflicts=True)
    opposed = x @ reference < 0
    torch.testing.assert_close(conflicts[opposed], away[opposed])
    torch.testing.assert_close(conflicts[~opposed], x[~opposed])
    assert opposed.any()
    assert not opposed.all()
    torch.testing.assert_close(project_out(x, torch.zeros(30).double()), x)
    tiny = rows([1e-4, 0])[0]
    torch.testing.assert_close(project_out(rows([1, 1]), tiny, floor=1e-6), rows([1 - 0.01, 1]))
    half = torch.full((2, 4000), 30.0, dtype=torch.float16)  # the squared length is beyond float16
    assert torch.isfinite(project_out(half[0], half[1])).all()
    with pytest.raises(RivalsError, match="last dimension"):
        project_out(x, reference[:3])
    with pytest.raises(RivalsError, match="floor"):
        project_out(x, reference, floor=-1.0)


def test_alignment_by_hand() -> None:
    found = align_gradients({"w": rows([1, 0])}, {"w": rows([-1, 1])})
    assert found["w"].tolist() == [[1, 1]]
    agree = align_gradients({"w": rows([1, 0])}, {"w": rows([1, 1])})
    assert agree["w"].tolist() == [[2, 1]]
    assert align_gradients({"w": rows([0, 0])}, {"w": rows([-1, 1])})["w"].tolist() == [[-1, 1]]
    assert align_gradients({}, {"w": rows([1, 2])})["w"].tolist() == [[1, 2]]


def test_the_scope_of_alignment() -> None:
    main = {"shared": G[0], "main": G[1, :4]}
    auxiliary = {"shared": G[2] - 2 * G[0], "auxiliary": G[3, :5]}
    shared = align_gradients(main, auxiliary)
    torch.testing.assert_close(shared["main"], main["main"])
    torch.testing.assert_close(shared["auxiliary"], auxiliary["auxiliary"])
    torch.testing.assert_close(shared["shared"], G[0] + project_out(auxiliary["shared"], G[0], only_conflicts=True))
    everything = align_gradients(main, auxiliary, scope="all")
    share = (main["shared"] @ auxiliary["shared"]) / (main["shared"].square().sum() + main["main"].square().sum())
    assert share < 0
    torch.testing.assert_close(everything["main"], (1 - share) * main["main"])
    torch.testing.assert_close(everything["auxiliary"], auxiliary["auxiliary"])
    for merged in (shared, everything):
        product = sum((merged[name] * gradient).sum() for name, gradient in main.items())
        assert product >= sum(g.square().sum() for g in main.values()) - 1e-12
    with pytest.raises(RivalsError, match="shared"):
        align_gradients(main, {"shared": G[2, :3]})
    with pytest.raises(RivalsError, match="finite"):
        align_gradients(main, {"shared": G[2] * math.nan})
    with pytest.raises(RivalsError, match="scope"):
        align_gradients(main, auxiliary, scope="heads")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- momentum


def test_momentum_by_the_definition() -> None:
    """The steps of the card, written out, for a loss at a time and two at once."""
    momentum = MomentumConFIG(3, 30, beta1=0.8, beta2=0.95, eps=1e-6, dtype=torch.float64)
    m, counts = torch.zeros(3, 30).double(), [0, 0, 0]
    fake, s, t = torch.zeros(30).double(), torch.zeros(30).double(), 0
    generator = torch.Generator().manual_seed(2)
    for index in ([0], [2], [1, 0], [2], [1], [0], [0, 1, 2]):
        gradients = torch.randn(len(index), 30, generator=generator, dtype=torch.float64)
        for i, gradient in zip(index, gradients, strict=True):
            counts[i] += 1
            m[i] = 0.8 * m[i] + 0.2 * gradient
        found = momentum.step(index, gradients) if len(index) > 1 else momentum.step(index[0], gradients[0])
        if min(counts) == 0:
            assert (found == 0).all()
            continue
        t += 1
        g = combine_gradients(torch.stack([m[i] / (1 - 0.8 ** counts[i]) for i in range(3)]))
        moment = g * (1 - 0.8**t)
        pseudo = (moment - 0.8 * fake) / 0.2
        fake = moment
        s = 0.95 * s + 0.05 * pseudo**2
        torch.testing.assert_close(found, g / ((s / (1 - 0.95**t)).sqrt() + 1e-6))


def test_momentum_is_resumed_from_its_state() -> None:
    first = MomentumConFIG(2, 30, dtype=torch.float64)
    for step in range(5):
        first.step(step % 2, G[step % 4])
    second = MomentumConFIG(2, 30, dtype=torch.float64)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.step(1, G[3]), second.step(1, G[3]))


@pytest.mark.parametrize(
    ("index", "gradient"),
    [(2, G[0]), (-1, G[0]), ([0, 0], G[:2]), (0, G[0, :5]), ([0, 1], G[0]), (0, G[0] * math.nan)],
)
def test_bad_momentum_steps(index: int | list[int], gradient: torch.Tensor) -> None:
    with pytest.raises(RivalsError):
        MomentumConFIG(2, 30, dtype=torch.float64).step(index, gradient)
    with pytest.raises(RivalsError, match="beta1"):
        MomentumConFIG(2, 30, beta1=1.0)
    with pytest.raises(RivalsError, match="num_losses"):
        MomentumConFIG(0, 30)


# ---------------------------------------------------------------------------------------------------- writing gradients


def test_backward_of_several_losses() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    unused = torch.nn.Parameter(torch.ones(2).double())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(3)).double()
    parameters = [*model.parameters(), unused]

    def losses() -> list[torch.Tensor]:
        out = model(x)
        return [out[:, 0].square().mean(), (out[:, 1] - out[:, 0]).square().mean()]

    wanted = []
    for place in range(2):
        model.zero_grad()
        losses()[place].backward()
        wanted.append(torch.cat([p.grad.flatten() for p in model.parameters()] + [torch.zeros(2).double()]))  # type: ignore[union-attr]
    combiner = functools.partial(combine_gradients, method="pcgrad")
    gradients = multi_loss_backward(losses(), parameters, combiner)
    torch.testing.assert_close(gradients, torch.stack(wanted))
    written = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    torch.testing.assert_close(written, combine_gradients(torch.stack(wanted), "pcgrad"))
    with pytest.raises(RivalsError, match="loss 0"):
        multi_loss_backward([model(x)], parameters)
    with pytest.raises(RivalsError, match="at least one"):
        multi_loss_backward([], parameters)


def test_both_quadratics_fall_where_the_sum_raises_one() -> None:
    """The card's toy: scales 100 to 1, minima apart."""
    centers, scales = rows([0, 0], [1, 0.5]), [100.0, 1.0]
    x = torch.nn.Parameter(rows([0.02, 1.0])[0])

    def values() -> list[torch.Tensor]:
        return [s * ((x - c) ** 2 * rows([1, 0.01])[0]).sum() for s, c in zip(scales, centers, strict=True)]

    before = [v.item() for v in values()]
    gradients = multi_loss_backward(values(), [x])
    assert conflict_report(gradients).conflicting == 1
    assert conflict_report(gradients, gradients.sum(0)).with_update.min() < 0
    with torch.no_grad():
        x -= 1e-4 * x.grad  # type: ignore[operator]
    assert all(after.item() < b for after, b in zip(values(), before, strict=True))


@pytest.mark.parametrize(
    ("gradients", "options", "name"),
    [
        (G[0], {}, "gradients"),
        (torch.zeros(0, 3), {}, "gradients"),
        (G * math.nan, {}, "gradients"),
        (G, {"weights": torch.ones(3)}, "weights"),
        (G, {"weights": torch.tensor([1.0, 1.0, 0.0, 1.0])}, "weights"),
        (G, {"weights": torch.ones(4), "method": "pcgrad"}, "weights"),
        (G, {"method": "cagrad"}, "method"),
        (G, {"length": "median"}, "length"),
        (G, {"length": 4}, "length"),
    ],
)
def test_bad_input(gradients: torch.Tensor, options: dict[str, object], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        combine_gradients(gradients, **options)  # type: ignore[arg-type]
