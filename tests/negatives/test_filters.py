"""Filters: card 13's hand values, the recorded vectors, and the laws every filter obeys."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import (
    Duplicates,
    KnownPositives,
    PositiveAware,
    Top,
    positive_aware_mask,
    top_k_abs,
    top_k_margin_pos,
    top_k_perc_pos,
)

PAPER_13 = "013-nv-retriever-improving-text-embedding-models-with-effective.json"


def kept(run: Run, query: int = 0) -> list[int]:
    rows = slice(run.offsets[query], run.offsets[query + 1])
    return run.document[rows][run.keep[rows] & (run.label[rows] != 1)].tolist()


# ------------------------------------------------------------------------------------------------------ hand values


def test_percentage_and_margin_differ_as_in_the_card(make_run):
    run = KnownPositives()(make_run([[0.8, 0.755, 0.745]], [[0]]))
    assert kept(PositiveAware(relative=0.05)(run)) == [1, 2]  # limit 0.76
    assert kept(PositiveAware(absolute=0.05)(run)) == [2]  # limit 0.75


def test_negative_positive_scores_lower_the_limit(make_run):
    run = KnownPositives()(make_run([[-0.2, -0.195, -0.205, -0.215]], [[0]]))
    assert kept(PositiveAware(relative=0.05)(run)) == [3]  # limit -0.21, not -0.19


@pytest.mark.parametrize(("strict", "expected"), [(False, [1, 2]), (True, [2])])
def test_exact_ties_are_kept_unless_strict(make_run, strict, expected):
    run = KnownPositives()(make_run([[0.5, 0.25, 0.125]], [[0]]))
    assert kept(PositiveAware(absolute=0.25, strict=strict)(run)) == expected
    assert kept(PositiveAware(relative=0.5, strict=strict)(run)) == expected


@pytest.mark.parametrize(("anchor", "limit"), [("min", 0.6), ("max", 0.9), ("mean", 0.75)])
def test_several_positives_are_anchored_at_one(make_run, anchor, limit):
    scores = [0.9, 0.6, 0.85, 0.7, 0.55]
    run = KnownPositives()(make_run([scores], [[0, 1]]))
    expected = [row for row in (2, 3, 4) if scores[row] <= limit - 0.01]
    assert kept(PositiveAware(absolute=0.01, anchor=anchor)(run)) == expected


def test_extreme_margins(make_run):
    run = KnownPositives()(make_run([[0.8, 0.9, 0.79, 0.1, 0.0, -0.3]], [[0]]))
    assert kept(PositiveAware(relative=1e-6)(run)) == [2, 3, 4, 5]  # everything below the positive
    assert kept(PositiveAware(relative=1 - 1e-7)(run)) == [4, 5]  # only s <= 0 (up to rounding)


def test_thresholds_are_computed_in_the_scores_dtype():
    scores, positive = np.array([[0.46]], np.float32), np.array([0.51], np.float32)
    assert positive_aware_mask(scores, positive, absolute=0.05).item()  # a tie in float32, not in float64
    assert not positive_aware_mask(scores.astype(np.float64), positive.astype(np.float64), absolute=0.05).item()


def test_presets_are_the_papers_rules():
    assert top_k_perc_pos(0.95) == PositiveAware(relative=0.05)
    assert top_k_margin_pos(0.05) == PositiveAware(absolute=0.05)
    assert top_k_abs(0.7) == PositiveAware(max_score=0.7)


def test_every_rule_has_a_reason_of_its_own(make_run):
    run = PositiveAware(relative=0.05, absolute=0.1, max_score=0.9, min_score=0.2)(
        make_run([[0.8, 0.95, 0.78, 0.72, 0.5, 0.1]], [[0]])
    )
    named = {int(run.document[row]): run.reasons_of(row) for row in range(len(run))}
    relative, absolute = "positive-aware relative 0.05", "positive-aware absolute 0.1"
    assert named[1] == [relative, absolute, "score above 0.9"]
    assert (named[2], named[3], named[4], named[5]) == ([relative, absolute], [absolute], [], ["score below 0.2"])


# -------------------------------------------------------------------------------------------------- recorded vectors


def test_recorded_vectors(vectors: Path, make_run):
    """Semantics in the file's note: top (range_max + most positives), positives out, filters, skip range_min, top."""
    cases = json.loads((vectors / PAPER_13).read_text())["cases"]
    assert len(cases) >= 5
    for case in cases:
        params, positives = case["params"], case["inputs"]["positives"]
        rules = {
            "relative": params["relative_margin"],
            "absolute": params["absolute_margin"],
            "max_score": params["max_score"],
            "min_score": params["min_score"],
        }
        run = make_run(case["inputs"]["scores"], positives).top(params["range_max"] + max(map(len, positives)))
        run = KnownPositives()(run)
        if any(value is not None for value in rules.values()):
            run = PositiveAware(**rules)(run)
        draw = Top(params["num_negatives"], skip=params["range_min"]).draw(run, np.random.default_rng(0))
        found = [row[mask].tolist() for row, mask in zip(draw.candidate, draw.mask, strict=True)]
        assert found == case["output"]["negatives"], case["name"]


