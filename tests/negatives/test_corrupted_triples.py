"""Corrupted triples: what may be proposed and how often, whatever the block; large graphs quickly; known ones never."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements
from rivals.data.formats.triples import load_triples
from rivals.data.triples import Triples, asked
from rivals.errors import RivalsError
from rivals.negatives import _pool_draws
from rivals.negatives._pool_draws import Pools, pool_draws
from rivals.negatives.corrupted_triples import CorruptedTriples, tail_shares
from rivals.negatives.entity_graph import EntityGraph
from rivals.negatives.filters import KnownPositives, PositiveAware
from rivals.negatives.known_triples import KnownTriples
from rivals.negatives.mine import mine_hard_negatives
from rivals.negatives.samplers import Top, Uniform

POOLS = ["all", "typed", "neighbourhood"]


@st.composite
def graphs(draw):
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    size, relations, count = draw(st.integers(2, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 30))
    rows = np.stack([generator.integers(0, high, count) for high in (size, relations, size)], axis=1)
    other = np.stack([generator.integers(0, high, 5) for high in (size, relations, size)], axis=1)
    return Triples(
        Collection([f"e{i:03}" for i in range(size)]),
        Collection([f"r{i}" for i in range(relations)], name="relation"),
        {"train": rows, "test": other},
    )


def completed(run):
    """The triples of all candidates."""
    question = asked(run.queries)
    entity, relation, head = (column[run.query] for column in question)
    return np.stack([np.where(head, run.document, entity), relation, np.where(head, entity, run.document)], axis=1)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(POOLS), st.integers(1, 20), st.booleans())
def test_candidates_are_different_unknown_and_from_the_pool(triples, pool, k, fill):
    dataset = triples.dataset(side="both")
    source = CorruptedTriples(triples, pool=pool, fill=fill)
    run = source(dataset, k=k)
    known = set(map(tuple, triples.part().tolist()))
    assert not known & set(map(tuple, completed(run).tolist()))
    rows, question = triples.part("train"), asked(run.queries)
    graph = EntityGraph(triples, directed=False)
    size = len(triples.entities)
    filled = 0
    for query in range(len(run.queries)):
        own = run.document[run.offsets[query] : run.offsets[query + 1]].tolist()
        entity, relation, head = (int(column[query]) for column in question)
        allowed = set(range(size))
        if pool == "typed":
            allowed = set(rows[rows[:, 1] == relation][:, 0 if head else 2].tolist())
        elif pool == "neighbourhood":
            steps = graph.distances(np.full(size, entity), np.arange(size), backward=bool(head))
            allowed = set(np.flatnonzero((steps > 0) & (steps <= 2)).tolist())
        free = [e for e in range(size) if ((e, relation, entity) if head else (entity, relation, e)) not in known]
        fit = allowed & set(free)
        if fill:
            assert len(own) == min(k, len(free))
            assert set(own[: len(fit)]) == fit if len(fit) <= k else set(own) <= fit
            filled += pool != "all" and len(fit) < min(k, len(free))
        else:
            assert len(own) == min(k, len(fit))
            assert set(own) <= fit
    assert source.filled == filled


@settings(max_examples=40, deadline=None)
@given(graphs(), st.sampled_from(POOLS), st.booleans(), st.integers(0, 10**6))
def test_blocks_and_their_order_do_not_matter(triples, pool, bernoulli, seed):
    dataset = triples.dataset(side="both")
    source = CorruptedTriples(triples, pool=pool, bernoulli=bernoulli, seed=3)
    whole = source(dataset, k=4)
    order = np.random.default_rng(seed).permutation(len(dataset.queries))
    moved = source(dataset.take(order), k=4)
    for place, query in enumerate(order.tolist()):
        one = whole.document[whole.offsets[query] : whole.offsets[query + 1]]
        two = moved.document[moved.offsets[place] : moved.offsets[place + 1]]
        assert (one == two).all()


def test_draws_are_uniform_over_what_is_free():
    """1,000 seeds, 3 of 12 entities: each of the 10 that are free in three tenths of the draws, for each way of drawing."""
    triples = Triples(
        Collection([f"e{i:02}" for i in range(12)]),
        Collection(["r"], name="relation"),
        {"train": np.array([[0, 0, 1], [0, 0, 2]])},
    )
    queries = triples.dataset().queries
    counts = np.zeros(12)
    for seed in range(1000):
        counts[CorruptedTriples(triples, seed=seed).retrieve(queries, 3).document] += 1
    assert (counts[[1, 2]] == 0).all()
    free = np.delete(counts, [1, 2])
    assert np.abs(free - 300).max() < 5 * np.sqrt(300 * 0.7)
    keys = np.arange(4000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    pools = Pools(np.zeros(4000, np.int64), np.full(4000, 30))
    by_rejection = pool_draws(keys, 3, pools, lambda query, member: member % 3 == 0)
    assert (by_rejection >= 0).all()
    counts = np.bincount(by_rejection.ravel(), minlength=30)
    assert (counts[::3] == 0).all()
    assert np.abs(counts[counts > 0] - 600).max() < 5 * np.sqrt(600 * 0.85)
    assert (np.sort(by_rejection, axis=1)[:, 1:] != np.sort(by_rejection, axis=1)[:, :-1]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 4))
def test_pool_draws_skip_what_is_taken_or_forbidden(seed, k, taken):
    generator = np.random.default_rng(seed)
    size = generator.integers(0, 90, 8)
    pools = Pools(np.cumsum([0, *size[:-1]]), size, np.concatenate([generator.permutation(100)[:n] for n in size]))
    have = np.stack([generator.permutation(100)[:taken] for _ in range(8)]).reshape(8, taken)
    drawn = pool_draws(
        generator.integers(0, 2**63, 8).astype(np.uint64),
        k,
        pools,
        lambda query, member: (member + query) % 4 == 0,
        have,
    )
    for query in range(8):
        members = set(pools.members[pools.start[query] : pools.start[query] + size[query]].tolist())
        free = {m for m in members if (m + query) % 4} - set(have[query].tolist())
        own = drawn[query][drawn[query] >= 0].tolist()
        assert len(own) == len(set(own)) == min(k, len(free))
        assert set(own) <= free
        assert (drawn[query, len(own) :] == -1).all()


def test_epochs_and_seeds_draw_anew_and_again_alike():
    triples = Triples(
        Collection([f"e{i:03}" for i in range(200)]),
        Collection(["r"], name="relation"),
        {"train": np.array([[0, 0, 1]])},
    )
    dataset = triples.dataset()
    source = CorruptedTriples(triples)
    first = source(dataset, k=10).document.tolist()
    assert source(dataset, k=10).document.tolist() == first
    assert source.at(0)(dataset, k=10).document.tolist() == first
    assert source.at(1)(dataset, k=10).document.tolist() != first
    assert (
        source.at(1)(dataset, k=10).document.tolist()
        == CorruptedTriples(triples, epoch=1)(dataset, k=10).document.tolist()
    )
    assert CorruptedTriples(triples, seed=1)(dataset, k=10).document.tolist() != first


def test_bernoulli_replaces_the_side_with_few_answers_more_often():
    """One head with 30 tails: hpt = 1, tph = 30, so a tail is replaced once in 31 draws, a head 30 times."""
    rows = np.stack([np.zeros(30, int), np.zeros(30, int), np.arange(1, 31)], axis=1)
    triples = Triples(Collection([f"e{i:03}" for i in range(400)]), Collection(["r"], name="relation"), {"train": rows})
    assert tail_shares(rows, 2).tolist() == pytest.approx([1 / 31, 0.5])
    run = CorruptedTriples(triples, bernoulli=True)(triples.dataset(side="both"), k=200)
    lengths, head = np.diff(run.offsets), asked(run.queries).asks_head
    assert lengths[~head].mean() < 20
    assert abs(lengths[head].mean() - 200 * 30 / 31) < 3


def test_a_scorer_orders_the_run_and_scores_the_positives(shared_data):
    triples = load_triples(shared_data / "nations")

    def model(head, relation, tail):
        return np.cos(head * 3 + relation * 5 + tail * 7)

    source = CorruptedTriples(triples, scorer=model, score_kind="cosine")
    dataset = triples.dataset(side="both")
    run = source(dataset, k=5)
    expected = model(*completed(run).T)
    np.testing.assert_allclose(run.score, expected, rtol=1e-5)
    assert (np.diff(run.score)[np.diff(run.query) == 0] <= 0).all()
    assert not np.isnan(run.positive_score).any()
    PositiveAware(absolute=0.1)(run)
    with pytest.raises(RivalsError, match="the scorer gave scores of shape"):
        CorruptedTriples(triples, scorer=lambda head, relation, tail: head[:1])(dataset, k=5)


def test_in_a_pipeline_and_in_mining(shared_data):
    triples = load_triples(shared_data / "umls")
    dataset = triples.dataset()
    source = CorruptedTriples(triples, known=())  # nothing known: filters must find the positives
    run = (source >> KnownPositives() >> Uniform(4))(dataset, k=40)
    assert (np.diff(run.offsets) == 4).all()
    mined = mine_hard_negatives(CorruptedTriples(triples), dataset, filters=(), sampler=Top(3), top_k=10, show=False)
    assert mined.draw.mask.mean() > 0.99
    true = set(map(tuple, triples.part().tolist()))
    assert not true & set(map(tuple, completed(mined.negatives).tolist()))
    blocks = mine_hard_negatives(
        CorruptedTriples(triples), dataset, filters=(), sampler=Top(3), top_k=10, show=False, block=97
    )
    assert (blocks.negatives.document == mined.negatives.document).all()


def test_three_hundred_thousand_triples_are_quick(shared_data):
    triples = load_triples(shared_data / "fb15k237")
    started = time.process_time()
    run = CorruptedTriples(triples, pool="typed")(triples.dataset(), k=5)
    spent = time.process_time() - started
    assert len(run) > 300_000
    assert spent < 20  # about 1 s on a quiet core
    table = KnownTriples(triples.part(), entities=len(triples.entities))
    assert not table.holds(*completed(run).T).any()
    assert table.holds(*triples.parts["test"].T).all()


def test_typed_corruptions_are_of_the_right_kind(shared_data):
    """CoDEx-S: verified false triples look like typed corruptions far more often than like uniform ones."""
    triples = load_triples(shared_data / "codex_s")
    false = triples.false["test"]
    queries = triples.dataset("test").queries
    pairs = {}
    for pool in ("all", "typed"):
        run = CorruptedTriples(triples, pool=pool, known=("train",))(queries, k=20)
        drawn = set(map(tuple, completed(run).tolist()))
        pairs[pool] = len(drawn & set(map(tuple, false.tolist())))
    assert pairs["typed"] > 2 * pairs["all"]


# ------------------------------------------------------------------------------------------------------- known triples


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 6)), max_size=20))
def test_known_triples_are_a_set(rows):
    known = KnownTriples(rows)
    every = np.stack(np.meshgrid(np.arange(9), np.arange(4), np.arange(9), indexing="ij"), axis=-1).reshape(-1, 3)
    assert known.holds(*every.T).tolist() == [tuple(row) in set(rows) for row in every.tolist()]
    assert len(known) == len(set(rows))


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "near"}, "pool must be"),
        ({"seed": -1}, "seed and epoch must be 0 or more"),
        ({"epoch": -1}, "seed and epoch must be 0 or more"),
        ({"known": ("dev",)}, "no part 'dev'"),
        ({"part": "dev"}, "no part 'dev'"),
    ],
)
def test_options_out_of_range(options, said, shared_data):
    with pytest.raises(RivalsError, match=said):
        CorruptedTriples(load_triples(shared_data / "nations"), **options)


def test_what_does_not_fit(shared_data):
    triples = load_triples(shared_data / "nations")
    source = CorruptedTriples(triples)
    plain = Dataset(
        Collection(["q"], name="query"), triples.entities, Judgements.build([0], [0], [1], queries=1, documents=14)
    )
    with pytest.raises(RivalsError, match="not of a knowledge graph"):
        source(plain)
    with pytest.raises(RivalsError, match="epoch must be 0 or more"):
        source.at(-1)
    with pytest.raises(RivalsError, match="k must be at least 1"):
        source(triples.dataset(), k=0)
    with pytest.raises(RivalsError, match="names entity 3, but there are 3"):
        KnownTriples([[0, 0, 3]], entities=3)
    with pytest.raises(RivalsError, match="names relation 4, but there are 2"):
        KnownTriples([[0, 4, 1]], relations=2)
    with pytest.raises(RivalsError, match=r"triples must be \[N, 3\]"):
        KnownTriples([[0, 1]])


def test_small_blocks_draw_alike(monkeypatch):
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 2**63, 50).astype(np.uint64)
    pools = Pools(np.zeros(50, np.int64), generator.integers(1, 200, 50))
    whole = pool_draws(keys, 6, pools, lambda query, member: member % 5 == 1)
    monkeypatch.setattr(_pool_draws, "_CELLS", 1)
    assert (pool_draws(keys, 6, pools, lambda query, member: member % 5 == 1) == whole).all()
