"""Random and in-batch sources: the distribution of draws, blocks, and unions scored by one scorer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.negatives import KnownPositives, LinkSource, PositiveAware, Uniform, mine_hard_negatives
from rivals.negatives._random_draws import distinct_draws, query_keys, stream
from rivals.negatives.rescore import Rescore
from rivals.negatives.sources import InBatchSource, RandomSource
from rivals.retrieve import BM25, Dense
from tests.retrieve.conftest import LetterEncoder

WORDS = ["ab", "abc", "bcd", "cde", "def", "efg", "fgh", "gh", "ha", "hab"]


def dataset(queries: int = 24, documents: int = 60, seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, 4)) + f" {i}" for i in range(documents)]
    positive = generator.integers(0, documents, queries)
    asked = Collection([f"q{i}" for i in range(queries)], [texts[row] for row in positive], name="query")
    judgements = Judgements.build(np.arange(queries), positive, np.ones(queries), queries=queries, documents=documents)
    return Dataset(asked, Collection([f"d{i:03}" for i in range(documents)], texts), judgements)


# ---------------------------------------------------------------------------------------------------------------- draws


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(0, 1000)),
    st.integers(1, 7),
)
def test_draws_differ_and_blocks_do_not_matter(k: int, size: int, seed: int, uneven: int | None, queries: int) -> None:
    mass = None
    if uneven is not None:
        mass = np.random.default_rng(uneven).pareto(0.5, size) * np.random.default_rng(uneven + 1).integers(0, 2, size)
        mass[uneven % size] = 1.0
    keys = query_keys([f"q{i}" for i in range(queries)], (seed,))
    drawn = distinct_draws(keys, k, size, mass)
    possible = size if mass is None else int((mass > 0).sum())
    for row in drawn:
        held = row[row >= 0]
        assert len(held) == len(set(held.tolist())) == min(k, possible)
        assert (row[len(held) :] == -1).all()
        assert mass is None or (mass[held] > 0).all()
    apart = np.concatenate([distinct_draws(keys[i : i + 1], k, size, mass) for i in range(queries)])
    assert (apart == drawn).all()


@pytest.mark.parametrize("size", [6, 400])  # by race at once; by rejection
def test_the_first_and_second_draw_have_the_right_probabilities(size: int) -> None:
    mass = np.zeros(size)
    mass[:6] = [1, 2, 3, 4, 0, 10]
    drawn = distinct_draws(query_keys(map(str, range(20_000)), (1,)), 2, size, mass)
    p = mass[:6] / 20
    first = np.bincount(drawn[:, 0], minlength=6)[:6] / 20_000
    assert np.abs(first - p).max() < 4 * np.sqrt(0.25 / 20_000)
    second = np.array([sum(p[j] * p[i] / (1 - p[j]) for j in range(6) if j != i) for i in range(6)])
    assert np.abs(np.bincount(drawn[:, 1], minlength=6)[:6] / 20_000 - second).max() < 4 * np.sqrt(0.25 / 20_000)


def test_uniform_draws_are_uniform_in_every_place() -> None:
    drawn = distinct_draws(query_keys(map(str, range(30_000)), (0,)), 3, 500)
    for place in range(3):
        counts = np.bincount(drawn[:, place], minlength=500)
        chi = ((counts - 60) ** 2 / 60).sum()
        assert 350 < chi < 650  # 499 degrees of freedom, deviation 32
    together = np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]
    assert abs(together) < 0.025


def test_streams_of_neighbouring_keys_are_unrelated() -> None:
    numbers = stream(np.arange(2000, dtype=np.uint64), np.arange(50))
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.02
    assert numbers.min() >= 0
    assert numbers.max() < 1


# --------------------------------------------------------------------------------------------------------------- random


def test_random_draws_depend_on_seed_epoch_and_id_alone() -> None:
    data = dataset()
    whole = RandomSource(data.documents, seed=3)(data.queries, 7)
    part = RandomSource(data.documents, seed=3)(data.queries.take([5, 2]), 7)
    assert part.document[:7].tolist() == whole.document[35:42].tolist()
    assert part.document[7:].tolist() == whole.document[14:21].tolist()
    for other in (RandomSource(data.documents, seed=4), RandomSource(data.documents, seed=3, epoch=1)):
        assert other(data.queries, 7).document.tolist() != whole.document.tolist()


def test_random_excludes_nothing_and_gives_all_there_is() -> None:
    data = dataset(documents=9)
    run = RandomSource(data.documents)(data, 100)
    assert np.diff(run.offsets).tolist() == [9] * 24
    assert np.isnan(run.positive_score).all()
    marked = KnownPositives()(run)
    assert int((~marked.keep).sum()) == 24


def test_by_frequency_follows_the_positives() -> None:
    data = dataset(queries=200, documents=20)
    count = np.bincount(data.judgements.document, minlength=20).astype(float)
    source = RandomSource.by_frequency(data)
    np.testing.assert_allclose(source.probabilities, count**0.75 / (count**0.75).sum())
    many = Collection([f"x{i}" for i in range(20_000)], name="query")
    drawn = np.bincount(source(many, 1).document, minlength=20) / 20_000
    assert np.abs(drawn - source.probabilities).max() < 0.015
    smooth = RandomSource.by_frequency(data, unseen=1.0, power=1.0)
    np.testing.assert_allclose(smooth.probabilities, (count + 1) / (count + 1).sum())
    np.testing.assert_allclose(RandomSource(data.documents).probabilities, 1 / 20)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": [1.0]}, r"weights have shape \(1,\) for 60 documents"),
        ({"weights": np.zeros(60)}, "every weight is 0"),
        ({"weights": np.full(60, -1.0)}, "the weight of document row 0 is -1.0"),
        ({"weights": np.full(60, np.nan)}, "the weight of document row 0 is nan"),
        ({"weights": np.ones(60), "power": np.inf}, "power must be a finite number"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
        ({"epoch": 1.5}, "epoch must be a whole number"),
    ],
)
def test_random_options_are_checked(change: dict[str, object], said: str) -> None:
    with pytest.raises(RivalsError, match=said):
        RandomSource(dataset().documents, **change)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="unseen must be"):
        RandomSource.by_frequency(dataset(), unseen=-1)


# ------------------------------------------------------------------------------------------------------------- in-batch


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 20), st.integers(1, 12))
def test_in_batch_lists_hold_the_positives_of_the_batch(batch: int, seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    queries, documents = 13, 8
    pairs = sorted({(int(q), int(d)) for q, d in generator.integers(0, [queries, documents], (20, 2))})
    data = Dataset(
        Collection([f"q{i}" for i in range(queries)], name="query"),
        Collection([f"d{i}" for i in range(documents)]),
        Judgements.build(*zip(*pairs, strict=True), np.ones(len(pairs)), queries=queries, documents=documents),
    )
    source = InBatchSource(data, batch, seed=seed)
    order = source.order.tolist()
    run = source(data, k)
    for place, query in enumerate(order):
        start = place // batch * batch
        members = order[start : start + batch]
        ahead = members[place - start + 1 :] + members[: place - start]
        expected = list(dict.fromkeys(d for other in ahead for q, d in pairs if q == other))[:k]
        assert run.document[run.offsets[query] : run.offsets[query + 1]].tolist() == expected
    backwards = np.arange(queries)[::-1]
    parts = source(data.queries.take(backwards), k)
    again = parts.take(backwards)
    assert again.document.tolist() == run.document.tolist()
    assert again.offsets.tolist() == run.offsets.tolist()


def test_the_order_given_is_the_order_trained_on() -> None:
    data = dataset(queries=6)
    run = InBatchSource(data, 3, order=[5, 0, 3, 1, 2, 4])(data.queries)
    positives = data.judgements.document
    assert run.document[run.offsets[5] : run.offsets[6]].tolist() == list(dict.fromkeys(positives[[0, 3]].tolist()))
    assert InBatchSource(data, 4, seed=1).order.tolist() != InBatchSource(data, 4, seed=1, epoch=1).order.tolist()


def test_in_batch_options_are_checked() -> None:
    data = dataset(queries=4)
    with pytest.raises(RivalsError, match="batch_size must be a whole number, 2 or more"):
        InBatchSource(data, 1)
    for order in ([0, 1, 2], [0, 1, 2, 2], [0.0, 1.0, 2.0, 3.0]):
        with pytest.raises(RivalsError, match="order must hold each of the 4 query rows"):
            InBatchSource(data, 2, order=order)
    with pytest.raises(RivalsError, match="query 'other' is not among the 4"):
        InBatchSource(data, 2)(Collection(["other"], name="query"))


# -------------------------------------------------------------------------------------------------- unions and pipelines


@pytest.fixture(scope="module")
def parts() -> tuple[Dataset, BM25, Dense]:
    data = dataset()
    return data, BM25(data.documents), Dense(LetterEncoder(), data.documents, show_progress=False)


@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_a_union_is_scored_by_the_member_that_scores(parts: tuple[Dataset, BM25, Dense], place: str) -> None:
    data, bm25, dense = parts
    random = RandomSource(data.documents, seed=2)
    united = {"first": random | bm25 | dense, "last": bm25 | dense | random, "middle": bm25 | random | dense}[place]
    assert united.scorer is dense
    assert united.scores_pairs
    run = united(data, 5)
    np.testing.assert_array_equal(run.score, dense.score(data.queries, run.query, run.document))
    known = data.judgements
    np.testing.assert_array_equal(run.positive_score, dense.score(data.queries, known.query, known.document))
    proposed = ~np.isnan(run.features["random"])
    assert proposed.sum() == 5 * len(data.queries)
    kept = PositiveAware(relative=0.05)(run)
    assert 0 < (~kept.keep).sum() < len(run)


def test_a_union_of_sources_without_scores_says_so(parts: tuple[Dataset, BM25, Dense]) -> None:
    data, _, dense = parts
    blind = RandomSource(data.documents) | InBatchSource(data, 4)
    for asked in (data, data.queries):
        with pytest.raises(RivalsError, match="none of the united random, in-batch scores candidates"):
            blind(asked, 3)
    assert (blind | dense)(data, 3).scorer == "dense"


def test_walks_from_the_positives_unite_with_a_retriever(parts: tuple[Dataset, BM25, Dense]) -> None:
    data, _, dense = parts
    size = len(data.documents)
    links = (np.arange(size + 1) * 2, (np.repeat(np.arange(size), 2) + np.tile([1, 7], size)) % size)
    walk = LinkSource(data.documents, dense.vectors, links, lambda queries: dense.query_vectors(queries))
    run = (walk | RandomSource(data.documents) | dense)(data, 4)
    assert run.scorer == "dense"
    met = ~np.isnan(run.features["walk"])
    alone = walk(data, 4)
    assert run.document[met].tolist() == [d for q in range(len(data.queries)) for d in _in_order(run, alone, q)]


def _in_order(run: Run, part: Run, query: int) -> list[int]:
    wanted = set(part.document[part.offsets[query] : part.offsets[query + 1]].tolist())
    return [d for d in run.document[run.offsets[query] : run.offsets[query + 1]].tolist() if d in wanted]


def test_rescoring_makes_a_random_source_comparable(parts: tuple[Dataset, BM25, Dense]) -> None:
    data, _, dense = parts
    with pytest.raises(RivalsError, match="has no score"):
        PositiveAware(relative=0.05)(RandomSource(data.documents)(data, 5))
    run = (RandomSource(data.documents) >> Rescore(dense) >> PositiveAware(relative=0.05))(data, 5)
    np.testing.assert_array_equal(run.score, dense.score(data.queries, run.query, run.document))
    assert len(run) == 5 * len(data.queries)


@pytest.mark.parametrize("block", [1, 5, 24])
@pytest.mark.parametrize("hold", ["all", "drawn"])
def test_a_whole_pipeline_in_blocks_is_the_pipeline_at_once(
    parts: tuple[Dataset, BM25, Dense], block: int, hold: str
) -> None:
    data, bm25, dense = parts
    source = bm25 | dense | RandomSource(data.documents, seed=7)
    sampler = Uniform(3, seed=1)
    whole = source(data, 8)
    for step in (KnownPositives(), PositiveAware(relative=0.05)):
        whole = step(whole)
    at_once = mine_hard_negatives(
        source, data, filters=PositiveAware(relative=0.05), sampler=sampler, top_k=8, seed=4, show=False
    )
    mined = mine_hard_negatives(
        source >> KnownPositives(),
        data,
        filters=PositiveAware(relative=0.05),
        sampler=sampler,
        top_k=8,
        seed=4,
        block=block,
        hold=hold,  # type: ignore[arg-type]
        show=False,
    )
    assert (mined.draw.candidate == at_once.draw.candidate).all()
    assert (mined.draw.log_probability == at_once.draw.log_probability).all()
    assert mined.negatives.document.tolist() == at_once.negatives.document.tolist()
    assert mined.negatives.score.tolist() == at_once.negatives.score.tolist()
    if hold == "all":
        assert mined.run.document.tolist() == whole.document.tolist()
        np.testing.assert_array_equal(mined.run.features["bm25"], whole.features["bm25"])
        texts_aside = mined.run.where_reason("positive-aware relative 0.05")
        assert (texts_aside == whole.where_reason("positive-aware relative 0.05")).all()
