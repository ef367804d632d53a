"""Filters on verdicts: the margin of paper 7, the verification of paper 9."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Run
from rivals.errors import RivalsError
from rivals.negatives import KnownPositives, PositiveAware
from rivals.negatives.judging import JudgeThreshold, LabelJudge, SoftTargets, Verify
from rivals.negatives.judging.filters import to_ask
from tests.negatives.judging.models import RuleJudge
from tests.negatives.test_roles import same


def judge_of(matrix: list[list[float]], name: str = "rule") -> RuleJudge:
    return RuleJudge(lambda q, d: matrix[int(q[1:])][int(d[1:])], name)


def test_the_margin_of_the_paper(make_run):
    run = KnownPositives()(make_run([[0.9, 0.8, 0.7, 0.6]], [[0]]))
    marked = JudgeThreshold(judge_of([[0.72, 0.70999, 0.72, 0.71]]))(run)  # s <= 0.72 - 0.01 stays, equality too
    assert marked.keep.tolist() == [False, True, False, True]
    assert marked.reasons_of(2) == ["judge rule margin 0.01"]
    np.testing.assert_array_equal(marked.target, np.float32([np.nan, 0.70999, 0.72, 0.71]))
    assert marked.score.tolist() == run.score.tolist()


def test_it_is_positive_aware_on_the_judges_scores(make_run):
    generator = np.random.default_rng(3)
    matrix = generator.random((4, 9)).astype(np.float32)
    run = KnownPositives()(make_run(matrix, [[0], [1, 2], [3], [4]]))
    judge = judge_of(matrix.tolist())
    for anchor in ("min", "max", "mean"):
        ours = JudgeThreshold(judge, margin=0.1, anchor=anchor)(run)
        theirs = PositiveAware(absolute=0.1, anchor=anchor)(run)
        np.testing.assert_array_equal(ours.keep, theirs.keep)
    np.testing.assert_array_equal(
        JudgeThreshold(judge, threshold=0.6)(run).keep, PositiveAware(max_score=0.6)(run).keep
    )


def test_the_share_of_the_positives_score(make_run):
    run = KnownPositives()(make_run([[0.9, 0.8, 0.7, 0.6]], [[0]]))
    judge = judge_of([[0.9, 0.856, 0.854, 0.1]])  # 95 % of 0.9 is 0.855
    marked = JudgeThreshold(judge, relative=0.05)(run)
    assert marked.keep.tolist() == [False, False, True, True]
    assert marked.reasons_of(1) == ["judge rule relative 0.05"]
    both = JudgeThreshold(judge, margin=0.05, relative=0.05)(run)
    assert JudgeThreshold(judge, margin=0.05, relative=0.05).reasons == tuple(both.reasons_of(1))
    assert both.keep.tolist() == [False, False, False, True]  # 0.854 > 0.9 - 0.05
    assert both.reasons_of(1) == ["judge rule margin 0.05", "judge rule relative 0.05"]


def test_targets_without_marks(make_run):
    run = KnownPositives()(make_run([[0.9, 0.8, 0.7]], [[0]])).replace(target=[0.5, 0.25, 0.75])
    soft = SoftTargets(judge_of([[0.9, 1.0, math.nan]]))(run)
    assert soft.target.tolist() == [0.5, 1.0, 0.75]
    assert soft.keep.tolist() == [False, True, True]
    assert soft.reasons_of(2) == ["judge rule could not tell"]
    same(SoftTargets(judge_of([[0.9, 1.0, math.nan]]))(soft), soft)
    assert repr(SoftTargets(judge_of([[0.0]]))) == "SoftTargets(rule)"


def test_a_threshold_needs_no_positive(make_run):
    judge = judge_of([[0.9, 0.2, 0.5]])
    marked = JudgeThreshold(judge, threshold=0.5)(make_run([[0.9, 0.8, 0.7]]))
    assert marked.keep.tolist() == [False, True, True]
    assert marked.reasons_of(0) == ["judge rule above 0.5"]
    with pytest.raises(RivalsError, match="query 'q0' has no positive"):
        JudgeThreshold(judge)(make_run([[0.9, 0.8, 0.7]]))
    kept = JudgeThreshold(judge, margin=0.1, without_positive="keep")(make_run([[0.9, 0.8, 0.7]]))
    assert kept.keep.all()
    assert not np.isnan(kept.target).any()
    dropped = JudgeThreshold(judge, margin=0.1, without_positive="mark")(make_run([[0.9, 0.8, 0.7]]))
    assert not dropped.keep.any()


def test_what_the_judge_cannot_tell_stays_and_is_counted(make_run):
    run = KnownPositives()(make_run([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]], [[0], [0]]))
    marked = JudgeThreshold(judge_of([[0.5, math.nan, 0.9], [math.nan, 0.4, 0.9]]))(run)
    assert marked.keep.tolist() == [False, True, False, False, True, True]
    assert marked.where_reason("judge rule could not tell").tolist() == [False, True, False, False, True, True]
    assert np.isnan(marked.target).tolist() == [True, True, False, True, False, False]


def test_a_judge_is_asked_only_where_needed(make_run):
    run = KnownPositives()(make_run([[0.9, 0.8, 0.7, 0.6]], [[0]]))
    run = run.mark(np.array([False, True, False, False]), "cheap rule")
    for ask, documents in (("kept", {"d002", "d003"}), ("marked", {"d001"}), ("all", {"d001", "d002", "d003"})):
        judge = judge_of([[1.0, 0.0, 0.0, 0.0]])
        JudgeThreshold(judge, threshold=0.5, ask=ask)(run)
        assert {document for _, document in judge.asked} == documents
    judge = judge_of([[0.5, 0.5, 0.5, 0.5]])
    all_marked = run.mark(np.ones(4, dtype=bool), "everything")
    same(JudgeThreshold(judge)(all_marked).replace(reasons=all_marked.reasons), all_marked)
    assert judge.asked == []  # the positives are not judged in vain either


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["kept", "marked", "all"]))
def test_judge_filters_are_idempotent_and_keep_rows(make_run, seed, ask):
    generator = np.random.default_rng(seed)
    matrix = generator.choice([0.0, 0.25, 0.5, 0.75, 1.0, math.nan], (3, 6)).tolist()
    run = KnownPositives()(make_run(generator.random((3, 6)), [[0], [1], [2, 3]]))
    run = run.mark(generator.random(len(run)) < 0.3, "another")
    verifiers = [judge_of(matrix, "one"), judge_of(generator.random((3, 6)).tolist(), "two")]
    for step in (JudgeThreshold(verifiers[0], margin=0.25, threshold=0.7, ask=ask), Verify(verifiers, ask=ask)):
        once = step(run)
        same(step(once), once)
        assert once.document.tolist() == run.document.tolist()
        assert not (once.keep & ~run.keep).any()
        assert (once.reason & run.reason == run.reason).all()


def test_blocks_of_queries_do_not_matter(make_run):
    generator = np.random.default_rng(5)
    scores = generator.random((6, 8))
    run = KnownPositives()(make_run(scores, [[i] for i in range(6)]))
    step = JudgeThreshold(judge_of(generator.random((6, 8)).tolist()), margin=0.2)
    whole = step(run)
    for rows in ([0, 1, 2], [3, 4, 5]):
        same_rows = whole.take(rows)
        part = step(run.take(rows))
        np.testing.assert_array_equal(part.keep, same_rows.keep)
        np.testing.assert_array_equal(part.target, same_rows.target)


# ------------------------------------------------------------------------------------------------ several verifiers


def verified(make_run, scores: list[list[float]], **options) -> Run:
    """One query, one candidate for each column; a verifier for each row."""
    run = make_run([[0.9 - 0.1 * i for i in range(len(scores[0]))]])
    return Verify([judge_of([row], f"v{i}") for i, row in enumerate(scores)], **options)(run)


def test_all_must_reject_or_one(make_run):
    scores = [[0.2, 0.2, 0.7, 0.6], [0.6, 0.3, 0.1, 0.9]]
    assert verified(make_run, scores).keep.tolist() == [False, True, False, False]
    assert verified(make_run, scores, rule="any_reject").keep.tolist() == [True, True, True, False]
    assert verified(make_run, [[0.5], [0.4]]).keep.tolist() == [False]  # at the threshold it is not rejected
    assert verified(make_run, [[0.5], [0.4]], threshold=0.6).keep.tolist() == [True]


def test_proof_is_wanted(make_run):
    marked = verified(make_run, [[0.1, math.nan, 0.9], [math.nan, 0.1, math.nan]])
    assert marked.keep.tolist() == [False, False, False]
    answers, unverified = Verify([judge_of([[0.0]], "v0"), judge_of([[0.0]], "v1")]).reasons
    assert [marked.reasons_of(row) for row in range(3)] == [[unverified], [unverified], [answers]]
    assert verified(make_run, [[0.1, math.nan]], rule="any_reject").keep.tolist() == [True, False]


def test_later_verifiers_see_what_is_open(make_run):
    for rule, second in (("all_reject", [("q0", "d000")]), ("any_reject", [("q0", "d001")])):
        judges = [judge_of([[0.1, 0.9]], "one"), judge_of([[0.1, 0.1]], "two")]
        Verify(judges, rule=rule)(make_run([[0.9, 0.8]]))
        assert judges[1].asked == second


def test_faulty_options_are_named():
    judge = LabelJudge({("q", "d"): 1})
    with pytest.raises(RivalsError, match=r"margin must lie in \[0, 1\)"):
        JudgeThreshold(judge, margin=1.0)
    with pytest.raises(RivalsError, match="absolute must be 0 or more"):
        JudgeThreshold(judge, margin=-0.1)
    with pytest.raises(RivalsError, match=r"threshold must lie in \[0, 1\)"):
        JudgeThreshold(judge, threshold=5)
    with pytest.raises(RivalsError, match="ask must be one of kept, marked, all"):
        JudgeThreshold(judge, ask="some")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="a judge has a name and a method judge"):
        JudgeThreshold("gpt")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="Verify got no judge"):
        Verify([])
    with pytest.raises(RivalsError, match="different names, not labels, labels"):
        Verify([judge, judge])
    with pytest.raises(RivalsError, match="rule must be"):
        Verify([judge], rule="most")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match=r"threshold must lie in \(0, 1\]"):
        Verify([judge], threshold=0)


def test_known_positives_are_never_asked_about(make_run):
    run = make_run([[0.9, 0.8]], [[0]])  # not yet labelled by KnownPositives
    assert to_ask(run, "all").tolist() == [False, True]
    assert repr(JudgeThreshold(judge_of([[0.0]]), margin=0.05)) == "JudgeThreshold(rule, margin=0.05)"
    assert repr(Verify([judge_of([[0.0]])])) == "Verify(rule, all_reject)"
