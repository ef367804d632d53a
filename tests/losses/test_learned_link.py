"""The learnt link: a monotone map with a symmetric Jacobian, its norms, and `learned_link_loss`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rivals.errors import RivalsError
from rivals.losses import ConvexPotentialGradient, InputConvexNetwork, LearnedLink, learned_link_loss, log_softmax_plus


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SCORES = torch.randn(8, 3, generator=generator(1), dtype=torch.float64) * 2
LABELS = torch.tensor([0, 1, 2, 3, 3, 0, 1, 2])


def link(blocks: int = 2, **options: int) -> LearnedLink:
    made = LearnedLink(4, blocks=blocks, generator=generator(), **options).double()
    with torch.no_grad():
        made(SCORES)  # sets the norms
    return made


def identity() -> LearnedLink:
    """softplus(w1) -> 0 and softplus(w0) = 1."""
    made = link()
    for block in made.blocks:
        torch.nn.init.constant_(block.w1, -800.0)  # type: ignore[arg-type]
        torch.nn.init.constant_(block.w0, math.log(math.e - 1))  # type: ignore[arg-type]
    return made


def test_log_softmax_plus() -> None:
    assert log_softmax_plus(torch.zeros(2)).tolist() == pytest.approx([-math.log(3)] * 3)
    assert log_softmax_plus(torch.tensor([-800.0, -900.0])).tolist() == pytest.approx([-800, -900, 0])
    wanted = F.pad(SCORES, (0, 1)).log_softmax(-1)
    torch.testing.assert_close(log_softmax_plus(SCORES), wanted)


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_probabilities(classes: int) -> None:
    made = LearnedLink(classes, generator=generator()).double()
    scores = torch.randn(5, classes - 1, generator=generator(2)).double()
    log_p = made(scores)
    assert log_p.shape == (5, classes)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5).double())


def test_a_block_is_monotone() -> None:
    block = link(blocks=1, width=4, depth=3).blocks[0]
    a, b = torch.randn(2, 200, 3, generator=generator(3), dtype=torch.float64) * 5
    with torch.no_grad():
        product = ((block(a) - block(b)) * (a - b)).sum(1)
    least = F.softplus(block.w0.detach()) * (a - b).square().sum(1)  # type: ignore[arg-type]
    assert (product >= least).all()


def test_the_jacobian_is_symmetric_and_positive() -> None:
    block = link(blocks=1).blocks[0]
    for row in SCORES[:3]:
        jacobian = torch.autograd.functional.jacobian(lambda s: block(s[None])[0], row)
        torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-8, atol=1e-10)
        assert torch.linalg.eigvalsh(jacobian).min() > 0


def test_the_network_is_convex() -> None:
    network = InputConvexNetwork(3, width=6, depth=5, generator=generator()).double()
    with torch.no_grad():
        network(SCORES)
        a, b = torch.randn(2, 100, 3, generator=generator(4), dtype=torch.float64) * 3
        middle = network((a + b) / 2)
        assert (middle <= (network(a) + network(b)) / 2 + 1e-12).all()


def test_an_identity_link_is_cross_entropy() -> None:
    made = identity()
    torch.testing.assert_close(made(SCORES), log_softmax_plus(SCORES))
    found = learned_link_loss(SCORES, LABELS, link=made, weight_decay=0.0)
    torch.testing.assert_close(found, F.cross_entropy(F.pad(SCORES, (0, 1)), LABELS))


def test_gradients_of_scores_and_parameters() -> None:
    made = link()
    scores = SCORES[:3].clone().requires_grad_()
    torch.autograd.gradcheck(lambda s: learned_link_loss(s, LABELS[:3], link=made), scores)
    weight = made.blocks[0].network.first.weight  # type: ignore[union-attr]
    loss = learned_link_loss(SCORES, LABELS, link=made)
    (by_weight,) = torch.autograd.grad(loss, weight)  # type: ignore[arg-type]
    with torch.no_grad():
        step = 1e-6 * torch.ones_like(weight)  # type: ignore[arg-type]
        values = []
        for sign in (1, -1):
            weight.add_(sign * step)  # type: ignore[operator]
            values.append(learned_link_loss(SCORES, LABELS, link=made).item())
            weight.sub_(sign * step)  # type: ignore[operator]
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(by_weight.sum().item(), rel=1e-5)


def test_without_recording_and_without_gradient_of_the_scores() -> None:
    made = link()
    with torch.no_grad():
        silent = made(SCORES)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, made(SCORES).detach())


def test_norms_are_set_once_and_saved() -> None:
    made = LearnedLink(4, generator=generator())
    with pytest.raises(RivalsError, match="two rows"):
        made(torch.zeros(1, 3))
    first = made(SCORES.float()).detach()
    assert torch.equal(made(SCORES.float()).detach(), first)
    other = LearnedLink(4, generator=generator(9))
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(5 * SCORES.float()), made(5 * SCORES.float()))
    unseen = LearnedLink(4, generator=generator()).eval()
    unseen(torch.zeros(1, 3))  # evaluation sets nothing
    assert not any(flag for name, flag in unseen.state_dict().items() if name.endswith("initialised"))


def test_drawn_from_the_generator() -> None:
    torch.manual_seed(1)
    first = LearnedLink(4, generator=generator()).state_dict()
    torch.manual_seed(2)
    second = LearnedLink(4, generator=generator()).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_laws_of_the_loss() -> None:
    """Weights, masks, decay, reductions, order, nothing at all, bad input."""
    made = link()
    none = learned_link_loss(SCORES, LABELS, link=made, reduction="none")
    torch.testing.assert_close(none, -made(SCORES).gather(1, LABELS[:, None]).squeeze(1))
    decay = sum(p.square().sum() for p in made.parameters())
    base = torch.nn.Linear(2, 3).double()
    found = learned_link_loss(SCORES, LABELS, link=made, weight_decay=0.3, decayed=base.parameters())
    wanted = none.mean() + 0.15 * (decay + sum(p.square().sum() for p in base.parameters()))
    torch.testing.assert_close(found, wanted)
    total = learned_link_loss(SCORES, LABELS, link=made, weight_decay=0.0, reduction="sum")
    torch.testing.assert_close(total, none.sum())
    mask = torch.arange(8) % 3 != 0
    scores = SCORES.masked_fill(~mask[:, None], math.nan).requires_grad_()
    weight = torch.rand(8, generator=generator(5)).double()
    loss = learned_link_loss(scores, LABELS, mask, link=made, weight=weight, weight_decay=0.0)
    torch.testing.assert_close(loss, (weight * none)[mask].sum() / mask.sum())
    gradient = torch.autograd.grad(loss, scores)[0]
    assert (gradient[~mask] == 0).all()
    order = torch.randperm(8, generator=generator(6))
    torch.testing.assert_close(
        learned_link_loss(SCORES[order], LABELS[order], link=made), learned_link_loss(SCORES, LABELS, link=made)
    )
    assert learned_link_loss(SCORES[:0], LABELS[:0], link=made, weight_decay=0.0) == 0
    for extreme in (1e4, -1e4):
        half = torch.full((4, 3), extreme, dtype=torch.float16, requires_grad=True)
        loss = learned_link_loss(half, LABELS[:4], link=made.float())
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, half)[0]).all()
    made.double()
    for wrong, name in ((SCORES[:, :2], "logits"), (SCORES.long(), "logits")):
        with pytest.raises(RivalsError, match=name):
            learned_link_loss(wrong, LABELS, link=made)
    for labels in (LABELS + 1, LABELS.double(), LABELS[:3]):
        with pytest.raises(RivalsError, match="labels"):
            learned_link_loss(SCORES, labels, link=made)
    with pytest.raises(RivalsError, match="weight_decay"):
        learned_link_loss(SCORES, LABELS, link=made, weight_decay=-1.0)


@pytest.mark.parametrize(
    "options", [{"num_classes": 1}, {"blocks": 0}, {"width": 3}, {"width": 0}, {"depth": 0}], ids=str
)
def test_bad_sizes(options: dict[str, int]) -> None:
    with pytest.raises(RivalsError):
        LearnedLink(**({"num_classes": 3} | options), generator=generator())  # type: ignore[arg-type]


def test_it_learns_a_link_that_a_softmax_lacks() -> None:
    """Classes whose log-odds are a strongly bent function of the scores: the fitted link halves the excess loss."""
    g = generator(7)
    scores = 3 * torch.randn(3000, 2, generator=g, dtype=torch.float64)
    bent = scores + 2.0 * scores.tanh()
    labels = log_softmax_plus(bent).exp().multinomial(1, generator=g).squeeze(1)
    made = LearnedLink(3, blocks=1, width=4, depth=2, generator=generator()).double()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        learned_link_loss(scores, labels, link=made, weight_decay=0.0).backward()
        optimizer.step()
    best, plain = (F.nll_loss(log_softmax_plus(s), labels).item() for s in (bent, scores))
    fitted = F.nll_loss(made(scores), labels).item()
    assert fitted - best < 0.5 * (plain - best)


def test_a_block_by_itself() -> None:
    block = ConvexPotentialGradient(2, generator=generator())
    assert block(torch.randn(6, 2, generator=generator(8))).shape == (6, 2)
