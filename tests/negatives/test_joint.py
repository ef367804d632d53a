"""Negatives of several retrievers together: who found what, and how likely each is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import Uniform
from rivals.negatives.joint import Joint, found_by, pool_overlap


def united(lists: list[list[list[int]]], documents: int = 8) -> Run:
    """A run over as many queries as there are rows, each with a list a source."""
    sources = [f"s{i}" for i in range(len(lists[0]))]
    offsets, document, features = [0], [], {name: [] for name in sources}
    for row in lists:
        union = sorted({d for part in row for d in part})
        document += union
        offsets.append(len(document))
        for name, part in zip(sources, row, strict=True):
            features[name] += [float(10 - part.index(d)) if d in part else np.nan for d in union]
    return Run.build(
        Collection([f"q{i}" for i in range(len(lists))]),
        Collection([f"d{i}" for i in range(documents)]),
        offsets,
        document,
        -np.arange(len(document), dtype=np.float32),
        features=features,
        sources=sources,
    )


def by_document(run: Run, sampler: Joint) -> dict[int, float]:
    return dict(zip(run.document.tolist(), sampler.probabilities(run).round(6).tolist(), strict=True))


def test_the_card_s_lists() -> None:
    run = united([[[1, 2, 3], [3, 5, 6]]])  # the positive 4 is gone
    sixth = round(1 / 6, 6)
    assert by_document(run, Joint(1)) == {1: sixth, 2: sixth, 3: round(1 / 3, 6), 5: sixth, 6: sixth}
    assert by_document(run, Joint(1, policy="union")) == dict.fromkeys([1, 2, 3, 5, 6], 0.2)
    assert by_document(run, Joint(1, policy="agreement")) == by_document(run, Joint(1))


def test_a_marked_candidate_leaves_its_share_to_its_source() -> None:
    run = united([[[1, 2, 3, 4], [3, 4, 5, 6]]])
    run = run.mark(run.document == 4, "known positive")
    assert by_document(run, Joint(1)) == pytest.approx(
        {1: 1 / 6, 2: 1 / 6, 3: 1 / 3, 4: 0, 5: 1 / 6, 6: 1 / 6}, abs=1e-5
    )


def test_lists_of_other_lengths_weigh_alike_in_a_mixture_only() -> None:
    run = united([[[1], [2, 3, 4]]])
    assert by_document(run, Joint(1)) == pytest.approx({1: 0.5, 2: 1 / 6, 3: 1 / 6, 4: 1 / 6}, abs=1e-5)
    assert by_document(run, Joint(1, policy="agreement")) == dict.fromkeys([1, 2, 3, 4], 0.25)


@pytest.mark.parametrize("policy", ["mixture", "union", "agreement"])
def test_one_source_or_two_equal_ones_are_uniform(policy: str) -> None:
    for lists in ([[[1, 2, 5]]], [[[1, 2, 5], [1, 2, 5]]]):
        run = united(lists)
        assert np.allclose(Joint(1, policy=policy).probabilities(run), Uniform(1).probabilities(run))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(
    lists=st.lists(
        st.lists(st.lists(st.integers(0, 7), max_size=5, unique=True), min_size=2, max_size=2), min_size=1, max_size=4
    ),
    policy=st.sampled_from(["mixture", "union", "agreement"]),
)
def test_probabilities_add_up_and_nothing_comes_twice(lists: list[list[list[int]]], policy: str) -> None:
    run = united(lists)
    sampler = Joint(3, policy=policy)  # type: ignore[arg-type]
    probability = sampler.probabilities(run)
    for query, row in enumerate(lists):
        total = probability[run.query == query].sum()
        assert total == pytest.approx(1.0 if any(row) else 0.0)
    draw = sampler.draw_available(run, np.random.default_rng(0))
    for query, row in enumerate(lists):
        drawn = draw.candidate[query][draw.mask[query]].tolist()
        union = {d for part in row for d in part}
        assert len(set(drawn)) == len(drawn) == min(3, len(union))
        assert set(drawn) <= union


def test_draws_follow_the_probabilities() -> None:
    count = 4000
    run = united([[[1, 2, 3], [3, 5, 6]]] * count)
    expected = Joint(1).probabilities(run)[:5]
    drawn = Joint(1).draw(run, np.random.default_rng(1)).row[:, 0] % 5
    seen = np.bincount(drawn, minlength=5) / count
    assert (np.abs(seen - expected) < 4 * np.sqrt(expected * (1 - expected) / count)).all()


def test_overlap_is_jaccard_over_all_queries() -> None:
    overlap = pool_overlap(united([[[1, 2, 3, 4], [3, 4, 5, 6]]]))
    assert np.allclose(overlap, [[1, 2 / 6], [2 / 6, 1]])
    assert np.allclose(overlap, overlap.T)
    assert np.allclose(pool_overlap(united([[[1], []], [[2], [2]]])), [[1, 1 / 2], [1 / 2, 1]])
    assert np.allclose(pool_overlap(united([[[1], []]])), np.eye(2))


def test_who_found_what() -> None:
    assert found_by(united([[[1, 2], [2, 3]]])).tolist() == [[True, False], [True, True], [False, True]]
    assert found_by(united([[[1, 2]]])).tolist() == [[True], [True]]


def test_mistakes_are_told() -> None:
    run = united([[[1, 2], [2, 3]]])
    with pytest.raises(RivalsError, match="does not say which candidates 's0' proposed"):
        Joint(1).probabilities(run.replace(features={}))
    with pytest.raises(RivalsError, match="policy is 'best'; use mixture, union, agreement"):
        Joint(1, policy="best")  # type: ignore[arg-type]
    assert repr(Joint(3, policy="union")) == "Joint(3, policy='union')"
