"""Rashomon sets by dropout, by listing models and by pushing predictions (papers 111 and 40)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rivals.diagnose.exploration import (
    rashomon_ensembles,
    rashomon_of_models,
    sample_rashomon,
    select_least_multiple,
)
from rivals.diagnose.multiplicity import RashomonSet
from rivals.diagnose.trained import ObjectiveLoss
from rivals.diagnose.viable import viable_range_linear
from rivals.diagnose.viable_gradient import viable_range_gradient
from rivals.errors import RivalsError
from rivals.losses import cross_entropy_loss
from rivals.models.images import FeatureEncoder, ImageEncoder
from rivals.training import LoopConfig, SupervisedObjective, fit


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def predict(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).softmax(1)


@pytest.fixture(scope="module")
def trained() -> tuple[SupervisedObjective, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=draw)
    y = (x[:, 0] + 0.7 * torch.randn(120, generator=draw) > 0).long() + (x[:, 1] > 1).long()
    model = FeatureEncoder(4, 3, hidden=(16,), dropout=0.5)
    made = SupervisedObjective(model, [x[:80]], [y[:80]], cross_entropy_loss, batch_size=40)
    fit(made, LoopConfig(epochs=30, learning_rate=0.02, evaluations=0, precision="float32"))
    return made, x[80:]


@pytest.mark.parametrize("method", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_trained_by_fit_end_to_end(trained, method, frozen) -> None:
    made, examples = trained
    measured = ObjectiveLoss(made)
    before = copy.deepcopy(made.model.state_dict())
    found = sample_rashomon(
        made.model, measured, measured.data, predict, examples.split(16), epsilon=0.02,
        method=method, frozen_masks=frozen, rates=5, draws=6, max_rate=0.9,
    )  # fmt: skip
    assert found.outputs.shape[1:] == (40, 3)
    assert found.losses.shape == found.rates.shape == (30,)
    with torch.no_grad():
        assert found.outputs[0] == pytest.approx(predict(made.model.eval(), examples).numpy(), abs=1e-6)
    assert (found.losses[:6] == found.base_loss).all()  # rate 0 is the model itself
    assert len(found.outputs) == 1 + (found.losses < found.base_loss + 0.02).sum()
    assert 7 <= len(found.outputs) < 31
    assert found.losses[found.rates == 0.9].mean() > found.losses[found.rates < 0.3].mean()
    if frozen:  # losses and predictions are those of one model
        plain = sample_rashomon(
            made.model, loss, [(made.inputs[0], made.targets[0])], predict, [examples], epsilon=0.02,
            method=method, rates=5, draws=6, max_rate=0.9,
        )  # fmt: skip
        assert plain.losses == pytest.approx(found.losses, rel=1e-5)
        assert plain.outputs == pytest.approx(found.outputs, abs=1e-6)
    assert all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())
    assert not any(module._forward_hooks for module in made.model.modules())
    whole, less = found.rashomon_set(), found.within(0.01).rashomon_set()
    assert whole.ambiguity() >= whole.discrepancy()
    assert whole.ambiguity(0.05) >= less.ambiguity(0.05)
    assert (whole.capacity() >= 1 - 1e-9).all()
    again = sample_rashomon(
        made.model, measured, measured.data, predict, [examples], epsilon=0.02,
        method=method, frozen_masks=True, rates=5, draws=6, max_rate=0.9,
    )  # fmt: skip
    if frozen:  # the same generator by default; a member is one model, however its examples are cut into batches
        assert again.outputs == pytest.approx(found.outputs, abs=1e-6)


def test_rate_zero_is_the_model() -> None:
    """Check 5."""
    model, rows = nn.Linear(3, 2), torch.randn(5, 3)
    found = sample_rashomon(
        model, loss, [(rows, torch.zeros(5).long())], predict, [rows], epsilon=0.1, rates=[0.0], draws=4
    )
    members = found.rashomon_set()
    assert len(found.outputs) == 5
    assert found.ratio == 1
    assert members.ambiguity() == members.discrepancy() == 0
    assert np.ptp(members.viable_range(np.zeros(5, dtype=int)), axis=1).max() == 0
    assert members.capacity() == pytest.approx(np.ones(5))


@pytest.mark.parametrize(("method", "rate"), [("gaussian", 0.3), ("bernoulli", 0.2)])
@pytest.mark.parametrize("frozen", [True, False])
def test_noise_on_a_linear_model_has_its_mean_and_variance(method, rate, frozen) -> None:
    """Check 6: of outputs z, the mean z and the variance q^2 z^2, or z^2 q / (1 - q) for Bernoulli."""
    model = nn.Linear(3, 1, bias=False)
    rows = torch.tensor([[1.0, 2.0, -1.0]])
    found = sample_rashomon(
        model, lambda m, _: (torch.zeros(()), 1), [0], lambda m, x: m(x)[:, 0], [rows],
        epsilon=1.0, method=method, rates=[rate], draws=10_000, frozen_masks=frozen,
    )  # fmt: skip
    z, drawn = found.outputs[0, 0], found.outputs[1:, 0]
    variance = z**2 * (rate**2 if method == "gaussian" else rate / (1 - rate))
    assert drawn.mean() == pytest.approx(z, abs=3 * np.sqrt(variance / 10_000))
    assert drawn.var() == pytest.approx(variance, rel=0.1)


def test_frozen_masks_are_one_factor_a_unit() -> None:
    """Whole channels of a picture, whole features of a sequence, alike for all examples; else one an activation."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))
    pictures = torch.rand(3, 1, 6, 6)
    for frozen in (True, False):
        found = sample_rashomon(
            model, lambda m, _: (torch.zeros(()), 1), [0], lambda m, x: m(x), [pictures],
            epsilon=1.0, method="gaussian", rates=[0.5], draws=1, frozen_masks=frozen,
        )  # fmt: skip
        factor = (found.outputs[1] / found.outputs[0]).transpose(1, 0, 2, 3).reshape(4, -1)
        assert (np.ptp(factor, axis=1) < 1e-4).all() == frozen
        assert np.ptp(factor) > 0.1
    linear = nn.Linear(4, 5)
    found = sample_rashomon(
        linear, lambda m, _: (torch.zeros(()), 1), [0], lambda m, x: m(x), [torch.rand(3, 7, 4)],
        epsilon=1.0, rates=[0.5], draws=1,
    )  # fmt: skip
    factor = (found.outputs[1] / found.outputs[0]).reshape(-1, 5)
    assert (np.ptp(factor, axis=0) < 1e-4).all()


