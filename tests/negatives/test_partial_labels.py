"""Large-loss filtering and pseudo-labels of runs: the cards' counts, loops, laws, planted positives, label stores."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.losses import AsymmetricPseudoLabeller, entropy_maximisation_loss, large_loss_fraction
from rivals.negatives import partial_labels
from rivals.negatives.filters import KnownPositives, PositiveAware
from rivals.negatives.partial_labels import (
    AsymmetricPseudoLabels,
    CorrectedLabels,
    LargeLoss,
    large_loss_judgements,
)


def run_of(scores, label=None, positives=(), kind="other"):
    matrix = np.asarray(scores, np.float32)
    queries, size = matrix.shape
    positives = positives or [[] for _ in range(queries)]
    return Run.build(
        Collection([f"q{i}" for i in range(queries)], name="query"),
        Collection([f"d{i:03}" for i in range(size)]),
        np.arange(queries + 1) * size,
        np.tile(np.arange(size), queries),
        matrix.ravel(),
        positives=(np.cumsum([0, *map(len, positives)]), [row for own in positives for row in own]),
        score_kind=kind,
        columns=None if label is None else {"label": np.asarray(label).ravel()},
    )


def by_document(run, column):
    width = len(run.documents)
    out = np.empty((len(run.queries), width), np.asarray(column).dtype)
    out[run.query, run.document] = column
    return out


# --------------------------------------------------------------------------------------------------------- large loss


def test_a_fraction_of_all_candidates_the_unjudged_with_the_highest_scores():
    scores = np.arange(20).reshape(2, 10)
    label = np.full((2, 10), -1)
    label[1, 9] = label[0, 8] = 0
    label[1, 8] = 1
    per_run = LargeLoss(0.15, per="run")(run_of(scores, label))
    assert np.argwhere(~by_document(per_run, per_run.keep)).tolist() == [[1, 5], [1, 6], [1, 7]]  # ceil(20 * .15) = 3
    per_query = LargeLoss(0.15)(run_of(scores, label))
    assert np.argwhere(~by_document(per_query, per_query.keep)).tolist() == [
        [0, 7],
        [0, 9],
        [1, 6],
        [1, 7],
    ]  # ceil(1.5)
    assert LargeLoss(0.0)(run_of(scores, label)).keep.all()
    everything = LargeLoss(1.0)(run_of(scores, label))
    assert (by_document(everything, everything.keep) == (label >= 0)).all()


def test_correcting_gives_a_target_and_leaves_the_judgements():
    run = run_of([[0.9, 0.8, 0.7, 0.6]], [[1, -1, -1, -1]])
    found = LargeLoss(0.25, "correct")(run)
    assert found.keep.tolist() == [True, False, True, True]
    assert found.label.tolist() == [1, -1, -1, -1]
    assert np.array_equal(found.target, [np.nan, 1, np.nan, np.nan], equal_nan=True)
    assert found.reasons_of(1) == ["large loss 0.25 per query"]


def test_known_positives_are_never_selected_even_without_their_label():
    run = run_of([[0.9, 0.8, 0.7, 0.6]], positives=[[0]])
    assert LargeLoss(0.25)(run).keep.tolist() == [True, False, True, True]


def test_ties_at_the_last_place_are_all_selected():
    run = run_of([[0.9, 0.8, 0.8, 0.8, 0.1]])
    assert (~LargeLoss(0.4)(run).keep).sum() == (~LargeLoss(0.4, per="run")(run).keep).sum() == 4


def test_schedule_of_the_losses_gives_the_fraction():
    rules = [LargeLoss(large_loss_fraction(epoch, scheme="reject", delta=0.1)) for epoch in (1, 2, 3)]
    run = run_of([np.linspace(1, 0, 10)])
    assert [(~rule(run).keep).sum() for rule in rules] == [0, 1, 2]


levels = st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.75])


@st.composite
def runs(draw):
    queries, size = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    scores = [[draw(levels) for _ in range(size)] for _ in range(queries)]
    label = [[draw(st.sampled_from([-1, -1, -1, 0, 1])) for _ in range(size)] for _ in range(queries)]
    return run_of(scores, label, kind="probability")


@settings(max_examples=60, deadline=None)
@given(runs(), st.floats(0, 1))
def test_per_query_equals_a_loop_and_per_run_the_loss(run, fraction):
    selected = LargeLoss(fraction).selected(run)
    for query in range(len(run.queries)):
        rows = np.arange(run.offsets[query], run.offsets[query + 1])
        free = rows[run.label[rows] < 0]
        number = min(math.ceil(fraction * len(rows) - 1e-9), len(free))
        expected = set(free[run.score[free] >= run.score[free][number - 1]]) if number else set()
        assert set(rows[selected[rows]]) == expected
    whole = LargeLoss(fraction, per="run").selected(run)
    assert not whole[run.label >= 0].any()
    if whole.any():
        assert run.score[whole].min() > run.score[(run.label < 0) & ~whole].max(initial=-1)


FILTERS = [
    LargeLoss(0.2),
    LargeLoss(0.3, "correct"),
    LargeLoss(0.3, per="run"),
    AsymmetricPseudoLabels(0.5),
    AsymmetricPseudoLabels(0.9, rounds=3, round=2),
]


@settings(max_examples=60, deadline=None)
@given(runs(), st.sampled_from(FILTERS))
def test_they_mark_only_are_idempotent_and_commute(run, rule):
    once = rule(run)
    assert (once.document == run.document).all()
    assert (once.label == run.label).all()
    assert ((once.reason != 0) == ~once.keep).all()
    twice = rule(once)
    for name in ("keep", "reason", "target", "weight"):
        assert np.array_equal(getattr(twice, name), getattr(once, name), equal_nan=True)
    for other in (KnownPositives(), PositiveAware(max_score=0.4)):
        one, two = other(rule(run)), rule(other(run))
        assert (one.keep == two.keep).all()
        assert np.array_equal(one.target, two.target, equal_nan=True)
    if getattr(rule, "per", "query") == "query":
        assert np.array_equal(rule(run.take([0])).keep, once.take([0]).keep)


def test_planted_positives_are_rejected_and_few_true_negatives():
    """400 lists of 30, 3 of them right answers that nobody judged, which a fair model scores higher."""
    generator = np.random.default_rng(0)
    planted = np.arange(30) < 3
    scores = generator.standard_normal((400, 30)) + 2.5 * planted
    run = run_of(scores, np.full((400, 30), -1))
    marked = LargeLoss(0.1)(run)
    gone = ~by_document(marked, marked.keep)
    assert gone[:, planted].mean() > 0.75
    assert gone[:, ~planted].mean() < 0.03
    sure = AsymmetricPseudoLabels(0.7, probability="sigmoid")(run)
    kept = by_document(sure, sure.keep)
    assert kept[:, planted].mean() < 0.05  # of 70 % by chance
    assert kept.mean() == 0.7


# ------------------------------------------------------------------------------------------- corrected for good


@pytest.fixture
def dataset():
    queries, documents = Collection(["q0", "q1"], name="query"), Collection([f"d{i:03}" for i in range(4)])
    return Dataset(queries, documents, Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=4))


def test_positives_are_added_for_good_up_to_a_limit(dataset):
    run = run_of([[0.9, 0.8, 0.2, 0.1], [0.95, 0.9, 0.3, 0.1]], [[1, -1, -1, -1], [-1, 1, -1, -1]])
    run = Run.build(
        dataset.queries, dataset.documents, run.offsets, run.document, run.score, columns={"label": run.label}
    )
    corrected, added = large_loss_judgements(run, dataset, LargeLoss(0.25))
    assert added == 2
    positives = corrected.judgements.positives
    assert positives.query.tolist() == [0, 0, 1, 1]
    assert positives.document.tolist() == [0, 1, 0, 1]
    some, added = large_loss_judgements(run.take([1, 0]), dataset, LargeLoss(0.25), most=1)
    assert added == 1
    assert some.judgements.document.tolist() == [0, 0, 1]  # the surest of both
    with pytest.raises(RivalsError, match="most must be 0 or more"):
        large_loss_judgements(run, dataset, LargeLoss(0.25), most=-1)


def test_a_store_of_labels_corrects_by_epoch_within_its_limit():
    labels = np.full((4, 5), np.nan)
    labels[:, 0] = 1
    store = CorrectedLabels(labels, delta=0.1, max_share=0.25)
    scores = np.arange(20, dtype=float).reshape(4, 5)
    assert not store.update([0, 1], scores[:2], epoch=1).any()
    first = store.update([3, 1], scores[[3, 1]], epoch=2)
    assert np.argwhere(first).tolist() == [[0, 4]]  # ceil(.1 * 10) = 1 of the batch
    assert store.labels[3, 4] == 1
    store.update([3, 2], scores[[3, 2]], epoch=3)
    assert np.argwhere(store.corrected).tolist() == [[3, 3], [3, 4]]
    for epoch in range(4, 12):
        store.update([0, 1, 2, 3], scores, epoch=epoch)
    assert store.corrected.sum() == store.most == 4  # a quarter of the 16 unknown
    assert (store.labels[store.corrected] == 1).all()
    assert np.isnan(store.labels).sum() == 12
    other = CorrectedLabels(labels, delta=0.1, max_share=0.25)
    other.update([0], scores[:1], epoch=2)
    other.load_state_dict(store.state_dict())
    assert np.array_equal(other.labels, store.labels, equal_nan=True)


# ---------------------------------------------------------------------------------------------------- pseudo-labels


def test_three_rounds_label_nine_of_ten():
    """Card 91, check 5: 10 unknown, fraction .9, 3 rounds: 3, 6, 9 labels; the annotated positive stays."""
    scores = np.concatenate([[0.99], np.linspace(0.05, 0.95, 10)])[None]
    run = run_of(scores, [[1, *[-1] * 10]], kind="probability")
    rule = AsymmetricPseudoLabels(0.9, rounds=3)
    for number in (1, 2, 3):
        found = rule.at(number)(run)
        target = by_document(found, found.target)[0]
        assert np.flatnonzero(~np.isnan(target)).tolist() == list(range(1, 1 + 3 * number))
        np.testing.assert_allclose(target[1 : 1 + 3 * number], scores[0, 1 : 1 + 3 * number], rtol=1e-6)
        assert by_document(found, found.keep)[0].tolist() == [True, *[True] * 3 * number, *[False] * (10 - 3 * number)]
    assert rule(run).keep.tolist() == rule.at(3)(run).keep.tolist()


def test_it_is_the_labeller_of_label_matrices_with_queries_for_labels():
    generator = np.random.default_rng(1)
    scores = generator.random((6, 25)).astype(np.float32)
    label = np.where(generator.random((6, 25)) < 0.2, 1, -1)
    run = AsymmetricPseudoLabels(0.8, rounds=2)(run_of(scores, label, kind="probability"))
    labeller = AsymmetricPseudoLabeller(torch.from_numpy(label.T < 0), epochs=3, warmup=1, negative_fraction=0.8)
    for epoch in (1, 2):
        pseudo = labeller.update(torch.from_numpy(scores.T.copy()), epoch=epoch)
    np.testing.assert_array_equal(by_document(run, run.target), pseudo.numpy().T)
    relevance = torch.from_numpy((label.T > 0).astype(np.float32))
    loss = entropy_maximisation_loss(
        torch.logit(torch.from_numpy(scores.T.copy()), 1e-6),
        relevance,
        pseudo=torch.from_numpy(by_document(run, run.target).T),
    )
    assert torch.isfinite(loss)


def test_blocks_and_ragged_lists_do_not_matter(monkeypatch):
    generator = np.random.default_rng(2)
    lengths = [30, 0, 4, 17]
    offsets = np.cumsum([0, *lengths])
    run = Run.build(
        Collection([f"q{i}" for i in range(4)], name="query"),
        Collection([f"d{i:03}" for i in range(30)]),
        offsets,
        np.concatenate([generator.permutation(30)[:length] for length in lengths]),
        generator.standard_normal(offsets[-1]),
    )
    whole = AsymmetricPseudoLabels(0.5, probability="sigmoid")(run)
    assert [int(whole.keep[a:b].sum()) for a, b in itertools.pairwise(offsets)] == [15, 0, 2, 8]
    monkeypatch.setattr(partial_labels, "_CELLS", 1)
    assert (AsymmetricPseudoLabels(0.5, probability="sigmoid")(run).keep == whole.keep).all()
    np.testing.assert_allclose(whole.target[whole.keep], 1 / (1 + np.exp(-run.score[whole.keep])), rtol=1e-5)


def test_empty_runs_pass():
    empty = run_of(np.zeros((2, 0)))
    for rule in FILTERS:
        assert len(rule(empty)) == 0


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LargeLoss(1.5), r"fraction must lie in 0..1"),
        (lambda: LargeLoss(0.1, "keep"), "scheme must be"),
        (lambda: LargeLoss(0.1, per="list"), "per must be"),
        (lambda: AsymmetricPseudoLabels(-0.1), "fraction must lie"),
        (lambda: AsymmetricPseudoLabels(0.5, rounds=0), "rounds must be"),
        (lambda: AsymmetricPseudoLabels(0.5, rounds=2, round=3), "rounds must be"),
        (lambda: AsymmetricPseudoLabels(0.5, probability="softmax"), "probability must be"),
        (lambda: CorrectedLabels([0.5]), "labels must be a matrix"),
        (lambda: CorrectedLabels([[0.5]]), "labels must be a matrix"),
        (lambda: CorrectedLabels([[1.0]], delta=2), "delta must lie"),
        (lambda: CorrectedLabels([[1.0]], start_epoch=0), "start_epoch counts from 1"),
        (lambda: CorrectedLabels([[1.0]]).update([0], [[1.0, 2.0]], epoch=1), "scores must be"),
        (lambda: CorrectedLabels([[1.0]]).update([1], [[1.0]], epoch=1), "rows must name"),
        (lambda: CorrectedLabels([[1.0]]).update([0], [[1.0]], epoch=0), "epoch counts from 1"),
        (lambda: AsymmetricPseudoLabels()(run_of([[2.0, 0.5]])), "query 'q0': the score 2 is no probability"),
    ],
)
def test_what_does_not_fit(make, said):
    with pytest.raises(RivalsError, match=said):
        make()
