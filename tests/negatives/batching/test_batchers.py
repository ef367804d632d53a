"""Batchers: what each epoch holds, resuming anywhere, and each kind's own rule."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.negatives import Duplicates, KnownPositives, Top, Uniform, swap_roles
from rivals.negatives.batching import (
    Batcher,
    BatchShared,
    Clustered,
    Examples,
    Grouped,
    NoDuplicates,
    QuerySharing,
    Shuffled,
    TaskBalanced,
)
from rivals.negatives.batching.batchers import Plan, apart

pytestmark = pytest.mark.filterwarnings("ignore:.*anchors of a batch have no negative:UserWarning")


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    judged = generator.random((23, 30)) < 0.08
    judged[np.arange(23), np.arange(23)] = True
    return Dataset(
        Collection([f"q{i}" for i in range(23)], [f"question {i % 20}" for i in range(23)]),
        Collection([f"d{i}" for i in range(30)], [f"answer {i % 26}" for i in range(30)]),
        Judgements.build(*np.nonzero(judged), np.ones(judged.sum()), queries=23, documents=30),
    )


@pytest.fixture(scope="module")
def mined(data: Dataset) -> Any:
    generator = np.random.default_rng(1)
    rows = np.concatenate([generator.permutation(30)[:8] for _ in range(23)])
    known = data.judgements.positives
    run = Run.build(data.queries, data.documents, np.arange(24) * 8, rows, generator.random(184),
                     positives=(known.offsets, known.document))  # fmt: skip
    return Duplicates()(KnownPositives()(run))


def kinds(data: Dataset, mined: Any, seed: int = 0) -> dict[str, Any]:
    by_query = Examples(data, run=mined, negatives=Uniform(2), seed=seed)
    by_pair = Examples(data, per="pair", seed=seed)
    shared = BatchShared.of_run(mined, by_query.query, h=2)
    return {
        "shuffled": Shuffled(by_query, 4, seed=seed),
        "dropping": Shuffled(by_pair, 4, seed=seed, drop_last=True),
        "no duplicates": NoDuplicates(by_pair, 4, seed=seed),
        "no duplicates, negatives": NoDuplicates(by_query, 4, negatives=True, seed=seed, drop_last=True),
        "grouped": Grouped(by_query, positives=5, negatives=2, seed=seed),
        "sharing": QuerySharing(by_pair, queries=3, positives=2, seed=seed),
        "clustered": Clustered(by_query, np.arange(23) // 4, 8, seed=seed),
        "clustered, all": Clustered(by_query, np.arange(23) // 4, 8, seed=seed, shared=shared, drop_last=False),
        "joint": TaskBalanced(
            {"a": Shuffled(by_query, 4, seed=seed), "b": NoDuplicates(by_pair, 3, seed=seed)}, seed=seed
        ),
        "proportional": TaskBalanced(
            {"a": Shuffled(by_query, 4, seed=seed), "b": Grouped(by_query, seed=seed)},
            mode="proportional",
            temperature=3.0,
            seed=seed,
        ),
    }


KINDS = ["shuffled", "dropping", "no duplicates", "no duplicates, negatives", "grouped", "sharing", "clustered",
         "clustered, all", "joint", "proportional"]  # fmt: skip


def flat(step: Any) -> list[Any]:
    """All numbers of a step, to be compared bit for bit."""
    batches = step if isinstance(step, tuple) else (step,)
    arrays = ((b.anchor, b.columns, b.relevance, b.mask, b.weight, b.task, b.step) for b in batches)
    return [np.asarray(array).tobytes() for batch in arrays for array in batch]


@pytest.mark.parametrize("name", KINDS)
def test_the_same_under_a_seed_and_an_epoch(name: str, data: Dataset, mined: Any) -> None:
    one, other = kinds(data, mined)[name], kinds(data, mined)[name]
    assert isinstance(one, Batcher)
    epochs = []
    for epoch in (0, 1):
        one.set_epoch(epoch)
        other.set_epoch(epoch)
        epochs.append([flat(step) for step in one])
        assert [flat(step) for step in other] == epochs[-1]
        assert len(one) == len(epochs[-1])
    assert epochs[0] != epochs[1]
    different = kinds(data, mined, seed=1)[name]
    assert [flat(step) for step in different] != epochs[0]
    one.set_epoch(0)
    assert [flat(step) for step in one] == epochs[0]
    assert [flat(step) for step in one] == epochs[0]  # a second pass begins at the beginning


@pytest.mark.parametrize("name", KINDS)
def test_goes_on_anywhere(name: str, data: Dataset, mined: Any) -> None:
    whole = kinds(data, mined)[name]
    whole.set_epoch(3)
    expected = [flat(step) for step in whole]
    for stop in range(len(expected) + 1):
        first = kinds(data, mined)[name]
        first.set_epoch(3)
        seen = [flat(step) for _, step in zip(range(stop), first, strict=False)]
        state = json.loads(json.dumps(first.state_dict()))
        later = kinds(data, mined)[name]
        later.load_state_dict(state)
        assert seen + [flat(step) for step in later] == expected, stop
        assert later.epoch == 3
    later.set_epoch(4)
    assert [flat(step) for step in later] == [flat(step) for step in _at(kinds(data, mined)[name], 4)]


def _at(batcher: Any, epoch: int) -> Any:
    batcher.set_epoch(epoch)
    return batcher


@pytest.mark.parametrize("name", KINDS[:8])
def test_each_example_once_or_counted(name: str, data: Dataset, mined: Any) -> None:
    batcher = kinds(data, mined)[name]
    for epoch in range(3):
        batcher.set_epoch(epoch)
        plan = batcher.plan(epoch)
        assert sorted([*plan.rows.tolist(), *plan.left.tolist()]) == list(range(len(batcher.examples)))
        assert batcher.left == len(plan.left)
        if batcher.drop_last and name != "sharing":
            assert (np.diff(plan.offsets) == batcher.batch_size).all()


@pytest.mark.parametrize("name", KINDS)
def test_states_of_other_batchers_are_refused(name: str, data: Dataset, mined: Any) -> None:
    state = kinds(data, mined)[name].state_dict()
    with pytest.raises(RivalsError, match="the state is of a batcher with seed=0, this one has 1"):
        kinds(data, mined, seed=1)[name].load_state_dict(state)
    with pytest.raises(RivalsError, match=r"stands at (batch|step) 999"):
        kinds(data, mined)[name].load_state_dict(state | {"step": 999})


def test_orders_differ_between_kinds_of_one_seed(data: Dataset) -> None:
    examples = Examples(data)
    assert (Shuffled(examples, 4).plan(0).rows != NoDuplicates(examples, 4).plan(0).rows).any()


# ------------------------------------------------------------------------------------------------------- no duplicates


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 12), st.integers(0, 999))
def test_apart(examples: int, size: int, kinds_of_keys: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 4, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    keys = generator.integers(0, kinds_of_keys, offsets[-1])
    batch = apart(generator.permutation(examples), offsets, keys, size)
    assert np.bincount(batch).max() <= size
    held = Counter((int(batch[i]), int(k)) for i in range(examples) for k in set(keys[offsets[i] : offsets[i + 1]]))
    assert max(held.values(), default=1) == 1
    if not len(keys):
        assert (np.bincount(batch)[:-1] == size).all()


@pytest.mark.parametrize("negatives", [False, True])
def test_no_text_twice_in_a_batch(negatives: bool, data: Dataset, mined: Any) -> None:
    examples = Examples(data, run=mined, negatives=Top(1), per="pair")
    batcher = NoDuplicates(examples, 6, negatives=negatives)
    plain = Shuffled(examples, 6)
    broken = 0
    for source in (batcher, plain):
        for batch in source:
            rows = [data.queries.texts[row] for row in batch.anchor]
            positive = [data.documents.texts[batch.columns[c]] for c in np.nonzero(batch.relevance)[1]]
            texts = rows + positive
            if negatives:
                drawn = examples.draw(0)
                texts += [data.documents.texts[row] for row in drawn.candidate[batch.anchor][drawn.mask[batch.anchor]]]
            if source is batcher:
                assert len(set(texts)) == len(texts)
            else:
                broken += len(set(texts)) < len(texts)
    assert broken  # the data do repeat texts


def test_a_question_that_is_an_answer_is_a_duplicate() -> None:
    judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    texts = Collection(["p", "q"], ["x", "y"]), Collection(["a", "b"], ["Y", "z"])
    assert len(NoDuplicates(Examples(Dataset(*texts, judged)), 2)) == 2
    plain = Collection(["p", "q"]), Collection(["a", "b"])
    assert len(NoDuplicates(Examples(Dataset(*plain, judged)), 2)) == 1


def test_what_no_batch_can_hold_is_counted() -> None:
    """20 questions share one answer; 12 batches of 5 cannot take them all."""
    document = np.concatenate([np.zeros(20, np.int64), np.arange(1, 41)])
    judged = Judgements.build(np.arange(60), document, np.ones(60), queries=60, documents=41)
    examples = Examples(
        Dataset(Collection([f"q{i}" for i in range(60)]), Collection([f"d{i}" for i in range(41)]), judged)
    )
    batcher = NoDuplicates(examples, 5, drop_last=True)
    assert batcher.left > 0
    assert len(batcher) * 5 + batcher.left == 60
    assert sum(len(batch) for batch in NoDuplicates(examples, 5)) == 60


# ---------------------------------------------------------------------------------------------------- grouped, sharing


def test_groups_are_whole_and_to_themselves(data: Dataset, mined: Any) -> None:
    examples = Examples(data, run=mined, negatives=Uniform(3))
    batcher = Grouped(examples, positives=4, negatives=2)
    assert [len(batch) for batch in batcher] == [4] * 5 + [3]
    for batch in batcher:
        negatives = batch.mask & (batch.relevance == 0)
        assert (negatives.sum(1) <= 2).all()
        assert ((batch.relevance > 0) & batch.mask).sum(1).tolist() == [1] * len(batch)
        draw = examples.draw(0)
        for place, query in enumerate(batch.anchor):
            own = set(draw.candidate[query, :2][draw.mask[query, :2]].tolist())
            assert set(batch.columns[negatives[place]].tolist()) <= own


def test_pages_with_generated_queries(make_data, make_mined) -> None:
    """Card 9, check 7: roles swapped, three negative queries a page; a page with fewer brings fewer."""
    data = make_data([[0], [0], [0], [0], [1], [1]], grades=[[1], [0], [0], [0], [1], [0]])
    asked = make_mined(data, [[0], [0], [0], [0], [1], [1]], label=[1, 0, 0, 0, 1, 0])
    swapped = swap_roles(asked)
    judged = Judgements.build([0, 1], [0, 4], [1, 1], queries=2, documents=6)
    pages = Dataset(swapped.queries, swapped.documents, judged)
    batch = next(iter(Grouped(Examples(pages, run=swapped, negatives=Top(3)))))
    triples = {
        (int(batch.columns[c]), int(batch.anchor[p]), int(batch.relevance[p, c] > 0))
        for p, c in zip(*np.nonzero(batch.mask), strict=True)
    }
    assert triples == {(0, 0, 1), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 1, 1), (5, 1, 0)}


def test_several_positives_of_a_query_share_a_batch() -> None:
    count = [1, 2, 3, 4, 5, 6, 7]
    query = np.repeat(np.arange(7), count)
    judged = Judgements.build(query, np.arange(28), np.ones(28), queries=7, documents=28)
    data = Dataset(Collection([f"q{i}" for i in range(7)]), Collection([f"d{i}" for i in range(28)]), judged)
    batcher = QuerySharing(Examples(data, per="pair"), queries=3, positives=3)
    shares: list[tuple[int, int]] = []
    for batch in batcher:
        assert len(set(batch.anchor.tolist())) == len(batch) <= 3
        shares += list(zip(batch.anchor.tolist(), (batch.relevance > 0).sum(1).tolist(), strict=True))
    expected = [(q, part) for q, n in enumerate(count) for part in [3] * (n // 3) + [n % 3] * (n % 3 > 0)]
    assert sorted(shares) == sorted(expected)
    whole = QuerySharing(Examples(data, per="pair"), queries=3, positives=3, drop_last=True)
    assert all(len(batch) == 3 for batch in whole)
    assert whole.left == 28 - sum(int((batch.relevance > 0).sum()) for batch in whole)


# -------------------------------------------------------------------------------------------------------------- errors


def test_plans_cut_orders() -> None:
    plan = Plan.of_order(np.arange(7), 3, drop_last=False)
    assert (plan.offsets.tolist(), plan.left.tolist(), len(plan)) == ([0, 3, 6, 7], [], 3)
    plan = Plan.of_order(np.arange(2), 3, drop_last=True)
    assert (plan.offsets.tolist(), plan.left.tolist(), len(plan)) == ([0], [0, 1], 0)


def test_bad_input(data: Dataset, mined: Any) -> None:
    examples = Examples(data)
    for make, said in (
        (lambda: Shuffled(examples, 0), "batch_size must be a whole number, 1 or more"),
        (lambda: Shuffled(examples, 2, seed=-1), "seed must be"),
        (lambda: Shuffled(examples, 2).set_epoch(-1), "epoch must be"),
        (lambda: Grouped(examples), "Grouped batches are made of each anchor's own negatives"),
        (lambda: Grouped(Examples(data, run=mined, negatives=Top(1)), negatives=0), "negatives must be"),
        (lambda: QuerySharing(examples), r"make Examples\(per='pair'\)"),
        (lambda: QuerySharing(Examples(data, per="pair"), positives=0), "positives must be"),
    ):
        with pytest.raises(RivalsError, match=said):
            make()
