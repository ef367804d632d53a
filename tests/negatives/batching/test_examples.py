"""Batches made of examples: the mask, rule by rule; weights, targets, draws; the deal over devices."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.losses import info_nce_loss
from rivals.negatives import Strided, Top, Uniform
from rivals.negatives.batching import Batch, Examples
from rivals.negatives.batching.batch import first_seen
from rivals.negatives.samplers_hardness import SelfAdversarial

pytestmark = pytest.mark.filterwarnings("ignore:.*anchors of a batch have no negative:UserWarning")


def pairs(batch: Batch, matrix: np.ndarray) -> set[tuple[int, int]]:
    """(query, document) of all True entries."""
    query, column = np.nonzero(matrix)
    return set(zip(batch.anchor[query].tolist(), batch.columns[column].tolist(), strict=True))


def test_columns_are_unique_and_positives_come_first(make_data, make_mined) -> None:
    data = make_data([[3], [1], [3]], 6)
    run = make_mined(data, [[5, 4], [4, 5], [0, 5]])
    batch = Examples(data, run=run, negatives=Top(1)).batch([0, 1, 2], epoch=0, step=7)
    assert batch.columns.tolist() == [3, 1, 5, 4, 0]
    assert batch.anchor.tolist() == [0, 1, 2]
    assert pairs(batch, batch.relevance > 0) == {(0, 3), (1, 1), (2, 3)}
    assert batch.mask.all()
    assert (batch.weight == 1).all()
    assert (batch.target, batch.step, len(batch)) == (None, 7, 3)


def test_other_positives_their_texts_and_marks_do_not_compete(make_data, make_mined) -> None:
    """The mask: a known positive not trained on, a text equal to a positive's, a marked candidate."""
    texts = ["same", "one", "Same ", "two", "three"]
    data = make_data([[0, 1], [2], [3], [4]], document_texts=texts, query_texts=list("abcd"))
    run = make_mined(data, [[3, 4], [4], [], []])
    run = run.mark((run.query == 0) & (run.document == 3), "a rule")
    examples = Examples(data, run=run, per="pair")
    batch = examples.batch([1, 2, 3, 4], epoch=0)  # query 0 with document 1, then queries 1, 2, 3
    hidden = pairs(batch, ~batch.mask)
    assert hidden == {(0, 2), (0, 3)}  # the text of its other positive; what a rule marked
    both = examples.batch([0, 1], epoch=0)
    assert pairs(both, ~both.mask) == {(0, 0), (0, 1)}  # each row hides the positive of the other
    assert both.mask[[0, 1], [0, 1]].all()


def test_relabelled_positives_are_masked(make_data, make_mined) -> None:
    """A candidate that was relabelled (26) is a judgement now, and no negative in the batch."""
    data = make_data([[0, 2], [2]], 3)
    for epoch in range(6):
        batch = Examples(data, seed=3).batch([0, 1], epoch=epoch)
        if 0 in batch.columns:
            assert (0, 2) in pairs(batch, ~batch.mask)


def test_what_columns_compete(make_data, make_mined) -> None:
    data = make_data([[0], [1]], 4)
    run = make_mined(data, [[2], [3]])
    examples = Examples(data, run=run, negatives=Top(1))
    every = examples.batch([0, 1], epoch=0, share="all")
    assert pairs(every, every.mask) == {(q, d) for q in (0, 1) for d in range(4)}
    negatives = examples.batch([0, 1], epoch=0, share="negatives")
    assert pairs(negatives, ~negatives.mask) == {(0, 1), (1, 0)}
    own = examples.batch([0, 1], epoch=0, share="own")
    assert pairs(own, own.mask) == {(0, 0), (0, 2), (1, 1), (1, 3)}
    more = examples.batch([0, 1], epoch=0, share="own", extra=[3])
    assert pairs(more, more.mask) == {(0, 0), (0, 2), (1, 1), (1, 3), (0, 3)}


def test_a_text_of_another_query_changes_nothing_where_groups_are_apart(make_data, make_mined) -> None:
    """Card 9, check 6: with share="own" a group's entries do not depend on other groups."""
    data = make_data([[0], [1]], 6)
    one, other = (make_mined(data, [[2, 3], candidates]) for candidates in ([4, 5], [5]))
    rows = []
    for run in (one, other):
        batch = Examples(data, run=run, negatives=Top(2), share="own").batch([0, 1], epoch=0)
        rows.append(batch.columns[batch.mask[0]].tolist())
    assert rows == [[0, 2, 3], [0, 2, 3]]