def test_rankers_and_picture_encoders() -> None:
    """Scores of lists: how often the top k depends on the choice among equals."""
    model = nn.Sequential(ImageEncoder(channels=1, dimension=8, widths=(8,)), nn.ReLU(), nn.Linear(8, 1))
    lists = torch.rand(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def scores(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch.flatten(0, 1)).view(batch.shape[:2])

    found = sample_rashomon(
        model, lambda m, x: (scores(m, x).var() * 0, 1), [lists], scores, [lists], epsilon=0.1, rates=[0.5], draws=20
    )
    ambiguity, discrepancy = found.rank_ambiguity(k=2)
    assert 0 < discrepancy <= ambiguity <= 1
    with pytest.raises(RivalsError, match=r"must lie in 0\.\.1"):
        found.rashomon_set()


def test_listed_models() -> None:
    models = [nn.Linear(2, 2) for _ in range(4)]
    with torch.no_grad():
        models[3].weight.fill_(50.0)
        models[3].weight[0] = -50
    x, y = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).abs(), torch.zeros(20).long()
    found = rashomon_of_models(models, loss, [(x, y)], predict, [x], epsilon=10.0)
    assert len(found.outputs) == 3
    assert found.losses[2] > 10 + found.base_loss
    assert found.ratio == pytest.approx(2 / 3)
    assert (found.rates == 0).all()
    assert "2 of 3 models within 10" in str(found)


def test_ensembles_differ_less_than_members() -> None:
    p = np.random.default_rng(0).random((30, 50))
    members = RashomonSet(p, baseline=p.mean(0))
    widths = [
        np.ptp(RashomonSet(rashomon_ensembles(p, size, 20)).viable_range(), axis=1).mean() for size in (1, 5, 25, 30)
    ]
    assert np.ptp(members.viable_range(), axis=1).mean() >= widths[0] > widths[1] > widths[2] > widths[3]
    assert widths[3] == pytest.approx(0, abs=1e-12)
    with pytest.raises(RivalsError, match=r"size must be in 1\.\.30"):
        rashomon_ensembles(p, 31)


def test_the_least_multiple_of_good_models() -> None:
    assert select_least_multiple([3, 1, 2], [0.9, 0.8, 0.9]) == 2
    assert select_least_multiple([3, 1, 2], [0.9, 0.8, 0.9], tolerance=0.2) == 1
    for bad in (([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0])):
        with pytest.raises(RivalsError, match="one number a model"):
            select_least_multiple(*bad)


