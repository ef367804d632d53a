"""Self-critical training: values by hand, baselines, laws of lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.losses import self_critical_loss


def of(log_prob, reward, **options):
    return self_critical_loss(torch.tensor(log_prob, dtype=torch.float64), torch.tensor(reward), **options)


def test_the_value_and_gradient_of_one_response_against_a_given_baseline():
    log_prob = torch.tensor([[-2.0]], dtype=torch.float64, requires_grad=True)
    loss = self_critical_loss(
        log_prob, torch.tensor([[0.6]]), baseline=torch.tensor([0.4], dtype=torch.float64), reduction="sum"
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.4)
    assert log_prob.grad.item() == pytest.approx(-0.2)
    same = self_critical_loss(torch.tensor([[-2.0]]), torch.tensor([[0.6]]), baseline=torch.tensor([0.6]))
    assert same.item() == 0


def test_baselines_by_hand():
    log_prob, reward = [[-1.0, -2.0, -4.0]], [[1.0, 0.0, 0.5]]
    assert of(log_prob, reward, baseline=None).item() == pytest.approx(3.0 / 3)
    assert of(log_prob, reward, baseline="mean").item() == pytest.approx((0.5 * 1 - 0.5 * 2) / 3)
    assert of(log_prob, reward).item() == pytest.approx((0.75 * 1 - 0.75 * 2) / 3)
    assert of(log_prob, reward).item() == pytest.approx(1.5 * of(log_prob, reward, baseline="mean").item())


rewards = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


@given(rewards, st.floats(-50, 50))
def test_a_constant_added_to_all_rewards_changes_nothing(reward, constant):
    log_prob = -torch.arange(1.0, len(reward) + 1, dtype=torch.float64).unsqueeze(0)
    values = torch.tensor([reward], dtype=torch.float64)
    for baseline in ("leave_one_out", "mean"):
        plain = self_critical_loss(log_prob, values, baseline=baseline)
        moved = self_critical_loss(log_prob, values + constant, baseline=baseline)
        assert moved.item() == pytest.approx(plain.item(), abs=1e-9)


@given(rewards, st.integers(1, 3))
def test_a_masked_response_is_as_if_it_were_not_there(reward, padding):
    values = torch.tensor([reward], dtype=torch.float64)
    log_prob = (-values.abs() - 1).requires_grad_()
    junk = torch.full((1, padding), float("nan"), dtype=torch.float64)
    mask = torch.tensor([[True] * len(reward) + [False] * padding])
    for baseline in ("leave_one_out", "mean", None, torch.tensor([0.3], dtype=torch.float64)):
        plain = self_critical_loss(log_prob, values, baseline=baseline)
        padded = self_critical_loss(
            torch.cat([log_prob, junk], 1), torch.cat([values, junk], 1), mask, baseline=baseline
        )
        assert padded.item() == pytest.approx(plain.item())
        (gradient,) = torch.autograd.grad(padded, log_prob)
        assert gradient.isfinite().all()


def test_prompts_without_a_response_count_for_nothing():
    log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    reward, mask = torch.tensor([[1.0, 0.0], [5.0, 5.0]]), torch.tensor([[True, True], [False, False]])
    loss = self_critical_loss(log_prob, reward, mask)
    assert loss.item() == pytest.approx(self_critical_loss(log_prob[:1], reward[:1]).item())
    loss.backward()
    assert (log_prob.grad[1] == 0).all()
    assert self_critical_loss(log_prob, reward, mask, reduction="none").tolist()[1] == 0


def test_its_gradient():
    torch.manual_seed(0)
    log_prob = (-torch.rand(3, 4, dtype=torch.float64)).requires_grad_()
    reward = torch.rand(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: self_critical_loss(x, reward), (log_prob,))


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        ([[float("nan"), 1.0]], {}, "targets"),
        ([[1.0]], {}, "targets"),
        ([[1.0, 0.0]], {"baseline": "greedy"}, "baseline"),
        ([[1.0, 0.0]], {"baseline": torch.zeros(2)}, "baseline"),
        ([[1.0, 0.0]], {"baseline": torch.tensor([torch.inf])}, "baseline"),
        ([[1.0, 0.0]], {"mask": torch.tensor([[True, False]])}, "at least 2 responses"),
        ([[1.0, 0.0]], {"reduction": "average"}, "reduction"),
    ],
)
def test_bad_arguments(reward, options, message):
    with pytest.raises(RivalsError, match=message):
        self_critical_loss(torch.tensor([[-1.0, -2.0]]), torch.tensor(reward), **options)
    with pytest.raises(RivalsError, match="no place"):
        self_critical_loss(torch.zeros(1, 0), torch.zeros(1, 0))