def test_weights_and_targets_come_from_the_run_and_the_draw(make_data, make_mined) -> None:
    data = make_data([[0], [1]], 4)
    run = make_mined(data, [[1, 2, 3], [2]], weight=[0.5, 2, 3, 4], target=[0.25, np.nan, np.nan, 0.75])
    batch = Examples(data, run=run, negatives=Top(2)).batch([0, 1], epoch=0)
    assert batch.columns.tolist() == [0, 1, 2]
    assert batch.weight.tolist() == [[1, 0.5, 2], [1, 1, 4]]
    assert batch.target is not None
    assert batch.target.tolist() == [[pytest.approx(np.nan, nan_ok=True), 0.25, pytest.approx(np.nan, nan_ok=True)],
                                     [pytest.approx(np.nan, nan_ok=True), pytest.approx(np.nan, nan_ok=True), 0.75]]  # fmt: skip
    weighed = Examples(data, run=run.replace(weight=np.ones(4)), negatives=SelfAdversarial(3)).batch([0], epoch=0)
    assert weighed.weight[0, weighed.relevance[0] == 0].mean() == pytest.approx(1)
    assert weighed.weight[0].max() > 1


def test_random_fallbacks_compete_though_marked(make_data, make_mined) -> None:
    """A query without survivor gets marked candidates with a soft target (card 7)."""
    data = make_data([[0], [1]], 4)
    run = make_mined(data, [[2], [3]]).mark(np.array([True, False]), "judged a positive")
    batch = Examples(data, run=run, negatives=Strided(1, step=5, on_empty="random"), share="own").batch([0, 1], epoch=0)
    assert (0, 2) in pairs(batch, batch.mask)
    assert batch.target is not None
    assert batch.target[0, batch.columns.tolist().index(2)] == 1
    assert not batch.lonely.any()


def test_positives_and_negatives_are_drawn_anew_in_every_epoch(make_data, make_mined) -> None:
    data = make_data([[0, 1, 2]] * 40, 30)
    run = make_mined(data, [list(range(3, 30))] * 40)
    examples = Examples(data, run=run, negatives=Uniform(2), seed=4)
    first, again = (np.concatenate([examples.positive(e), examples.draw(e).candidate.ravel()]) for e in (0, 0))
    assert (first == again).all()
    assert set(examples.positive(0).tolist()) == {0, 1, 2}
    assert (examples.positive(0) != examples.positive(1)).any()
    assert (examples.draw(0).candidate != examples.draw(1).candidate).any()
    other = Examples(data, run=run, negatives=Uniform(2), seed=5)
    assert (other.positive(0) != examples.positive(0)).any()


def test_schedules_are_followed(make_data, make_mined) -> None:
    data = make_data([[0]], 7)
    run = make_mined(data, [[1, 2, 3, 4, 5, 6]])
    examples = Examples(data, run=run, negatives=Strided(2))
    assert [examples.draw(epoch).candidate[0].tolist() for epoch in range(4)] == [[1, 4], [2, 5], [3, 6], [1, 4]]
    given = Examples(data, negatives=lambda epoch: Top(1 + epoch).draw(run, np.random.default_rng(0)))
    assert [given.draw(epoch).k for epoch in (0, 1)] == [1, 2]
    fixed = Top(3).draw(run, np.random.default_rng(0))
    assert Examples(data, negatives=fixed).draw(5) is fixed


def test_graded_pairs_are_examples_of_their_own(make_data) -> None:
    data = make_data([[0], [0, 1]], grades=[[0.0], [0.2, 0.9]])
    assert len(Examples(data, per="pair")) == 2
    examples = Examples(data, per="judgement", share="own")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = examples.batch([0, 1, 2], epoch=0)
    own = [(0, 0), (1, 0), (1, 1)]
    column = [batch.columns.tolist().index(document) for _, document in own]
    assert batch.relevance[[0, 1, 2], column].tolist() == pytest.approx([0, 0.2, 0.9])
    assert batch.mask.sum(1).tolist() == [1, 1, 1]
    assert examples.without_positive == 1


def test_lonely_anchors_are_told_once(make_data) -> None:
    examples = Examples(make_data([[0], [0], [0]], 1))
    with pytest.warns(UserWarning, match="3 of 3 anchors of a batch have no negative"):
        batch = examples.batch([0, 1, 2], epoch=0)
    assert batch.lonely.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples.batch([0, 1], epoch=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["all", "negatives", "own"]), st.booleans())
