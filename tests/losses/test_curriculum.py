"""Curriculum weighting (paper 48): heuristics by hand and against scipy, the schedule, resuming, the pair loss."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from rivals.errors import RivalsError
from rivals.losses import CurriculumWeighting, info_nce_loss, looks_relevant, probability_error_loss, score_cdf


def test_heuristics_by_hand() -> None:
    scores = torch.tensor([[12.0, 3.0, 6.0]])
    assert looks_relevant(scores).tolist() == [[1.0, pytest.approx(1 / 3), 0.5]]
    assert looks_relevant(scores, heuristic="minmax").tolist() == [[1.0, 0.0, pytest.approx(1 / 3)]]
    assert looks_relevant(torch.ones(1, 3), heuristic="minmax").tolist() == [[0.5] * 3]
    assert looks_relevant(scores, ranks=torch.tensor([[1, 1000, 2]])).tolist() == [[1.0, pytest.approx(1e-3), 0.5]]


@pytest.mark.parametrize("heuristic", ["reciprocal", "minmax", "kde"])
def test_padding_does_not_count(heuristic: str) -> None:
    scores, mask = torch.tensor([[12.0, float("nan"), 3.0, 6.0]]), torch.tensor([[True, False, True, True]])
    found = looks_relevant(scores, mask, heuristic=heuristic)
    plain = looks_relevant(torch.tensor([[12.0, 3.0, 6.0]]), heuristic=heuristic)
    torch.testing.assert_close(found[:, [0, 2, 3]], plain)
    assert found[0, 1] == 0


def test_the_density_is_scipys() -> None:
    run = torch.randn(30, dtype=torch.float64) * 3
    density = stats.gaussian_kde(run.numpy())
    points = torch.tensor([-4.0, 0.0, 2.5], dtype=torch.float64)
    wanted = [density.integrate_box_1d(-1e3, x) for x in points.tolist()]
    torch.testing.assert_close(score_cdf(run, points), torch.tensor(wanted, dtype=torch.float64))
    with pytest.raises(RivalsError, match="two distinct"):
        score_cdf(torch.ones(3), points)


def test_the_schedule() -> None:
    curriculum = CurriculumWeighting(end=4)
    ease = curriculum.pairs(torch.tensor([1.0, 0.1]), torch.tensor([[0.2, 0.5], [0.9, 0.0]]))
    torch.testing.assert_close(ease, torch.tensor([0.75, 0.1]))
    anti = CurriculumWeighting(end=4, anti=True)
    torch.testing.assert_close(anti.pairs(torch.tensor([1.0]), torch.tensor([0.2])), torch.tensor([0.1]))
    seen = []
    for _ in range(6):
        seen.append(curriculum.weights(ease)[1].item())
        curriculum.step()
    assert seen == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0, 1.0])
    assert curriculum.finished
    assert CurriculumWeighting(end=0).finished
    documents = curriculum.documents(torch.tensor([0.9, 0.9]), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(documents, torch.tensor([0.9, 0.1]))


def test_paper_and_release_differ_where_weight_and_loss_go_together() -> None:
    losses, ease = torch.tensor([1.0, 3.0]), torch.tensor([0.2, 0.8])
    assert CurriculumWeighting()(losses, ease).item() == pytest.approx(1.3)
    assert CurriculumWeighting(reduction="product_of_means")(losses, ease).item() == pytest.approx(1.0)


def test_it_resumes() -> None:
    first = CurriculumWeighting(end=10)
    first.step(3)
    second = CurriculumWeighting(end=10)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.weights(torch.tensor([0.5])), first.weights(torch.tensor([0.5])))


def test_the_pair_loss_is_one_minus_the_probability() -> None:
    scores, relevance = torch.randn(4, 5), torch.tensor([[1.0, 0, 0, 0, 0]] * 4)
    found = probability_error_loss(scores, relevance, reduction="none")
    torch.testing.assert_close(found, 1 - scores.softmax(1)[:, 0])
    torch.testing.assert_close(-(1 - found).log(), info_nce_loss(scores, relevance, temperature=1.0, reduction="none"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: looks_relevant(torch.tensor([float("nan")])), "numbers"),
        (lambda: looks_relevant(torch.ones(2), ranks=torch.tensor([0, 1])), "ranks"),
        (lambda: looks_relevant(torch.ones(2), heuristic="best"), "heuristic"),
        (lambda: looks_relevant(torch.ones(2), torch.ones(3, dtype=torch.bool)), "mask"),
        (lambda: CurriculumWeighting(end=-1), "end"),
        (lambda: CurriculumWeighting(reduction="sum"), "reduction"),
        (lambda: CurriculumWeighting().documents(torch.ones(2), torch.ones(3)), "relevance"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(RivalsError, match=said):
        call()
