"""PSL and the cosine contrastive loss: the cards' hand values, limits, and the SimpleX model."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import cosine_contrastive_loss, info_nce_loss, pairwise_softmax_loss
from rivals.models.simplex import HistoryMixer, SimpleX

ONE = torch.tensor([[1.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("activation", "value"),
    [("exp", 0.5), ("relu", 0.4054651081), ("atan", 0.3809316823), ("tanh", 0.3798854930)],
)
def test_one_pair_by_hand(activation: str, value: float) -> None:
    scores = torch.tensor([[0.0, 1.0]], dtype=torch.float64)  # d = 0.5 at tau 2
    for form in ("softmax", "bpr"):
        found = pairwise_softmax_loss(scores, ONE, activation=activation, tau_star=1.0, form=form)
        assert found.item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "atan", "relu", "exp"])
@pytest.mark.parametrize("tau_star", [0.025, 1.0])
def test_equal_scores_cost_the_log_of_the_negatives(activation: str, tau_star: float) -> None:
    relevance = torch.tensor([[1.0, 0, 0, 0, 0]])
    found = pairwise_softmax_loss(torch.full((1, 5), 0.3), relevance, activation=activation, tau_star=tau_star)
    assert found.item() == pytest.approx(math.log(4), rel=1e-6)


def test_exp_is_the_softmax_loss_without_its_positive() -> None:
    scores = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    relevance = torch.zeros(3, 6, dtype=torch.float64)
    relevance[:, 0] = 1
    ours = pairwise_softmax_loss(scores, relevance, activation="exp", tau_star=0.1)
    plain = (torch.logsumexp(scores[:, 1:] / 0.2, 1) - scores[:, 0] / 0.2).mean()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, scores)[0], torch.autograd.grad(plain, scores)[0])


def test_with_its_positive_in_the_sum_exp_is_info_nce() -> None:
    scores = torch.rand(3, 6, dtype=torch.float64)
    relevance = torch.zeros(3, 6, dtype=torch.float64)
    relevance[:, 2] = 1
    ours = pairwise_softmax_loss(scores, relevance, activation="exp", tau_star=0.1, include_positive=True)
    torch.testing.assert_close(ours, info_nce_loss(scores, relevance, temperature=0.2))


def test_the_activations_bound_the_softmax_loss() -> None:
    scores = torch.rand(50, 8, dtype=torch.float64) * 2 - 1
    relevance = torch.zeros(50, 8, dtype=torch.float64)
    relevance[:, 0] = 1
    top = pairwise_softmax_loss(scores, relevance, activation="exp", reduction="none")
    for activation in ("tanh", "atan", "relu"):
        assert (pairwise_softmax_loss(scores, relevance, activation=activation, reduction="none") <= top + 1e-12).all()


def test_several_positives_give_several_terms() -> None:
    scores = torch.rand(1, 5, dtype=torch.float64)
    both = pairwise_softmax_loss(scores, torch.tensor([[1.0, 1, 0, 0, 0]]))
    alone = [pairwise_softmax_loss(scores[:, [p, 2, 3, 4]], torch.tensor([[1.0, 0, 0, 0]])) for p in (0, 1)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_relu_has_a_gradient_where_the_activation_is_nothing(tau: float) -> None:
    scores = torch.tensor([[1.0, -1.0]], requires_grad=True)
    pairwise_softmax_loss(scores, ONE.float(), activation="relu", tau=tau).backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad == 0).all()


def test_the_bpr_form_couples_the_batch() -> None:
    scores = torch.rand(2, 3, dtype=torch.float64)
    relevance = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    distances = [(scores[0, j] - scores[0, 0]) / 2 for j in (1, 2)] + [
        (scores[1, j] - scores[1, 1]) / 2 for j in (0, 2)
    ]
    plain = torch.stack([(torch.tanh(d) + 1) ** 4 for d in distances]).mean().log()
    torch.testing.assert_close(pairwise_softmax_loss(scores, relevance, form="bpr", tau_star=0.25), plain)
    with pytest.raises(RivalsError, match="couples the whole batch"):
        pairwise_softmax_loss(scores, relevance, form="bpr", reduction="none")
    assert pairwise_softmax_loss(scores, torch.zeros(2, 3), form="bpr") == 0


def test_scores_that_are_no_cosines_are_refused() -> None:
    for loss in (pairwise_softmax_loss, cosine_contrastive_loss):
        with pytest.raises(RivalsError, match="cosines"):
            loss(torch.tensor([[3.0, 0.0]]), ONE)
        loss(torch.tensor([[3.0, 0.0]]), ONE, check_range=False)


@pytest.mark.parametrize(("weight", "value"), [(2.0, 0.5), (None, 0.5), (4.0, 1.0), (0.0, 0.0)])
def test_cosine_contrastive_by_hand(weight: float | None, value: float) -> None:
    scores = torch.tensor([[1.0, 0.2, 0.9]])
    relevance = torch.tensor([[1.0, 0.0, 0.0]])
    assert cosine_contrastive_loss(scores, relevance, negative_weight=weight).item() == pytest.approx(value)


def test_the_gradient_of_an_easy_negative_is_nothing() -> None:
    scores = torch.tensor([[0.3, 0.1]], requires_grad=True)
    loss = cosine_contrastive_loss(scores, ONE.float())
    loss.backward()
    assert loss.item() == pytest.approx(0.7)
    assert scores.grad.tolist() == [[-1.0, 0.0]]


def test_negatives_twice_change_only_the_sum_form() -> None:
    scores = torch.rand(2, 4)
    relevance = torch.tensor([[1.0, 0, 0, 0]] * 2)
    twice = torch.cat([scores, scores[:, 1:]], 1), torch.cat([relevance, relevance[:, 1:]], 1)
    torch.testing.assert_close(cosine_contrastive_loss(*twice), cosine_contrastive_loss(scores, relevance))
    positive = (1 - scores[:, 0]).mean()
    once = cosine_contrastive_loss(scores, relevance, negative_weight=None) - positive
    torch.testing.assert_close(cosine_contrastive_loss(*twice, negative_weight=None) - positive, 2 * once)


@pytest.mark.parametrize("pooling", ["mean", "user_attention", "self_attention"])
def test_padding_of_a_history_does_not_count(pooling: str) -> None:
    torch.manual_seed(0)
    mixer = HistoryMixer(4, pooling=pooling)
    users, history = torch.randn(2, 4), torch.randn(2, 3, 4)
    wide = torch.cat([torch.full((2, 1, 4), torch.nan), history], 1)
    mask = torch.tensor([[False, True, True, True]] * 2)
    torch.testing.assert_close(mixer(users, wide, mask), mixer(users, history, mask[:, 1:]))
    nothing = mixer(users, history, torch.zeros(2, 3, dtype=torch.bool))
    torch.testing.assert_close(nothing, 0.5 * users)


def test_gamma_one_is_matrix_factorisation() -> None:
    model = SimpleX(4, 6, dimension=8, gamma=1.0).eval()
    plain = SimpleX(4, 6, dimension=8, pooling=None).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    users, items, history = torch.tensor([0, 3]), torch.tensor([[1, 2], [5, 0]]), torch.tensor([[4, 1], [2, 2]])
    torch.testing.assert_close(model.score(users, items, history), plain.score(users, items))
    assert (model.score(users, items).abs() <= 1 + 1e-6).all()


def test_a_model_learns_to_prefer_what_was_liked() -> None:
    torch.manual_seed(0)
    model = SimpleX(2, 4, dimension=8, pooling=None, dropout=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    items = torch.arange(4).expand(2, 4)
    relevance = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    for _ in range(60):
        optimiser.zero_grad()
        cosine_contrastive_loss(model.score(torch.arange(2), items), relevance).backward()
        optimiser.step()
    scores = model.score(torch.arange(2), items)
    assert (scores[relevance > 0].min() > scores[relevance == 0].max()).item()


def test_bad_models_are_refused() -> None:
    with pytest.raises(RivalsError, match="gamma"):
        HistoryMixer(4, gamma=1.5)
    with pytest.raises(RivalsError, match="pooling"):
        HistoryMixer(4, pooling="max")
    with pytest.raises(RivalsError, match="mask"):
        SimpleX(2, 2, dimension=2).user(torch.tensor([0]), torch.tensor([[0, 1]]), torch.ones(1, 3, dtype=torch.bool))