def test_the_mask_in_plain_python(seed: int, share: str, merge: bool) -> None:
    """Every entry of a random batch against the rule, pair by pair."""
    generator = np.random.default_rng(seed)
    queries, documents = 6, 9
    judged = generator.random((queries, documents)) < 0.25
    judged[:, 0] |= ~judged.any(1)
    texts = [str(number) for number in generator.integers(0, 6, documents)]
    names = Collection([f"q{i}" for i in range(queries)], [f"question {i}" for i in range(queries)])
    data = Dataset(names, Collection([f"d{i}" for i in range(documents)], texts),
                   Judgements.build(*np.nonzero(judged), np.ones(judged.sum()), queries=queries, documents=documents))  # fmt: skip
    listed = [generator.permutation(documents)[: generator.integers(0, 6)].tolist() for _ in range(queries)]
    sizes = np.cumsum([0, *map(len, listed)])
    flat = [row for rows in listed for row in rows]
    run = Run.build(data.queries, data.documents, sizes, flat, generator.random(len(flat)))
    run = run.mark(generator.random(len(run)) < 0.3, "a rule")
    draw = Uniform(2).draw_available(run, generator)
    examples = Examples(data, run=run, negatives=draw, per="pair", share=share)
    rows = generator.permutation(len(examples))[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = examples.batch(rows, epoch=0, merge=merge)
    owner: dict[int, set[int]] = {}
    for place, row in enumerate(rows):
        key = batch.anchor.tolist().index(examples.query[row]) if merge else place
        owner.setdefault(key, set()).add(int(examples.positive(0)[row]))
    drawn = [set(draw.candidate[query][draw.mask[query]].tolist()) for query in batch.anchor]
    everyone = set().union(*drawn)
    marks = {(int(q), int(d)) for q, d in zip(run.query[~run.keep], run.document[~run.keep], strict=True)}
    assert len(set(batch.columns.tolist())) == len(batch.columns)
    for place, query in enumerate(batch.anchor.tolist()):
        known = {texts[document] for document in np.flatnonzero(judged[query])}
        for column, document in enumerate(batch.columns.tolist()):
            positive = document in owner[place]
            there = share == "all" or document in drawn[place] or (share == "negatives" and document in everyone)
            marked = (query, document) in marks and document not in drawn[place]
            expected = positive or (there and texts[document] not in known and not marked)
            assert batch.mask[place, column] == expected
            assert (batch.relevance[place, column] > 0) == positive


def test_devices_see_what_one_sees() -> None:
    """Card 43, checks 3, 4 and 6: the loss over dealt-out negatives is that over all of them."""
    queries = np.array([[1.0, 0.0]])
    documents = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    whole = Batch(np.array([0]), np.arange(3), np.array([[1, 0, 0]], np.float32), np.ones((1, 3), bool),
                  np.ones((1, 3), np.float32))  # fmt: skip
    parts = whole.shards(2)
    assert [part.columns.tolist() for part in parts] == [[0, 1], [0, 2]]
    below = sum(np.exp(queries @ documents[p.columns[1:]].T).sum() for p in parts)
    value = -np.log(np.e / (np.e + below))
    assert value == pytest.approx(0.551444714)
    scores = torch.tensor(queries @ documents.T)
    assert float(info_nce_loss(scores, torch.tensor(whole.relevance), temperature=1.0)) == pytest.approx(value)


def test_other_positives_are_outside_the_denominator(make_data, make_mined) -> None:
    """Card 43, check 4: changing the second query's positive leaves the first row as it was."""
    rows = []
    for positive in (1, 5):
        data = make_data([[0], [positive]], 6)
        run = make_mined(data, [[2], [3]])
        batch = Examples(data, run=run, negatives=Top(1), share="negatives").batch([0, 1], epoch=0)
        rows.append(sorted(batch.columns[batch.mask[0]].tolist()))
    assert rows == [[0, 2, 3], [0, 2, 3]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_shards_hold_everything_once(anchors: int, columns: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = (anchors, columns)
    batch = Batch(np.arange(anchors), generator.permutation(50)[:columns], (generator.random(shape) < 0.2).astype(np.float32),
                  generator.random(shape) < 0.8, np.ones(shape, np.float32), np.full(shape, np.nan, np.float32))  # fmt: skip
    shards = batch.shards(count)
    positive = (batch.relevance > 0).any(0)
    for column in range(columns):
        holders = [shard for shard in shards if batch.columns[column] in shard.columns]
        assert len(holders) == (count if positive[column] else 1)
        for shard in holders:
            place = shard.columns.tolist().index(batch.columns[column])
            assert (shard.mask[:, place] == batch.mask[:, column]).all()


def test_first_seen() -> None:
    values, place = first_seen(np.array([5, 2, 5, 9, 2]))
    assert values.tolist() == [5, 2, 9]
    assert values[place].tolist() == [5, 2, 5, 9, 2]


def test_bad_input(make_data, make_mined) -> None:
    data = make_data([[0], [1]])
    run = make_mined(data, [[1], [0]])
    for options, said in (
        ({"per": "document"}, "per must be"),
        ({"share": "none"}, "share must be"),
        ({"negatives": Top(1)}, r"Top\(1\) needs the run"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"run": run.take([0])}, "the mined run is over 1 queries, the data over 2"),
    ):
        with pytest.raises(RivalsError, match=said):
            Examples(data, **options)
    with pytest.raises(RivalsError, match="nothing to train on"):
        Examples(make_data([[0]], grades=[[0.0]]))
    with pytest.raises(RivalsError, match="names example 0 to 2, but there are 2"):
        Examples(data).batch([0, 2], epoch=0)
    with pytest.raises(RivalsError, match="the draw is for 1 queries"):
        Examples(data, negatives=Top(1).draw(run.take([0]), np.random.default_rng(0))).draw(0)
    with pytest.raises(RivalsError, match="1 device or more"):
        Batch.of_pairs([0], [0]).shards(0)
    with pytest.raises(RivalsError, match=r"2 anchors and 1 columns has relevance \(1, 1\)"):
        Batch(
            np.arange(2), np.arange(1), np.ones((1, 1), np.float32), np.ones((2, 1), bool), np.ones((2, 1), np.float32)
        )