def test_errors_of_explorations() -> None:
    model, rows = nn.Linear(2, 2), torch.ones(1, 2)
    given = (loss, [(rows, torch.zeros(1).long())], predict, [rows])
    with pytest.raises(RivalsError, match="epsilon is 0"):
        sample_rashomon(model, *given, epsilon=0)
    with pytest.raises(RivalsError, match="rates must be numbers in"):
        sample_rashomon(model, *given, epsilon=1, rates=[1.0])
    with pytest.raises(RivalsError, match="method is 'awp'"):
        sample_rashomon(model, *given, epsilon=1, method="awp")
    with pytest.raises(RivalsError, match="no examples"):
        sample_rashomon(model, loss, given[1], predict, [], epsilon=1, rates=1, draws=1)
    with pytest.raises(RivalsError, match="no data"):
        sample_rashomon(model, loss, [], predict, [rows], epsilon=1, rates=1, draws=1)
    with pytest.raises(RivalsError, match="no linear or convolutional layer"):
        sample_rashomon(nn.Bilinear(2, 2, 2), lambda m, _: (torch.zeros(()), 1), [0],
                        lambda m, x: m(x, x), [rows], epsilon=1, rates=1, draws=1)  # fmt: skip
    found = sample_rashomon(model, *given, epsilon=1, rates=1, draws=1)
    with pytest.raises(RivalsError, match="within 1 only"):
        found.within(2)
    with pytest.raises(RivalsError, match="no model"):
        rashomon_of_models([], *given, epsilon=1)


# ------------------------------------------------------------------------------------------------ pushed predictions


def logistic() -> tuple[nn.Linear, Tensor, Tensor, float]:
    """A logistic regression at its minimum, l2 1e-2."""
    draw = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(60, 2, generator=draw), torch.ones(60, 1)], 1).double()
    y = (x[:, 0] + torch.randn(60, generator=draw) > 0).double()
    model = nn.Linear(3, 1, bias=False).double()
    exact = viable_range_linear(x.numpy(), y.numpy(), l2=1e-2, epsilon=0.0, indices=[0])
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(exact.lower_weights))
    return model, x, y, 1e-2


def test_pushed_predictions_stay_within_the_exact_range() -> None:
    model, x, y, l2 = logistic()

    def penalised(model: nn.Module, _: int) -> tuple[Tensor, int]:
        value = functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
        return value + l2 / 2 * model.weight.square().sum(), 1

    base = float(penalised(model, 0)[0].detach())
    exact = viable_range_linear(x.numpy(), y.numpy(), l2=l2, epsilon=0.02 * base, indices=range(4))
    found = viable_range_gradient(
        model, penalised, [0], lambda m, rows: m(rows)[:, 0], [x[:2], x[2:4]],
        epsilon=0.02 * base, optimizer="sgd", learning_rate=0.002, max_steps=60,
    )  # fmt: skip
    assert (found.lower >= exact.lower - 1e-6).all()
    assert (found.upper <= exact.upper + 1e-6).all()
    assert (found.upper - found.lower > 0.6 * (exact.upper - exact.lower)).all()
    assert found.reached.shape == (3, 4)
    assert (found.lower < found.reached[0]).all()
    assert (found.steps < 60).all()  # all met the edge
    assert RashomonSet(found.reached, baseline=0).viable_range() == pytest.approx(
        np.stack([found.lower, found.upper], 1)
    )


def test_classes_are_pushed_each(trained) -> None:
    made, examples = trained
    measured = ObjectiveLoss(made)
    before = copy.deepcopy(made.model.state_dict())
    found = viable_range_gradient(
        made.model,
        measured,
        measured.data,
        lambda m, x: m(x),
        [examples[:3]],
        epsilon=0.02,
        optimizer="sgd",
        max_steps=5,
    )
    assert found.reached.shape == (4, 3, 3)
    for label in range(3):
        assert (found.reached[label + 1, :, label] >= found.reached[0, :, label]).all()
    assert (found.upper >= found.lower).all()
    assert (found.upper - found.lower).max() > 0
    assert (RashomonSet(found.reached, baseline=0).capacity() >= 1).all()
    assert all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())


def test_errors_of_pushes(trained) -> None:
    made, examples = trained
    measured = ObjectiveLoss(made)
    for options, message in (
        ({"epsilon": 0}, "must be above 0"),
        ({"epsilon": 1, "max_steps": 0}, "must be above 0"),
        ({"epsilon": 1, "optimizer": "rmsprop"}, "can be 'adam' or 'sgd'"),
    ):
        with pytest.raises(RivalsError, match=message):
            viable_range_gradient(made.model, measured, measured.data, lambda m, x: m(x), [examples], **options)
    with pytest.raises(RivalsError, match="no examples to push"):
        viable_range_gradient(made.model, measured, measured.data, lambda m, x: m(x), [], epsilon=1)
    with pytest.raises(RivalsError, match="shape"):
        viable_range_gradient(made.model, measured, measured.data, lambda m, x: m(x)[:, :1], [examples], epsilon=1)