def reference(scores, positives, *, relative, absolute, max_score, min_score, examined, skip, k):
    """The reference code's order of operations, one query at a time, in float32 (sentence-transformers 6.2)."""
    lists = []
    for row, own in zip(np.asarray(scores, np.float32), positives, strict=True):
        anchor = min(row[p] for p in own)
        order = sorted(range(len(row)), key=lambda d: (-row[d], -d))[:examined]
        alive = []
        for d in order:
            if d in own:
                continue
            if absolute is not None and row[d] + np.float32(absolute) > anchor:
                continue
            if relative is not None and row[d] > anchor - abs(anchor) * np.float32(relative):
                continue
            if max_score is not None and row[d] > np.float32(max_score):
                continue
            if min_score is not None and row[d] < np.float32(min_score):
                continue
            alive.append(d)
        lists.append(alive[skip : skip + k])
    return lists


@st.composite
def mining_cases(draw):
    queries, documents = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    levels = st.sampled_from([-0.5, -0.25, 0.0, 0.125, 0.25, 0.5, 0.71, 0.75, 0.8])  # many ties
    score = st.one_of(levels, st.floats(-1, 1, width=32, allow_nan=False))
    scores = [[draw(score) for _ in range(documents)] for _ in range(queries)]
    some = st.lists(st.integers(0, documents - 1), min_size=1, max_size=min(3, documents), unique=True)
    positives = [sorted(draw(some)) for _ in range(queries)]
    margin = st.one_of(st.none(), st.sampled_from([0.05, 0.25, 0.5]))
    bound = st.one_of(st.none(), st.sampled_from([-0.25, 0.0, 0.7]))
    low, high = draw(bound), draw(bound)
    assume(low is None or high is None or low <= high)
    rules = {"relative": draw(margin), "absolute": draw(margin), "max_score": high, "min_score": low}
    return scores, positives, rules, draw(st.integers(1, documents)), draw(st.integers(0, 3)), draw(st.integers(1, 5))


@settings(max_examples=150, deadline=None)
@given(mining_cases())
def test_equals_the_reference_loop(make_run, case):
    scores, positives, rules, examined, skip, k = case
    run = KnownPositives()(make_run(scores, positives).top(examined))
    if any(value is not None for value in rules.values()):
        run = PositiveAware(**rules)(run)
    draw = Top(k, skip=skip).draw_available(run, np.random.default_rng(0))
    found = [row[mask].tolist() for row, mask in zip(draw.candidate, draw.mask, strict=True)]
    assert found == reference(scores, positives, **rules, examined=examined, skip=skip, k=k)
    assert draw.unfilled == sum(k - len(row) for row in found)


# --------------------------------------------------------------------------------------------------------------- laws

FILTERS = [
    KnownPositives(),
    Duplicates(),
    PositiveAware(relative=0.05),
    PositiveAware(absolute=0.1, strict=True),
    PositiveAware(max_score=0.7, min_score=-0.2),
]


