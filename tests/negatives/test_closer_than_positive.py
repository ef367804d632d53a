"""The triangle rule: the card's angles, laws, fallbacks, and what it takes out of noisy lists."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives.closer_than_positive import CloserThanPositive, closer_than_positive_mask
from rivals.negatives.filters import KnownPositives, PositiveAware

FIRST, SECOND = "farther from the query than its positive", "nearer to a positive than to the query"


class Space:
    """Vectors of documents and of queries."""

    def __init__(self, queries, documents, names=None):
        self._queries, self.vectors = np.asarray(queries), np.asarray(documents)
        self.documents = names or Collection([f"d{i:03}" for i in range(len(self.vectors))])

    def query_vectors(self, queries):
        return self._queries[[int(name[1:]) for name in queries.ids]]

    def run(self, positives, candidates=None):
        count = len(self._queries)
        lists = candidates or [list(range(len(self.vectors)))] * count
        offsets = np.cumsum([0, *map(len, lists)])
        flat = [row for own in positives for row in own]
        return Run.build(
            Collection([f"q{i}" for i in range(count)], name="query"),
            self.documents,
            offsets,
            np.concatenate([np.array(rows, np.int64) for rows in lists]),
            np.zeros(offsets[-1]),  # whoever proposed them scored otherwise
            positives=(np.cumsum([0, *map(len, positives)]), flat),
            positive_score=np.zeros(len(flat)),
        )


def plane(*degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def kept(run, query=0):
    rows = slice(run.offsets[query], run.offsets[query + 1])
    return sorted(run.document[rows][run.keep[rows]].tolist())


def test_the_cards_angles():
    """Q at 0, P at 40; D1 at -20 passes, D2 at 45 is farther than P, D3 at 25 is nearer to P than to Q."""
    space = Space(plane(0), plane(40, -20, 45, 25))
    marked = CloserThanPositive(space)(space.run([[0]], [[1, 2, 3]]))
    named = {int(marked.document[row]): marked.reasons_of(row) for row in range(3)}
    assert named == {1: [], 2: [FIRST, SECOND], 3: [SECOND]}
    mask = closer_than_positive_mask(plane(0), plane(40), plane(-20, 45, 25)[None])
    assert mask.tolist() == [[True, False, False]]


def test_the_positive_itself_is_no_negative_and_the_query_itself_is():
    space = Space(plane(0), 3 * plane(40, 0))  # lengths do not matter
    assert kept(CloserThanPositive(space)(space.run([[0]]))) == [1]
    assert closer_than_positive_mask(plane(0), plane(40), plane(40, 0)[None]).tolist() == [[False, True]]


def test_of_several_positives_the_nearest_counts_for_both_conditions():
    space = Space(plane(0, 0), plane(40, -30, -20, 25, 38))
    run = space.run([[0], [0, 1]], [[2, 3, 4], [2, 3, 4]])
    marked = CloserThanPositive(space)(run)
    assert kept(marked, 0) == [2]
    assert kept(marked, 1) == []  # -20 is nearer to -30 than to 0; 25 to 40; 38 is farther than -30


def test_reasons_are_told_apart_by_their_margins():
    space = Space(plane(0), plane(40))
    assert CloserThanPositive(space).reasons == (FIRST, SECOND)
    other = CloserThanPositive(space, query_margin=0.1, positive_margin=0.2, fallback="nearest")
    assert other.reasons == (f"{FIRST} by 0.1 (nearest)", f"{SECOND} by 0.2")


# ---------------------------------------------------------------------------------------------------------- fallbacks


def test_fallbacks_where_nothing_passes():
    """The positive comes first, so nobody beats it; 20 and -50 meet the second condition, 12 does not."""
    space = Space(plane(0), plane(10, 12, -20, -50))
    run = KnownPositives()(space.run([[0]]))
    with pytest.warns(UserWarning, match="leave not one of 4"):
        assert kept(CloserThanPositive(space)(run)) == []
    assert kept(CloserThanPositive(space, fallback="nearest")(run)) == [2]
    assert kept(CloserThanPositive(space, fallback="relax", step=0.1)(run)) == [2]
    # d(Q, P) = 0.0152, d(Q, -20) = 0.0603, d(Q, -50) = 0.357: a step of 25 times takes both at once
    assert kept(CloserThanPositive(space, fallback="relax", step=25)(run)) == [2, 3]


def test_fallbacks_do_nothing_where_something_passes():
    space = Space(plane(0, 0), plane(40, -20, -30, 5))
    run = space.run([[0], [3]], [[1, 2], [1, 2]])
    for fallback in ("nearest", "relax"):
        marked = CloserThanPositive(space, fallback=fallback)(run)
        assert kept(marked, 0) == [1, 2]
        assert kept(marked, 1) == [1]


def test_a_positive_is_never_the_nearest_of_the_fallback():
    space = Space(plane(0), np.concatenate([plane(40), plane(170)]))
    run = space.run([[0, 1]])
    with pytest.warns(UserWarning, match="leave not one"):
        assert kept(CloserThanPositive(space, fallback="nearest")(run)) == []


# --------------------------------------------------------------------------------------------------------------- laws


@st.composite
def cases(draw):
    queries, documents = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    space = Space(generator.standard_normal((queries, 3)), generator.standard_normal((documents, 3)))
    some = st.lists(st.integers(0, documents - 1), min_size=1, max_size=min(3, documents), unique=True)
    return space, [draw(some) for _ in range(queries)]


def quietly(rule, run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return rule(run)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["none", "nearest", "relax"]))
def test_it_equals_a_loop_marks_only_and_is_idempotent(case, fallback):
    space, positives = case
    run = space.run(positives)
    rule = CloserThanPositive(space, fallback=fallback)
    marked = quietly(rule, run)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    q, d = unit(space._queries), unit(space.vectors)
    for query, own in enumerate(positives):
        first = {row for row in range(len(d)) if q[query] @ d[row] > max(q[query] @ d[p] for p in own)}
        second = {
            row for row in range(len(d)) if row not in own and q[query] @ d[row] > max(d[p] @ d[row] for p in own)
        }
        expected = sorted(first & second)
        if expected or fallback == "none" or not second:
            assert kept(marked, query) == expected
        elif fallback == "nearest":
            assert kept(marked, query) == [max(second, key=lambda row: q[query] @ d[row])]
        else:
            found = kept(marked, query)
            assert max(second, key=lambda row: q[query] @ d[row]) in found
            assert set(found) <= second
    assert (marked.document == run.document).all()
    again = quietly(rule, marked)
    assert (again.keep == marked.keep).all()
    assert (again.reason == marked.reason).all()
    if fallback == "none" and all(len(own) == 1 for own in positives):
        order = run.document.reshape(len(q), -1)
        mask = closer_than_positive_mask(
            space._queries, space.vectors[[own[0] for own in positives]], space.vectors[order]
        )
        assert (mask.ravel() == marked.keep).all()


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_larger_margins_keep_subsets(case, one, two):
    space, positives = case
    run = space.run(positives)
    loose = quietly(CloserThanPositive(space), run).keep
    for options in ({"query_margin": one}, {"positive_margin": two}, {"query_margin": one, "positive_margin": two}):
        assert not (quietly(CloserThanPositive(space, **options), run).keep & ~loose).any()


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 10**6))
def test_turning_and_reflecting_the_space_changes_nothing(case, seed):
    space, positives = case
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    turned = Space(space._queries @ turn, space.vectors @ turn)
    one = quietly(CloserThanPositive(space), space.run(positives))
    two = quietly(CloserThanPositive(turned), turned.run(positives))
    assert (one.keep == two.keep).all()


@settings(max_examples=30, deadline=None)
@given(cases())
def test_it_commutes_with_other_filters_and_does_not_depend_on_blocks(case):
    space, positives = case
    run = space.run(positives)
    triangle, known = CloserThanPositive(space), KnownPositives()
    one, two = quietly(known, quietly(triangle, run)), quietly(triangle, quietly(known, run))
    assert (one.keep == two.keep).all()
    assert (one.label == two.label).all()
    for query in range(len(positives)):
        alone = quietly(triangle, run.take([query]))
        assert kept(alone) == kept(quietly(triangle, run), query)


def test_memory_maps_and_other_dtypes_mark_alike(tmp_path):
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((40, 8)).astype(np.float32)
    queries = generator.standard_normal((5, 8)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    spaces = [rows, rows.astype(np.float64), np.asfortranarray(rows), np.load(tmp_path / "rows.npy", mmap_mode="r")]
    marks = []
    for vectors in spaces:
        space = Space(queries, rows)
        space.vectors = vectors
        marks.append(CloserThanPositive(space)(space.run([[0], [1], [2], [3], [4]])).keep)
    assert all((mark == marks[0]).all() for mark in marks)


def test_the_second_condition_takes_out_planted_copies_of_the_positive():
    """Of 200 queries each with 3 unlabelled right answers near its positive: how many the rule still keeps."""
    generator = np.random.default_rng(4)
    centre = generator.standard_normal((200, 16))
    positive = centre + 0.5 * generator.standard_normal((200, 16))
    planted = np.repeat(positive, 3, axis=0) + 0.15 * generator.standard_normal((600, 16))
    others = np.repeat(centre, 5, axis=0) + 0.6 * generator.standard_normal((1000, 16))
    documents = np.concatenate([positive, planted, others])
    space = Space(centre, documents)
    lists = [[*range(200 + 3 * q, 203 + 3 * q), *range(800 + 5 * q, 805 + 5 * q)] for q in range(200)]
    run = space.run([[q] for q in range(200)], lists)
    marked = CloserThanPositive(space)(run)
    wrong = (run.document >= 200) & (run.document < 800)
    by_first = ~marked.where_reason(FIRST)
    assert (marked.keep & wrong).sum() == 0
    assert (by_first & wrong).sum() > 120  # the first condition alone accepts a quarter of them
    assert marked.keep.sum() > 100  # and hard negatives are left


def test_with_positive_aware_it_leaves_nothing_and_says_so():
    space = Space(plane(0), plane(40, -20, 45, 25))
    run = space.run([[0]], [[1, 2, 3]])
    run = run.rescored(np.cos(np.radians([20, 45, 25])), scorer="plane", positive_score=[np.cos(np.radians(40))])
    with pytest.warns(UserWarning, match="opposite of the first condition"):
        CloserThanPositive(space)(PositiveAware(absolute=0.0)(run))


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query_margin": -0.1}, "query_margin must be a number, 0 or more"),
        ({"positive_margin": float("nan")}, "positive_margin must be a number"),
        ({"fallback": "random"}, "fallback must be"),
        ({"step": 0.0}, "step must be a number above 0"),
        ({"without_positive": "skip"}, "without_positive must be one of"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(RivalsError, match=said):
        CloserThanPositive(Space(plane(0), plane(40)), **options)


def test_runs_that_do_not_fit():
    space = Space(plane(0, 10), plane(40, 20))
    lonely = space.run([[0], []])
    with pytest.raises(RivalsError, match="query 'q1' has no positive"):
        CloserThanPositive(space)(lonely)
    assert kept(CloserThanPositive(space, without_positive="keep")(lonely), 1) == [0, 1]
    assert kept(quietly(CloserThanPositive(space, without_positive="mark"), lonely), 1) == []
    silent = Space(plane(0), np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(RivalsError, match="document 'd001' have no distance"):
        CloserThanPositive(silent)(silent.run([[0]]))
    with pytest.raises(RivalsError, match="gives no vectors"):
        CloserThanPositive("dense")(space.run([[0], [1]]))
    with pytest.raises(RivalsError, match="different documents"):
        CloserThanPositive(space)(
            silent.run([[0]])
            .take([0])
            .__class__.build(Collection(["q0"]), Collection(["x", "y"]), [0, 1], [0], [0.1], positives=([0, 1], [1]))
        )


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((plane(0), plane(40), plane(1, 2)), {}, "are needed"),
        ((plane(0), plane(40, 50), plane(1)[None]), {}, "are needed"),
        ((plane(0), plane(40), plane(1)[None]), {"mask": [[True, False]]}, "mask"),
        ((plane(0), plane(40), plane(1)[None]), {"query_margin": -1}, "margins must be"),
        ((np.zeros((1, 2)), plane(40), plane(1)[None]), {}, "a query vector has length 0"),
    ],
)
def test_the_mask_needs_what_fits(arguments, options, said):
    with pytest.raises(RivalsError, match=said):
        closer_than_positive_mask(*arguments, **options)


def test_masked_candidates_are_not_looked_at():
    candidates = np.concatenate([plane(-20), [[0.0, 0.0]], [[np.nan, 1.0]]])[None]
    mask = closer_than_positive_mask(plane(0), plane(40), candidates, [[True, False, False]])
    assert mask.tolist() == [[True, False, False]]
