"""Neighbour noise in runs: values by hand, loops, laws, and planted unlabelled positives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import neighbour_filter
from rivals.negatives.filters import KnownPositives, PositiveAware
from rivals.negatives.neighbour_filter import NeighbourNoise


class Space:
    def __init__(self, vectors):
        self.vectors = np.asarray(vectors, np.float64)
        self.documents = Collection([f"d{i:03}" for i in range(len(self.vectors))])

    def query_vectors(self, queries):
        return np.zeros((len(queries), self.vectors.shape[1]))


def run_of(space, scores, positives, label=None):
    matrix = np.asarray(scores, np.float32)
    queries, size = matrix.shape
    flat = np.array([row for own in positives for row in own], np.int64)
    owner = np.repeat(np.arange(queries), [len(own) for own in positives])
    return Run.build(
        Collection([f"q{i}" for i in range(queries)], name="query"),
        space.documents,
        np.arange(queries + 1) * size,
        np.tile(np.arange(size), queries),
        matrix.ravel(),
        positives=(np.cumsum([0, *map(len, positives)]), flat),
        positive_score=matrix[owner, flat],
        columns=None if label is None else {"label": np.asarray(label).ravel()},
    )


def marked(run, query=0):
    rows = slice(run.offsets[query], run.offsets[query + 1])
    return sorted(run.document[rows][run.reason[rows] != 0].tolist())


LINE = Space([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])


def test_neighbours_of_misread_positives_by_hand():
    run = run_of(LINE, [[0.5, 0.1, 0.9, 0.8, 0.7, 0.2]], [[0]])
    assert marked(NeighbourNoise(LINE, neighbours=1, missed=3)(run)) == [1]
    assert marked(NeighbourNoise(LINE, neighbours=3, missed=3)(run)) == [1, 2, 3]
    assert marked(NeighbourNoise(LINE, neighbours=3, missed=3, min_cosine=0.8)(run)) == [1, 2]
    assert marked(NeighbourNoise(LINE, neighbours=3, missed=4)(run)) == []  # three stand above it, not four
    weighted = NeighbourNoise(LINE, neighbours=2, missed=3, action="weight")(run)
    assert weighted.keep.all()
    cosine = dict(zip(weighted.document.tolist(), weighted.weight.tolist(), strict=True))
    assert cosine == pytest.approx({0: 1, 1: 1 - 1 / 1.01**0.5, 2: 1 - 1 / 1.25**0.5, 3: 1, 4: 1, 5: 1}, abs=1e-6)


def test_judged_and_other_positive_candidates_are_no_suspects():
    label = [[-1, 0, -1, 1, -1, -1]]
    run = run_of(LINE, [[0.1, 0.2, 0.9, 0.8, 0.7, 0.2]], [[0]], label)
    assert marked(NeighbourNoise(LINE, neighbours=2, missed=1)(run)) == [2, 4]


def test_judged_neighbours_vote():
    label = [[-1, -1, -1, -1, 0, 0]]
    run = run_of(LINE, [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [[0]], label)
    rule = NeighbourNoise(LINE, "extrinsic", neighbours=1)
    assert marked(rule(run)) == [1, 2]  # 3 is as near to 4 as to 0: the judged negative stands first
    assert marked(NeighbourNoise(LINE, "extrinsic", neighbours=2)(run)) == []  # one of two is no majority
    both = run_of(LINE, [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [[0, 1]], label)
    assert marked(NeighbourNoise(LINE, "extrinsic", neighbours=3, agreement=0.6)(both)) == [2, 3]
    weighted = NeighbourNoise(LINE, "extrinsic", neighbours=3, action="weight")(both)
    assert weighted.weight[2:4].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_queries_without_judged_negatives_are_left_alone():
    label = [[-1, -1, -1, -1, 0, 0], [-1] * 6]
    run = run_of(LINE, [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]] * 2, [[0], [0]], label)
    found = NeighbourNoise(LINE, "extrinsic", neighbours=1)(run)
    assert marked(found, 0) == [1, 2]
    assert marked(found, 1) == []
    with pytest.raises(RivalsError, match="no query has judged negatives"):
        NeighbourNoise(LINE, "extrinsic")(run.take([1]))


@st.composite
def cases(draw):
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    queries, size = draw(st.integers(1, 4)), draw(st.integers(3, 14))
    space = Space(generator.standard_normal((size, 3)))
    scores = generator.integers(0, 6, (queries, size)) / 8
    positives = [
        np.sort(generator.choice(size, generator.integers(1, 3), replace=False)).tolist() for _ in range(queries)
    ]
    label = np.where(generator.random((queries, size)) < 0.3, 0, -1)
    for query, own in enumerate(positives):
        label[query, own] = -1
    label[0, next(row for row in range(size) if row not in positives[0])] = 0
    return space, run_of(space, scores, positives, label), positives, label


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 3), st.integers(1, 4))
def test_it_equals_a_loop(case, neighbours, missed):
    space, run, positives, _label = case
    unit = space.vectors / np.linalg.norm(space.vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    inner = NeighbourNoise(space, neighbours=neighbours, missed=missed)(run)
    outer = NeighbourNoise(space, "extrinsic", neighbours=neighbours, agreement=0.5)(run)
    for query, own in enumerate(positives):
        rows = slice(run.offsets[query], run.offsets[query + 1])
        score = dict(zip(run.document[rows].tolist(), run.score[rows].tolist(), strict=True))
        given_label = dict(zip(run.document[rows].tolist(), run.label[rows].tolist(), strict=True))
        free = [row for row in run.document[rows].tolist() if given_label[row] < 0 and row not in own]
        expected = set()
        for positive in own:
            if sum(score[row] > score[positive] for row in free) >= missed:
                expected |= set(sorted(free, key=lambda row: -cosine[positive, row])[:neighbours])
        assert marked(inner, query) == sorted(expected)
        negative = [row for row in given_label if given_label[row] == 0]
        expected = set()
        for row in free if negative else []:
            near = sorted([*negative, *own], key=lambda other: -cosine[row, other])[:neighbours]
            share = sum(other in own for other in near) / len(near)
            if share > 0.5:
                expected.add(row)
        assert marked(outer, query) == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_it_marks_only_is_idempotent_commutes_and_does_not_depend_on_blocks(case):
    space, run, _positives, _ = case
    for rule in (
        NeighbourNoise(space, neighbours=2, missed=1),
        NeighbourNoise(space, "extrinsic", neighbours=2),
        NeighbourNoise(space, neighbours=2, missed=1, action="weight"),
    ):
        once = rule(run)
        assert (once.document == run.document).all()
        twice = rule(once)
        for name in ("keep", "reason", "weight", "label"):
            assert (getattr(twice, name) == getattr(once, name)).all()
        for other in (KnownPositives(), PositiveAware(relative=0.05)):
            one, two = other(rule(run)), rule(other(run))
            assert (one.keep == two.keep).all()
            assert (one.label == two.label).all()
            assert (one.weight == two.weight).all()
        assert marked(rule(run.take([0]))) == marked(once, 0)


def test_small_blocks_and_long_lists_mark_alike(monkeypatch):
    generator = np.random.default_rng(1)
    space = Space(generator.standard_normal((300, 4)))
    lengths = [300, 3, 5, 0, 40]
    offsets = np.cumsum([0, *lengths])
    run = Run.build(
        Collection([f"q{i}" for i in range(5)], name="query"),
        space.documents,
        offsets,
        np.concatenate([generator.permutation(300)[:length] for length in lengths]),
        generator.random(offsets[-1]),
        positives=(np.arange(6), generator.integers(0, 300, 5)),
        positive_score=np.full(5, 0.2),
    )
    rule = NeighbourNoise(space, neighbours=2, missed=1)
    whole = rule(run)
    assert whole.where_reason(rule.reason).sum() > 4
    monkeypatch.setattr(neighbour_filter, "_PAIRS", 10)
    assert (rule(run).keep == whole.keep).all()


def test_planted_positives_are_found_and_true_negatives_mostly_left():
    """300 queries, one labelled right answer and two unlabelled ones close to it, 27 others; the scorer misreads a third."""
    generator = np.random.default_rng(2)
    answer = generator.standard_normal((300, 24))
    documents = [answer, *(answer + 0.4 * generator.standard_normal((300, 24)) for _ in range(2))]
    space = Space(np.concatenate([*documents, generator.standard_normal((300 * 27, 24))]))
    rows = np.concatenate(
        [np.arange(300)[:, None] + 300 * np.arange(3), 900 + np.arange(8100).reshape(300, 27)], axis=1
    )
    score = generator.random((300, 30)) + (np.arange(30) < 3) * np.where(np.arange(300) % 3 == 0, 0.0, 0.9)[:, None]
    run = Run.build(
        Collection([f"q{i}" for i in range(300)], name="query"),
        space.documents,
        np.arange(301) * 30,
        rows.ravel(),
        score.ravel(),
        positives=(np.arange(301), np.arange(300)),
        positive_score=score[:, 0],
    )
    found = NeighbourNoise(space, neighbours=2, missed=6)(run)
    suspect = found.where_reason("neighbour of a misread positive")
    planted = (run.document >= 300) & (run.document < 900)
    misread = np.isin(run.query, np.unique(run.query[suspect]))
    assert (suspect & planted).sum() > 0.95 * (planted & misread).sum()
    assert (suspect & ~planted).sum() < 0.002 * (~planted).sum()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "nearest"}, "strategy must be one of"),
        ({"action": "relabel"}, "action must be one of"),
        ({"neighbours": 0}, "neighbours must be a whole number"),
        ({"missed": 0}, "missed must be a whole number"),
        ({"agreement": 1.5}, "agreement must lie"),
        ({"min_cosine": 2.0}, "min_cosine must lie"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(RivalsError, match=said):
        NeighbourNoise(LINE, **options)


def test_positives_without_scores_are_named():
    run = run_of(LINE, [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [[0]])
    with pytest.raises(RivalsError, match="query 'q0': its positive 'd000' has no score"):
        NeighbourNoise(LINE)(run.replace(positive_score=np.float32([np.nan])))