@settings(max_examples=60, deadline=None)
@given(mining_cases(), st.permutations(range(len(FILTERS))))
def test_filters_only_mark_are_idempotent_and_commute(make_run, case, order):
    scores, positives, *_ = case
    texts = [f"text {i % 3}" for i in range(len(scores[0]))]
    run = make_run(scores, positives, texts=texts)
    for rule in FILTERS:
        once = rule(run)
        assert (once.document == run.document).all()
        assert (once.score == run.score).all()
        assert (once.offsets == run.offsets).all()
        assert not (once.keep & ~run.keep).any()
        assert ((once.reason != 0) == ~once.keep).all()
        twice = rule(once)
        assert twice.reasons == once.reasons
        assert (twice.reason == once.reason).all()
        assert (twice.keep == once.keep).all()
    chained, shuffled = run, run
    for i in range(len(FILTERS)):
        chained, shuffled = FILTERS[i](chained), FILTERS[order[i]](shuffled)
    assert (chained.keep == shuffled.keep).all()
    assert (chained.label == shuffled.label).all()
    assert set(chained.reasons) == set(shuffled.reasons)
    for reason in chained.reasons:
        assert (chained.where_reason(reason) == shuffled.where_reason(reason)).all()


@settings(max_examples=60, deadline=None)
@given(mining_cases(), st.floats(0.01, 0.98), st.floats(0.01, 0.98), st.booleans())
def test_larger_margins_keep_subsets(make_run, case, one, other, strict):
    scores, positives, *_ = case
    run = make_run(scores, positives)
    small, large = sorted((one, other))
    for name in ("relative", "absolute"):
        loose = PositiveAware(**{name: small}, strict=strict)(run).keep
        tight = PositiveAware(**{name: large}, strict=strict)(run).keep
        assert not (tight & ~loose).any()
        assert not (PositiveAware(**{name: small}, strict=True)(run).keep & ~loose).any()


@settings(max_examples=60, deadline=None)
@given(mining_cases())
def test_ragged_and_padded_and_torch_agree(make_run, case):
    scores, positives, rules, *_ = case
    assume(any(value is not None for value in rules.values()))
    run = make_run(scores, positives)
    anchor = np.array([min(np.float32(row[p]) for p in own) for row, own in zip(scores, positives, strict=True)])
    padded = positive_aware_mask(run.padded("score", fill=0), anchor, **rules)
    assert (padded.ravel() == PositiveAware(**rules)(run).keep).all()
    tensor = positive_aware_mask(torch.tensor(run.padded("score", fill=0)), torch.tensor(anchor), **rules)
    assert (tensor.numpy() == padded).all()


def test_masked_candidates_are_ignored_wherever_they_stand():
    scores, positive = np.array([[0.3, np.nan, 0.9]]), np.array([0.8])
    mask = np.array([[True, False, True]])
    assert positive_aware_mask(scores, positive, mask, relative=0.05).tolist() == [[True, False, False]]
    half = positive_aware_mask(
        torch.tensor(scores).bfloat16(), torch.tensor(positive), torch.tensor(mask), relative=0.05
    )
    assert half.tolist() == [[True, False, False]]


# --------------------------------------------------------------------------------------------- texts and known labels


def test_known_positives_are_found_by_list_and_by_label(make_run):
    run = make_run([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]], [[1], [0, 2]])
    run = run.replace(label=np.where(run.document == 0, 1, run.label))
    marked = KnownPositives()(run)
    assert [kept(marked, q) for q in (0, 1)] == [[2], [1]]
    assert marked.label[~marked.keep].tolist() == [1] * 4
    many = make_run(np.linspace(0, 1, 40)[None], [list(range(0, 40, 2))])  # the path for many positives
    assert sorted(kept(KnownPositives()(many))) == list(range(1, 40, 2))


