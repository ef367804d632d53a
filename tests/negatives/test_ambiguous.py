"""The ambiguous sampler (paper 10)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.data.run import concatenate
from rivals.errors import RivalsError
from rivals.negatives import Ambiguous
from rivals.negatives.ambiguous import ambiguous_probabilities


def with_positives(scores: list[list[float]], positives: list[list[float]]) -> Run:
    """Queries over documents of their own scores; positives are further documents with the scores given."""
    lengths = [len(row) for row in scores]
    n, m = sum(lengths), sum(map(len, positives))
    return Run.build(
        Collection([f"q{i}" for i in range(len(scores))], name="query"),
        Collection([f"d{i:05}" for i in range(n + m)]),
        np.cumsum([0, *lengths]),
        np.arange(n),
        np.concatenate([np.asarray(row, np.float32) for row in scores]),
        positives=(np.cumsum([0, *map(len, positives)]), np.arange(n, n + m)),
        positive_score=[score for row in positives for score in row],
    )


def direct(scores: list[float], positive: float, a: float, b: float, power: int) -> list[float]:
    """The formula of the card, candidate by candidate."""
    mass = [math.exp(-a * abs(s - positive - b) ** power) for s in scores]
    return [m / sum(mass) for m in mass]


def test_by_hand() -> None:
    """Check 1."""
    assert ambiguous_probabilities([0.0, 1.0, 2.0], 0.0) == pytest.approx([0.574097, 0.348207, 0.077696], abs=1e-6)


@pytest.mark.parametrize(("a", "b", "power"), [(0.5, 0.0, 2), (0.5, -1.0, 2), (3.0, 0.0, 1), (2.0, 0.5, 1)])
def test_against_the_formula(a: float, b: float, power: int) -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.normal(size=(4, 7)), generator.normal(size=4)
    mask = generator.random((4, 7)) < 0.7
    scores[~mask] = np.nan
    found = ambiguous_probabilities(scores, positive, mask, a=a, b=b, power=power)
    for row, there, s, p in zip(scores, mask, positive, found, strict=True):
        assert p[there] == pytest.approx(direct(row[there].tolist(), s, a, b, power))
        assert (p[~there] == 0).all()


def test_shape_of_the_curve() -> None:
    """Checks 2 to 5."""
    p = ambiguous_probabilities([1.3, 0.7, 5.0], 1.0)
    assert p[0] == pytest.approx(p[1])
    p = ambiguous_probabilities([3.0, 2.0, 1.0], 3.0, b=-1.0)
    assert p[1] > p[0]
    assert p[0] == pytest.approx(p[2])
    scores = np.array([0.2, -1.0, 0.9])
    assert ambiguous_probabilities(scores + 70, 70.5) == pytest.approx(ambiguous_probabilities(scores, 0.5))
    assert ambiguous_probabilities(3 * scores, 1.5, a=1.0) == pytest.approx(ambiguous_probabilities(scores, 0.5, a=9.0))
    assert ambiguous_probabilities(scores, 0.5, a=1e-12) == pytest.approx([1 / 3] * 3)
    assert ambiguous_probabilities(scores, 0.5, a=1e6, b=-0.4).tolist() == [1, 0, 0]


def test_far_candidates_still_have_a_distribution() -> None:
    """Check 8: exp(-0.5 * 60^2) is 0 in double precision."""
    p = ambiguous_probabilities([10.0, 10.0, 9.9], 70.0)
    assert p.sum() == pytest.approx(1)
    assert p[0] == p[1] > p[2]
    run = with_positives([[10.0, 10.0, 9.9]], [[70.0]])
    assert Ambiguous(2).probabilities(run).sum() == pytest.approx(1)
    assert Ambiguous(2).draw(run, np.random.default_rng(0)).mask.all()


def test_the_sampler_gives_the_same_probabilities() -> None:
    scores, positives = [[0.9, 0.7, 0.4], [0.8, 0.2]], [[0.75], [0.5]]
    run = with_positives(scores, positives)
    found = Ambiguous(1, a=20, b=-0.1).probabilities(run)
    for query, (row, (positive,)) in enumerate(zip(scores, positives, strict=True)):
        part = found[run.offsets[query] : run.offsets[query + 1]]
        assert part == pytest.approx(direct(row, positive, 20, -0.1, 2), rel=1e-5)


def test_marked_and_shifted_candidates_are_out() -> None:
    run = with_positives([[0.9, 0.8, 0.7, 0.6]], [[0.85]])
    run = run.mark(np.array([False, True, False, False]), "a rule")
    assert Ambiguous(1, a=50).probabilities(run)[1] == 0
    assert (Ambiguous(1, a=50, skip=1, window=1).probabilities(run) == [0, 0, 1, 0]).all()


def test_several_positives() -> None:
    scores, positives = [0.9, 0.7, 0.4], [0.8, 0.3, 0.55]
    run = with_positives([scores], [positives])
    each = np.array([direct(scores, positive, 30, 0, 2) for positive in positives])
    for choice, wanted in (
        ("draw", each.mean(0)),
        ("first", each[0]),
        ("min", each[1]),
        ("max", each[0]),
        ("mean", direct(scores, float(np.mean(positives)), 30, 0, 2)),
    ):
        assert Ambiguous(1, a=30, positive=choice).probabilities(run) == pytest.approx(wanted, rel=1e-4), choice


@pytest.mark.parametrize("positives", [[0.5], [0.6, 0.1]])
def test_draws_follow_the_probabilities(positives: list[float]) -> None:
    """Check 7, with one positive and with one drawn at every visit."""
    scores, times = [0.9, 0.6, 0.55, 0.3, 0.1], 20_000
    run = with_positives([scores] * times, [positives] * times)
    sampler = Ambiguous(2, a=20)
    draw = sampler.draw(run, np.random.default_rng(1))
    first = draw.row[:, 0] - run.offsets[:-1]
    share = np.bincount(first, minlength=5) / times
    wanted = sampler.probabilities(run)[:5]
    assert (np.abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / times)).all()
    assert (draw.row[:, 0] != draw.row[:, 1]).all()
    if len(positives) == 1:
        assert draw.log_probability[:, 0] == pytest.approx(np.log(wanted)[first], rel=1e-4)


def test_a_query_that_is_drawn_empty() -> None:
    """Check 6."""
    run = with_positives([[0.9, 0.6], [0.4]], [[0.7], [0.7]])
    draw = Ambiguous(3).draw(run, np.random.default_rng(0))
    assert draw.mask.tolist() == [[True, True, False], [True, False, False]]
    assert sorted(draw.row[0, :2].tolist()) == [0, 1]


def test_drawing_block_after_block_is_drawing_at_once() -> None:
    blocks = [with_positives([[0.9, 0.6, 0.5]], [[0.7, 0.1]]), with_positives([[0.4, 0.3], [0.2]], [[0.7, 0.3], [0.1]])]
    documents = Collection([f"d{i:05}" for i in range(9)])
    blocks = [
        Run.build(
            Collection([f"b{i}{name}" for name in run.queries.ids], name="query"),
            documents,
            run.offsets,
            run.document,
            run.score,
            positives=(run.positive_offsets, run.positive),
            positive_score=run.positive_score,
        )
        for i, run in enumerate(blocks)
    ]
    for seed in range(20):
        generator = np.random.default_rng(seed)
        parts = [Ambiguous(2, a=30).draw(run, generator).candidate for run in blocks]
        at_once = Ambiguous(2, a=30).draw(concatenate(blocks), np.random.default_rng(seed)).candidate
        assert np.concatenate(parts).tolist() == at_once.tolist()


def test_unscored_positives() -> None:
    run = with_positives([[0.9, 0.7], [0.6, 0.5], [0.4, 0.1]], [[0.8], [np.nan], [np.nan, 0.3]])
    with pytest.raises(RivalsError, match="'q1' has a positive without score"):
        Ambiguous(1).probabilities(run)
    found = Ambiguous(1, a=20, on_missing_positive="uniform").probabilities(run)
    assert found[2:4].tolist() == [0.5, 0.5]
    assert found[4:] == pytest.approx(direct([0.4, 0.1], 0.3, 20, 0, 2), rel=1e-5)
    with pytest.raises(RivalsError, match="no positive"):
        Ambiguous(1).probabilities(with_positives([[0.5]], [[]]))
    assert ambiguous_probabilities([1.0, 2.0], math.nan, on_missing_positive="uniform").tolist() == [0.5, 0.5]


def test_width() -> None:
    scores = [0.9, 0.7, 0.4]
    run = with_positives([scores, [0.5, 0.5]], [[0.8], [0.2]])
    assert Ambiguous(1, width=0.1).probabilities(run)[:3] == pytest.approx(direct(scores, 0.8, 50, 0, 2), rel=1e-5)
    a = 1 / (2 * (np.std(scores) / 2) ** 2)
    found = Ambiguous(1, width="auto").probabilities(run)
    assert found[:3] == pytest.approx(direct(scores, 0.8, a, 0, 2), rel=1e-4)
    assert found[3:].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "options",
    [
        {"a": 0},
        {"a": -1},
        {"a": math.nan},
        {"power": 3},
        {"b": math.inf},
        {"width": 0},
        {"width": 1.0, "a": 1.0},
        {"width": 1.0, "power": 1},
        {"positive": "last"},
        {"on_missing_positive": "zero"},
        {"k": 0},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(RivalsError):
        Ambiguous(**options)


def test_bad_input() -> None:
    for scores, positive, mask in (
        ([1.0, math.nan], 0.0, None),
        ([1.0], math.nan, None),
        ([1.0], math.inf, None),
        ([1.0], 0.0, [False]),
        ([[1.0]], 0.0, None),
        ([1.0], 0.0, [True, True]),
    ):
        with pytest.raises(RivalsError):
            ambiguous_probabilities(scores, positive, mask)
    assert ambiguous_probabilities([1.0], 0.0, [False], allow_empty=True).tolist() == [0]
    with pytest.raises(RivalsError, match="must be finite"):
        Ambiguous(1).probabilities(with_positives([[math.inf, 0.1]], [[0.3]]))
