"""Committee scores and shortlists: the card's values, exactness, bounds, and what bounds regain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.evaluate.biased_rankings import bias_rankings, constraint_benefit_curve, score_smoothness
from rivals.evaluate.committees import RULES, committee_score, positions_of, single_scores
from rivals.evaluate.shortlists import proportional_bounds, select_subset, shortlist_runs

SEPARABLE = ("borda", "sntv", "bloc")


def random_positions(draw: np.random.Generator, rankings: int, items: int) -> Any:
    return np.stack([draw.permutation(items) + 1 for _ in range(rankings)])


def test_scores_of_the_card() -> None:
    one = positions_of([[0, 1, 2, 3]], items=4)
    expected = {"borda": 2, "sntv": 0, "bloc": 1, "chamberlin_courant": 2, "harmonic": 2}
    assert {kind: committee_score(one, [1, 3], kind) for kind in expected} == expected  # type: ignore[arg-type]
    assert [committee_score(one, [0, 2], kind) for kind in ("borda", "chamberlin_courant", "harmonic")] == [4, 3, 3.5]
    assert committee_score(one, [1, 3], "coverage", q=1) == 0
    assert committee_score(one, [1, 3], weights=[1, 0]) == committee_score(one, [1, 3], "chamberlin_courant")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(sorted(RULES)))
def test_scores_are_monotone_and_submodular(seed: int, kind: Any) -> None:
    draw = np.random.default_rng(seed)
    positions = random_positions(draw, 4, 7)
    order = draw.permutation(7)
    small, large, item = order[:2], order[:4], order[5]

    def score(subset: Any) -> float:
        return committee_score(positions, subset, kind, q=2)

    gain, later = score([*small, item]) - score(small), score([*large, item]) - score(large)
    assert later >= -1e-12
    assert gain >= later - 1e-12
    assert committee_score(positions, large, "chamberlin_courant") <= committee_score(positions, large, "borda")


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 100_000), kind=st.sampled_from(sorted(RULES)))
def test_solvers_against_all_subsets(seed: int, kind: Any) -> None:
    draw = np.random.default_rng(seed)
    positions, groups = random_positions(draw, 3, 8), np.array([0, 0, 0, 1, 1, 1, 2, 2])
    bounds: dict[str, Any] = {"groups": groups, "lower": {1: int(draw.integers(0, 3)), 2: 1}, "upper": {0: 2}}
    best = committee_score(positions, select_subset(positions, 4, kind, solver="exact", **bounds), kind)
    chosen = {
        solver: select_subset(positions, 4, kind, solver=solver, **bounds) for solver in ("auto", "greedy", "milp")
    }
    for solver, subset in chosen.items():
        counts = np.bincount(groups[subset], minlength=3)
        assert len(set(subset.tolist())) == 4
        assert (counts >= [0, bounds["lower"][1], 1]).all(), solver
        assert counts[0] <= 2, solver
    assert committee_score(positions, chosen["milp"], kind) == pytest.approx(best)
    assert best / 2 <= committee_score(positions, chosen["greedy"], kind) + 1e-9 <= best + 2e-9
    if kind in SEPARABLE:
        assert committee_score(positions, chosen["auto"], kind) == pytest.approx(best)


def test_the_separable_solver_is_exact() -> None:
    draw = np.random.default_rng(0)
    for number in range(200):
        positions, groups = random_positions(draw, 4, 7), draw.permutation([0, 0, 0, 1, 1, 1, 2])
        kind: Any = SEPARABLE[number % 3]
        bounds: dict[str, Any] = {"groups": groups, "lower": {0: 1, 1: int(draw.integers(0, 3))}, "upper": {1: 2}}
        found = [select_subset(positions, 4, kind, solver=solver, **bounds) for solver in ("separable", "exact")]
        assert committee_score(positions, found[0], kind) == committee_score(positions, found[1], kind)


def test_one_ranking_and_relabelling() -> None:
    draw = np.random.default_rng(0)
    one = random_positions(draw, 1, 9)
    top = set(np.flatnonzero(one[0] <= 3).tolist())
    for kind in ("borda", "bloc"):
        assert set(select_subset(one, 3, kind).tolist()) == top  # type: ignore[arg-type]
    positions, turn = random_positions(draw, 30, 9), draw.permutation(9)
    plain = select_subset(positions, 3, "chamberlin_courant")
    assert turn[select_subset(positions[:, turn], 3, "chamberlin_courant")].tolist() == plain.tolist()
    assert select_subset(positions, 9).tolist() == np.argsort(-single_scores(positions, 9), kind="stable").tolist()


def test_bounds_without_bias_change_nothing_and_with_bias_repair() -> None:
    draw = np.random.default_rng(0)
    group = np.arange(40) >= 20
    latent = draw.random(40)
    seen = latent + 0.2 * draw.standard_normal((50, 40))
    assert (bias_rankings(seen, group) == bias_rankings(seen, group, beta=1, model="swap", generator=draw)).all()
    swapped = bias_rankings(seen, group, beta=0.3, model="swap", generator=draw)
    assert np.sort(swapped, axis=1).tolist() == [list(range(1, 41))] * 50
    assert swapped[:, group].mean() > bias_rankings(seen, group)[:, group].mean()
    options: dict[str, Any] = {"k": 8, "lower": 4, "rankings": (10, 100), "repeats": 6}
    rows = {(row.kind, row.rankings): row for row in constraint_benefit_curve(latent, group, **options)}
    assert rows["borda", 10].bounded > 0.95
    assert rows["sntv", 100].bounded < 0.9
    for kind in ("borda", "bloc"):
        for count in (10, 100):
            assert rows[kind, count].bounded >= rows[kind, count].free
    for row in constraint_benefit_curve(
        latent, group, **(options | {"kinds": ["borda"], "rankings": [300], "lower": 0}), beta=1
    ):
        assert row.free == row.bounded
        assert 0.98 < row.free <= 1 + 1e-12


def test_borda_is_smoother_than_the_first_place() -> None:
    draw = np.random.default_rng(1)
    latent, groups = draw.random(30), np.arange(30) % 2
    positions = bias_rankings(latent + 0.2 * draw.standard_normal((40, 30)), groups == 1, beta=0.6)
    borda, sntv = (score_smoothness(positions, latent, groups, 5, kind) for kind in ("borda", "sntv"))  # type: ignore[arg-type]
    assert borda.agreement > 0.9 > sntv.agreement > 0.5
    assert borda.gap > sntv.gap


def test_shortlists_of_runs_keep_the_bounds() -> None:
    draw = np.random.default_rng(0)
    queries, documents = Collection(["q0", "q1", "q2"], name="query"), Collection([f"d{n}" for n in range(20)])
    runs = {}
    for name in ("a", "b", "c"):
        listed = [draw.choice(10, 6, replace=False), draw.choice(20, 8, replace=False), np.zeros(0, np.int64)]
        score = np.concatenate([-np.arange(len(part)) for part in listed]).astype(np.float32)
        runs[name] = Run.build(queries, documents, [0, 6, 14, 14], np.concatenate(listed), score)
    groups = (np.arange(20) >= 10).astype(int)
    with pytest.warns(UserWarning, match="1 of 3 queries"):
        found = shortlist_runs(runs, 5, "harmonic", groups=groups, lower={1: 2})
    assert np.diff(found.offsets).tolist() == [5, 5, 0]
    assert groups[found.document[5:10]].sum() >= 2, "the second query has documents of both groups, the first has not"
    plain = shortlist_runs({"a": runs["a"]}, 4)
    assert plain.document[:4].tolist() == runs["a"].document[:4].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 9}, "k is 9"),
        ({"lower": {0: 1}}, "no groups"),
        ({"groups": [0, 0, 1, 1], "lower": {0: 2, 1: 1}}, "no 2 items meet"),
        ({"groups": [0, 0, 1, 1], "lower": {1: 3}}, "it has 2 items"),
        ({"groups": [0, 0, 1, 1], "upper": {0: 0, 1: 1}}, "room for 1"),
        ({"groups": [0, 0, 1, 1], "lower": {5: 1}}, "no item is in it"),
        ({"kind": "harmonic", "solver": "separable"}, "not a sum"),
        ({"kind": "plurality"}, "no committee score"),
        ({"solver": "best"}, "solver"),
        ({"weights": [1.0, 2.0]}, "non-increasing"),
        ({"kind": "bloc", "q": 9}, "q is 9"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        select_subset([[1, 2, 3, 4]], **({"k": 2} | options))


def test_bad_rankings_are_refused() -> None:
    with pytest.raises(RivalsError, match="twice"):
        positions_of([[0, 0]], items=2)
    with pytest.raises(RivalsError, match="1 of 2 items"):
        positions_of([[0]], items=2)
    assert positions_of([[1]], items=3, missing="last").tolist() == [[3, 1, 3]]
    with pytest.raises(RivalsError, match="one position to two"):
        committee_score([[1, 1, 2]], [0])
    with pytest.raises(RivalsError, match="too many to try"):
        select_subset([list(range(1, 41))], 10, "harmonic", solver="exact")
    with pytest.warns(UserWarning, match="not protected"):
        assert proportional_bounds([0] * 9 + [1], 4) == {0: 3, 1: 0}