def test_duplicates_of_positives_and_repeats_are_told_apart(make_run):
    texts = ["The answer.", "THE  ANSWER.", "other", "Other", "ﬁne", "fine", "alone"]
    run = Duplicates()(make_run([[0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4]], [[0]], texts=texts))
    assert run.document[run.where_reason("same text as a positive")].tolist() == [1]
    assert run.document[run.where_reason("text repeated in the list")].tolist() == [1, 3, 5]
    assert kept(KnownPositives()(run)) == [2, 4, 6]


def test_duplicates_look_within_one_query_only(make_run):
    run = Duplicates()(make_run([[0.9, 0.1], [0.2, 0.8]], [[0], [1]], texts=["a", "b"]))
    assert run.keep.all()


def test_duplicates_of_a_positive_outside_the_list(make_run):
    run = make_run([[0.9, 0.8, 0.1]], [[2]], texts=["x", "same", "same"]).top(2)
    assert kept(Duplicates()(run)) == [0]


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs a rule"),
        ({"relative": 0.0}, "between 0 and 1"),
        ({"relative": 1}, "between 0 and 1"),
        ({"relative": float("nan")}, "finite number"),
        ({"absolute": -0.1}, "0 or more"),
        ({"absolute": True}, "finite number"),
        ({"max_score": "0.7"}, "finite number"),
        ({"max_score": 0.1, "min_score": 0.2}, "mark everything"),
        ({"relative": 0.1, "anchor": "median"}, "anchor must be one of"),
        ({"relative": 0.1, "without_positive": "skip"}, "without_positive must be one of"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(RivalsError, match=said):
        PositiveAware(**options)


def test_unscored_positives_are_named(make_run):
    run = make_run([[0.9, 0.8], [0.5, 0.4]], [[0], [1]])
    run = run.replace(positive_score=np.array([0.9, np.nan], np.float32))
    with pytest.raises(RivalsError, match="query 'q1': its positive 'd001' has no score"):
        PositiveAware(relative=0.05)(run)
    assert PositiveAware(max_score=0.7)(run).keep.sum() == 2  # needs no positive score


def test_queries_without_positive_have_a_defined_outcome(make_run):
    run = make_run([[0.9, 0.8], [0.9, 0.4]], [[1], []])
    with pytest.raises(RivalsError, match=r"query 'q1' has no positive .*1 of 2"):
        PositiveAware(relative=0.05)(run)
    keeping = PositiveAware(relative=0.05, max_score=0.85, without_positive="keep")(run)
    assert [kept(keeping, q) for q in (0, 1)] == [[], [1]]
    marking = PositiveAware(relative=0.05, without_positive="mark")(run)
    assert [kept(marking, q) for q in (0, 1)] == [[], []]
    assert marking.where_reason("query without positive").tolist() == [False, False, True, True]


def test_functional_core_refuses_bad_arrays():
    for scores, positive, said in [
        ([[0.1, np.nan]], [0.5], "score is NaN"),
        ([[0.1, 0.2]], [np.nan], "positive score of list 0"),
        ([[0.1, 0.2]], [0.5, 0.5], "one positive score a list"),
    ]:
        with pytest.raises(RivalsError, match=said):
            positive_aware_mask(scores, positive, relative=0.05)
    with pytest.raises(RivalsError, match="same shape"):
        positive_aware_mask([[0.1]], [0.5], [[True, True]], relative=0.05)


def test_duplicates_need_texts(make_run):
    with pytest.raises(RivalsError, match="have none"):
        Duplicates()(make_run([[0.1, 0.2]]))


def test_relative_margins_on_unbounded_scores_warn_once(make_run):
    run = make_run([[12.0, 3.0]], [[0]], score_kind="dot")
    with pytest.warns(UserWarning, match="unbounded"):
        PositiveAware(relative=0.0437)(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PositiveAware(relative=0.0437)(run)
        PositiveAware(relative=0.05)(make_run([[12.0, 3.0]], [[0]], score_kind="bm25"))
        PositiveAware(absolute=0.05)(run)


def test_empty_runs_pass_through(make_run):
    queries, documents = Collection(["q"], name="query"), Collection(["a"], ["x"])
    run = Run.build(queries, documents, [0, 0], [], [])
    for rule in FILTERS:
        assert len(rule(run)) == 0
