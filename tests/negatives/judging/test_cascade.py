"""The cascade of paper 26: who is asked, what becomes of what is confirmed, and the way back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.negatives import Duplicates, KnownPositives, PositiveAware, Top, mine_hard_negatives
from rivals.negatives.judging import Cascade, CascadeReport, LabelJudge, ListJudge, with_relabelled
from rivals.retrieve import BM25
from tests.negatives.judging.models import RuleJudge, RuleModel
from tests.negatives.judging.test_prompted import pick_wet
from tests.negatives.test_roles import same


def flags(*pairs: str, name: str = "rule") -> RuleJudge:
    """A judge that flags the pairs given as "q0 d1"."""
    flagged = {tuple(pair.split()) for pair in pairs}
    return RuleJudge(lambda q, d: float((q, d) in flagged), name)


@pytest.fixture
def instance() -> Run:
    """One query: positive p, negatives a, b, c."""
    documents = Collection(["a", "b", "c", "p"], ["a", "b", "c", "p"])
    return Run.build(
        Collection(["q"], ["?"]),
        documents,
        [0, 3],
        [0, 1, 2],
        [0.9, 0.8, 0.7],
        positives=([0, 1], [3]),
        positive_score=[1.0],
    )


def names(run: Run, rows: np.ndarray) -> list[str]:
    return run.documents.ids[rows].tolist()


def negatives(run: Run) -> list[str]:
    return names(run, run.document[run.keep & (run.label != 1)])


def test_stage_two_decides(instance):
    cheap, strong = flags("q b", name="cheap"), flags("q b", "q c", name="strong")
    run, report = Cascade([cheap, strong]).clean(instance)
    assert (names(run, run.positive), negatives(run)) == (["b", "c", "p"], ["a"])
    np.testing.assert_array_equal(run.positive_score, np.float32([0.8, 0.7, 1.0]))
    assert run.positive_relevance.tolist() == [1, 1, 1]
    assert run.label.tolist() == [-1, 1, 1]
    assert run.reasons_of(1) == ["flagged by cheap", "relabelled by strong"]
    assert run.reasons_of(2) == ["relabelled by strong"]
    assert report.relabelled == 2
    assert report.histogram == {2: 1}
    assert strong.asked == [("q", "a"), ("q", "b"), ("q", "c")]  # the whole instance again


def test_restrict_only_confirms(instance):
    cheap, strong = flags("q b", name="cheap"), flags("q b", "q c", name="strong")
    run = Cascade([cheap, strong], restrict=True)(instance)
    assert (names(run, run.positive), negatives(run)) == (["b", "p"], ["a", "c"])
    assert strong.asked == [("q", "b")]


def test_nothing_flagged_asks_nobody_else(instance):
    cheap, strong = flags(name="cheap"), flags("q a", name="strong")
    run, report = Cascade([cheap, strong]).clean(instance)
    assert strong.calls == []
    same(run.replace(reasons=()), instance)
    assert report.changes == ()
    assert report.instances == 1


def many(count: int) -> Run:
    """One query with ten candidates, after a query of its own."""
    ids = [f"d{i:02d}" for i in range(11)]
    return Run.build(
        Collection(["q", "r"]), Collection(ids), [0, 10, 12], [*range(1, 11), 1, 2], np.linspace(1, 0, 12),
        positives=([0, 1, 2], [0, 0]), positive_score=[1.0, 1.0],
    )  # fmt: skip


@pytest.mark.parametrize("confirmed", [7, 8])
def test_too_many_drop_the_instance(confirmed):
    judge = flags(*(f"q d{i:02d}" for i in range(1, confirmed + 1)))
    run, report = Cascade([judge]).clean(many(10))
    if confirmed == 7:
        assert report.removed == ()
        assert len(run.positive) == 2 + 7
        assert int((run.keep & (run.query == 0)).sum()) == 3
    else:
        assert report.removed == ("q",)
        assert report.too_many == 1
        assert not run.keep[run.query == 0].any()
        assert run.keep[run.query == 1].all()
        assert len(run.positive) == 2
        assert not (run.label == 1).any()
        assert report.remaining(run).queries.ids.tolist() == ["r"]
    assert Cascade([judge], max_relabelled=8).clean(many(10)).report.too_many == 0


def test_the_three_modes():
    run, judge = many(10), flags("q d01", "q d02")
    relabelled, taken, removed = (Cascade([judge], mode=mode).clean(run) for mode in ("relabel", "remove_hn", "remove"))
    kept = [int((cleaned.run.keep & (cleaned.run.label != 1)).sum()) for cleaned in (relabelled, taken, removed)]
    assert kept == [10, 10, 2]
    assert len(relabelled.run.positive) + kept[0] == len(run.positive) + len(run)  # |P| + |N| is constant
    for cleaned in (taken, removed):
        np.testing.assert_array_equal(cleaned.run.positive, run.positive)
        np.testing.assert_array_equal(cleaned.run.label, run.label)
    assert taken.report.removed_candidates == 2
    assert taken.report.removed == ()
    assert removed.report.removed == ("q",)
    assert removed.report.too_many == 0
    assert taken.run.reasons_of(0) == ["relevant by rule"]
    assert len(removed.report.remaining(removed.run).queries) == 1


def test_sixty_candidates_are_three_calls_and_one_instance():
    texts = ["positive", *(f"{'wet' if i in (3, 30, 59) else 'dry'} {i}" for i in range(60))]
    documents = Collection([f"d{i:02d}" for i in range(61)], texts)
    run = Run.build(
        Collection(["q"], ["wet?"]), documents, [0, 60], range(1, 61), np.linspace(1, 0, 60), positives=([0, 1], [0])
    )
    model = RuleModel(pick_wet)
    report = Cascade([ListJudge(model)]).clean(run).report
    assert len(model.prompts) == 3
    assert report.stages[0].asked == 3
    assert sorted(change.document_id for change in report.changes) == ["d04", "d31", "d60"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["relabel", "remove_hn", "remove"]),
    st.booleans(),
    st.sampled_from(["kept", "marked", "all"]),
)
def test_a_second_pass_changes_nothing_and_undo_restores_all(make_run, seed, mode, restrict, ask):
    generator = np.random.default_rng(seed)
    verdicts = generator.choice([0.0, 1.0, math.nan], (2, 4, 8), p=[0.6, 0.3, 0.1])
    judges = [
        RuleJudge(lambda q, d, table=table: table[int(q[1:])][int(d[1:])], name)
        for name, table in zip(("cheap", "strong"), verdicts, strict=True)
    ]
    run = make_run(generator.random((4, 8)), [[0], [3, 1], [2], [5, 6, 7]])  # one query's positives are not in order
    run = run.mark(generator.random(len(run)) < 0.3, "another")
    cascade = Cascade(judges, mode=mode, restrict=restrict, ask=ask, max_relabelled=2)
    once, report = cascade.clean(run)
    twice, again = cascade.clean(once)
    same(twice, once)
    assert again.changes == ()
    assert again.relabelled == 0
    same(report.undo(once), run)
    assert once.document.tolist() == run.document.tolist()
    assert not (once.keep & ~run.keep).any()
    assert not (once.keep & (once.label == 1)).any()  # a labelled positive is never a negative
    assert sum(report.histogram.values()) == report.instances
    assert CascadeReport.from_json(report.to_json()) == report


def test_undo_leaves_what_others_did_since(instance):
    run, report = Cascade([flags("q b")]).clean(instance)
    later = run.mark(np.array([False, True, True]), "later")
    back = report.undo(later)
    assert back.keep.tolist() == [True, False, False]
    assert back.reasons_of(1) == ["later"]
    assert back.label.tolist() == [-1, -1, -1]
    assert names(back, back.positive) == ["p"]
    with pytest.raises(RivalsError, match="query 'q' has no candidate 'b' in this run"):
        report.undo(instance.select(np.array([True, False, True])))


def test_unreadable_answers_flag_nothing_and_are_counted(instance):
    model = RuleModel(lambda text: "I flag them all, I think.")
    run, report = Cascade([ListJudge(model, name="lost")]).clean(instance)
    assert report.stages[0].unreadable == 1
    assert report.stages[0].unknown == 3
    assert run.keep.all()
    assert run.where_reason("judge lost could not tell").all()


def test_suspects_of_a_filter_are_relabelled(instance):
    run = instance.mark(np.array([True, True, False]), "suspect")
    judge = flags("q b", "q c")
    cleaned = Cascade([judge], ask="marked")(run)
    assert judge.asked == [("q", "a"), ("q", "b")]
    assert names(cleaned, cleaned.positive) == ["b", "p"]
    assert cleaned.keep.tolist() == [False, False, True]


def test_queries_without_positives(instance):
    lonely = instance.replace(
        positive_offsets=np.array([0, 0]),
        positive=np.zeros(0, np.int64),
        positive_score=np.zeros(0, np.float32),
        positive_relevance=np.zeros(0, np.float32),
    )
    with pytest.raises(RivalsError, match=r"query 'q' has no positive .*1 of 1 queries"):
        Cascade([flags("q a")])(lonely)
    cleaned, report = Cascade([flags("q a")], without_positive="keep").clean(lonely)
    assert cleaned.keep.all()
    assert report.unjudged == 1
    assert report.instances == 0


def test_counts_by_a_column(make_run):
    run = make_run([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8]], [[0], [0], [0]])
    tagged = run.replace(queries=Collection(run.queries.ids.tolist(), columns={"set": ["nq", "fever", "nq"]}))
    report = (
        Cascade([flags("q0 d001", "q1 d001", name="one"), flags("q0 d001", name="two")], by="set").clean(tagged).report
    )
    assert report.by == {"fever": (1, 1, 0), "nq": (2, 1, 1)}
    assert report.without_negative == 1  # q0 has no candidate left
    assert "nq: 2 instances, 1 flagged, 1 confirmed" in str(report)
    with pytest.raises(RivalsError, match="queries have no column 'task'; they have id"):
        Cascade([flags("q0 d001")], by="task")(run)


# ------------------------------------------------------------------------------------------------ with mining and training


@pytest.fixture
def mining() -> tuple[Dataset, LabelJudge]:
    """Six queries with two answers each, of which one is labelled; the other is a planted false negative."""
    topics = ["amber", "basalt", "cobalt", "dolomite", "emerald", "feldspar"]
    texts = [f"{topic} {word} stone" for topic in topics for word in ("first", "second", "wrong")]
    documents = Collection([f"d{i:02d}" for i in range(18)], texts)
    queries = Collection([f"q{i}" for i in range(6)], [f"{topic} first second stone" for topic in topics], name="query")
    people = Judgements.build(range(6), range(0, 18, 3), [1] * 6, queries=6, documents=18)
    truth = {(f"q{i}", f"d{j:02d}"): float(j // 3 == i and j % 3 < 2) for i in range(6) for j in range(18)}
    return Dataset(queries, documents, people), LabelJudge(truth)


@pytest.mark.parametrize("block", [None, 1, 4])
def test_mining_in_blocks_relabels_what_was_planted(mining, block):
    dataset, judge = mining
    cascade = Cascade([judge])
    mined = mine_hard_negatives(
        BM25(dataset.documents), dataset, filters=[cascade], sampler=Top(2), top_k=8, block=block, show=False
    )
    assert mined.run.positive_offsets.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert mined.run.positive.tolist() == [i for i in range(18) if i % 3 < 2]
    assert mined.audit.reasons["relabelled by labels"].marked == 6
    assert len(cascade.reports) == (1 if block is None else -(-6 // block))
    report = CascadeReport.joined(cascade.reports)
    assert report.relabelled == 6
    assert report.histogram == {1: 6}
    drawn = set(zip(mined.negatives.query.tolist(), mined.negatives.document.tolist(), strict=True))
    assert not any(document // 3 == query and document % 3 < 2 for query, document in drawn)
    cleaned = with_relabelled(dataset, mined.run)
    assert len(cleaned.judgements.positives) == 12
    assert cleaned.report["judgements relabelled as relevant"] == 6
    before = BM25(dataset.documents)(dataset, 8)
    before = Duplicates()(KnownPositives()(before))
    same(report.undo(mined.run).replace(queries=before.queries), before)  # blocks join to an equal collection


def test_relabelled_judgements_of_a_part(mining):
    dataset, judge = mining
    doubted = Judgements.build(
        [0, 0, 1], [0, 1, 3], [2, 0, 1], queries=6, documents=18
    )  # q0's second answer was judged wrong
    dataset = Dataset(dataset.queries, dataset.documents, doubted)
    run = Cascade([judge])(BM25(dataset.documents)(dataset.take([1, 0]), 8))
    cleaned = with_relabelled(dataset, run).judgements
    assert (cleaned.query.tolist(), cleaned.document.tolist()) == ([0, 0, 1, 1], [0, 1, 3, 4])
    assert cleaned.relevance.tolist() == [2, 1, 1, 1]
    with pytest.raises(RivalsError, match="different documents"):
        with_relabelled(
            Dataset(dataset.queries, Collection(["z"]), Judgements.build([], [], [], queries=6, documents=1)), run
        )


def test_later_filters_see_the_new_positives(instance):
    run = (Cascade([flags("q c")]) >> PositiveAware(absolute=0.05))(instance)
    assert run.keep.tolist() == [False, False, False]  # c, 0.7, is a positive now, and b and a lie above it


def test_faulty_options_are_named(instance):
    judge = flags("q a")
    with pytest.raises(RivalsError, match="Cascade got no judge"):
        Cascade([])
    with pytest.raises(RivalsError, match="different names, not rule, rule"):
        Cascade([judge, judge])
    with pytest.raises(RivalsError, match="mode must be one of relabel, remove_hn, remove"):
        Cascade([judge], mode="drop")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="max_relabelled must be"):
        Cascade([judge], max_relabelled=0)
    with pytest.raises(RivalsError, match=r"threshold must lie in \[0, 1\)"):
        Cascade([judge], threshold=1)
    with pytest.raises(RivalsError, match="no report to join"):
        CascadeReport.joined(Cascade([judge]).reports)
    with pytest.raises(RivalsError, match="different cascades"):
        CascadeReport.joined([CascadeReport(), CascadeReport(mode="remove")])
    with pytest.raises(RivalsError, match="no cascade report"):
        CascadeReport.from_json('{"stages": 3}')
    assert repr(Cascade([flags(name="cheap"), judge])) == "Cascade(cheap -> rule, relabel)"
