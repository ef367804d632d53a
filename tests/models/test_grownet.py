"""The network of GrowNet: paper 69's checks on widths, sums and what is handed on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rivals.errors import RivalsError
from rivals.models.grownet import GrowNetEnsemble, GrowNetLearner


def ensemble(stages: int = 3) -> GrowNetEnsemble:
    torch.manual_seed(0)
    made = GrowNetEnsemble(4, hidden=5, offset=0.3, boost_rate=0.7)
    for _ in range(stages):
        made.add_learner()
    return made.double()


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_each_stage_sees_the_features_and_the_stage_before() -> None:
    """Check 8, and what is handed on comes before the ReLU."""
    made = ensemble().eval()
    assert [learner.inner.in_features for learner in made.learners] == [4, 9, 9]
    total, handed_on = 0.0, X[:, :0]
    for learner in made.learners:
        x = learner.input_norm(torch.cat([X, handed_on], -1))
        handed_on = learner.hidden(learner.norm(F.leaky_relu(learner.inner(x), 0.1)))
        total = total + learner.output(F.relu(handed_on))[:, 0]
    prediction, last = made(X)
    torch.testing.assert_close(prediction, 0.3 + 0.7 * total)
    torch.testing.assert_close(last, handed_on)
    assert (last < 0).any()


def test_one_stage() -> None:
    """Check 4: offset plus the learner."""
    made = ensemble(1).eval()
    with torch.no_grad():
        made.boost_rate.fill_(1.0)
    torch.testing.assert_close(made(X)[0], 0.3 + made.learners[0](X)[1])


def test_initial_weights_and_gradients() -> None:
    made = ensemble()
    for layer in (made.learners[0].inner, made.learners[1].hidden, made.learners[2].output):
        torch.testing.assert_close(layer.bias.detach(), torch.full_like(layer.bias, 0.01), rtol=1e-6, atol=0)
    made(X)[0].sum().backward()
    assert made.boost_rate.grad is not None
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_a_saved_ensemble_predicts_the_same() -> None:
    """Check 7."""
    made, other = ensemble().eval(), ensemble()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.eval()(X)[0], made(X)[0])


def test_bad_sizes() -> None:
    for bad in ((0, 3), (3, 0)):
        with pytest.raises(RivalsError, match="hidden"):
            GrowNetLearner(*bad)
        with pytest.raises(RivalsError, match="hidden"):
            GrowNetEnsemble(*bad)
    with pytest.raises(RivalsError, match="add_learner"):
        ensemble(0)(X)
