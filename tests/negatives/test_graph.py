"""Steps in a knowledge graph, the filter by them, suspects for the loss; on hand-made graphs, random ones and real ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.data.formats.triples import load_triples
from rivals.data.triples import Triples
from rivals.errors import RivalsError
from rivals.losses import hardness_weights, structure_aware_info_nce_loss
from rivals.negatives import entity_graph
from rivals.negatives.corrupted_triples import CorruptedTriples
from rivals.negatives.entity_graph import EntityGraph
from rivals.negatives.filters import KnownPositives, PositiveAware
from rivals.negatives.graph import GraphDistance, graph_suspects, missing_answers


def graph_of(train, size=None, relations=2, **parts):
    rows = np.array(train, np.int64).reshape(-1, 3)
    size = size or int(rows[:, [0, 2]].max(initial=0)) + 1
    named = {name: np.array(part) for name, part in parts.items()}
    return Triples(
        Collection([f"e{i:03}" for i in range(size)]),
        Collection([f"r{i}" for i in range(relations)], name="relation"),
        {"train": rows, **named},
    )


CHAIN = graph_of([[0, 0, 1], [1, 1, 2], [2, 0, 3], [3, 0, 0], [4, 1, 1]])  # 0 -> 1 -> 2 -> 3 -> 0, 4 -> 1


# ------------------------------------------------------------------------------------------------------------- steps


def test_steps_by_hand():
    graph = EntityGraph(CHAIN)
    targets = np.arange(5)
    assert graph.distances(np.zeros(5, int), targets, max_hops=2).tolist() == [0, 1, 2, 3, 3]
    assert graph.distances(np.zeros(5, int), targets, max_hops=9).tolist() == [0, 1, 2, 3, 10]
    assert graph.distances(np.ones(5, int), targets, max_hops=9, backward=True).tolist() == [1, 0, 3, 2, 1]
    loose = EntityGraph(CHAIN, directed=False)
    assert loose.distances(np.zeros(5, int), targets, max_hops=9).tolist() == [0, 1, 2, 1, 2]
    members, offsets = graph.reached([0, 4, 0], hops=2, backward=[False, False, True])
    assert [members[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [[1, 2], [1, 2], [2, 3]]


@st.composite
def graphs(draw):
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    size, relations, count = draw(st.integers(2, 12)), draw(st.integers(1, 3)), draw(st.integers(0, 25))
    rows = np.stack([generator.integers(0, high, count) for high in (size, relations, size)], axis=1)
    return graph_of(rows, size, relations, valid=rows[:2])


def walk(rows, size, hops, directed=True):
    """Steps by repeated expansion of sets."""
    near = {source: {source} for source in range(size)}
    for head, _, tail in rows.tolist():
        near[head].add(tail)
        if not directed:
            near[tail].add(head)
    steps = np.full((size, size), hops + 1)
    for source in range(size):
        seen = {source}
        steps[source, source] = 0
        for hop in range(1, hops + 1):
            seen |= {other for entity in seen for other in near[entity]}
            for entity in seen:
                steps[source, entity] = min(steps[source, entity], hop)
    return steps


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 4), st.booleans())
def test_steps_equal_a_plain_walk_by_either_computation(triples, hops, directed):
    size, rows = len(triples.entities), triples.parts["train"]
    expected = walk(rows, size, hops, directed)
    graph = EntityGraph(triples, directed=directed)
    source, target = np.divmod(np.arange(size * size), size)
    found = graph.distances(source, target, max_hops=hops).reshape(size, size)
    assert (found == expected).all()
    assert (graph.distances(target, source, max_hops=hops, backward=True).reshape(size, size) == expected).all()
    level = np.full((size, size), hops + 1, np.int8)
    products = entity_graph._levels_by_products(graph._forward, np.arange(size), hops, level)
    assert (products == expected).all()
    members, offsets = graph.reached(np.arange(size), hops=hops)
    for each in range(size):
        near = np.flatnonzero((expected[each] > 0) & (expected[each] <= hops))
        assert members[offsets[each] : offsets[each + 1]].tolist() == near.tolist()


def test_blocks_do_not_matter(monkeypatch):
    generator = np.random.default_rng(0)
    triples = graph_of(
        np.stack([generator.integers(0, 40, 80), generator.integers(0, 2, 80), generator.integers(0, 40, 80)], 1)
    )
    graph = EntityGraph(triples)
    source, target, back = generator.integers(0, 40, 300), generator.integers(0, 40, 300), generator.random(300) < 0.5
    whole, lists = graph.distances(source, target, backward=back), graph.reached(source, backward=back)
    run = CorruptedTriples(triples, known=())(triples.dataset(side="both"), k=10)
    suspects = graph_suspects(run, graph)
    monkeypatch.setattr(entity_graph, "_CELLS", 100)
    assert (graph.distances(source, target, backward=back) == whole).all()
    assert all((one == two).all() for one, two in zip(graph.reached(source, backward=back), lists, strict=True))
    assert (graph_suspects(run, graph).document == suspects.document).all()


# ------------------------------------------------------------------------------------------------------------ filter


def run_over(triples, side="tail", part="train"):
    dataset = triples.dataset(part, side=side)
    size, queries = len(triples.entities), len(dataset.queries)
    score = np.random.default_rng(0).random(queries * size)
    known = dataset.judgements.positives
    return Run.build(
        dataset.queries,
        triples.entities,
        np.arange(queries + 1) * size,
        np.tile(np.arange(size), queries),
        score,
        positives=(known.offsets, known.document),
        positive_score=score[known.query * size + known.document],
    )


def test_candidates_two_steps_away_are_marked():
    marked = GraphDistance(EntityGraph(CHAIN))(run_over(CHAIN))
    asked = dict(enumerate(marked.queries.ids.tolist()))
    gone = {asked[query]: sorted(marked.document[(marked.query == query) & ~marked.keep].tolist()) for query in asked}
    assert gone == {
        "(e000, r0, ?)": [1, 2],
        "(e001, r1, ?)": [2, 3],
        "(e002, r0, ?)": [0, 3],
        "(e003, r0, ?)": [0, 1],
        "(e004, r1, ?)": [1, 2],
    }
    heads = GraphDistance(EntityGraph(CHAIN), max_hops=1)(run_over(CHAIN, "head"))
    assert {
        heads.queries.ids[query]: sorted(heads.document[(heads.query == query) & ~heads.keep].tolist())
        for query in range(len(heads.queries))
    } == {
        "(?, r0, e000)": [3],
        "(?, r0, e001)": [0, 4],
        "(?, r0, e003)": [2],
        "(?, r1, e001)": [0, 4],
        "(?, r1, e002)": [1],
    }


def test_weights_and_probabilities():
    run = run_over(CHAIN)
    graph = EntityGraph(CHAIN)
    flagged = GraphDistance(graph, action="flag", probability=0.25)(run)
    weighted = GraphDistance(graph, action="weight", probability=0.25)(run)
    suspect = flagged.where_reason("within 2 steps in the graph")
    assert suspect.sum() == 10
    assert flagged.keep.all()
    assert weighted.keep.all()
    assert (flagged.weight == 1).all()
    for found in (flagged, weighted):
        assert (found.fn_probability[suspect] == 0.25).all()
        assert np.isnan(found.fn_probability[~suspect]).all()
    assert np.unique(weighted.weight[suspect]).tolist() == [0.75]
    surer = GraphDistance(graph, action="flag", probability=0.25)(run.replace(fn_probability=np.full(len(run), 0.5)))
    assert (surer.fn_probability == 0.5).all()


@settings(max_examples=40, deadline=None)
@given(graphs(), st.sampled_from(["drop", "weight", "flag"]))
def test_it_marks_only_is_idempotent_and_commutes(triples, action):
    run = run_over(triples, "both", "train")
    rule = GraphDistance(EntityGraph(triples), action=action, probability=0.1)
    once = rule(run)
    assert (once.document == run.document).all()
    assert (once.label == run.label).all()
    twice = rule(once)
    for name in ("keep", "reason", "weight", "fn_probability"):
        assert np.array_equal(getattr(twice, name), getattr(once, name), equal_nan=True)
    for other in (KnownPositives(), PositiveAware(max_score=0.5)):
        one, two = other(rule(run)), rule(other(run))
        assert (one.keep == two.keep).all()
        assert (one.weight == two.weight).all()
    if len(run.queries):
        assert (rule(run.take([0])).keep == once.take([0]).keep).all()


# ----------------------------------------------------------------------------------------------------- missing answers


def test_share_of_missing_answers_by_hand():
    """(0, r0, ?) misses 2, which lies two steps away; (4, r1, ?) misses 3, three steps away. 5 entities, 1 known each."""
    triples = graph_of(CHAIN.parts["train"], valid=[[0, 0, 2], [4, 1, 3], [0, 0, 1]])
    found = missing_answers(EntityGraph(triples))
    # near: {1, 2} less the known 1 for each question; anywhere: 4 entities each
    assert found.near == 1 / 2
    assert found.anywhere == 2 / 8
    assert found.recall == 1 / 2
    assert found.lift == 2


def test_missing_answers_crowd_within_two_steps_of_real_graphs(shared_data):
    """The paper's assumption, measured: a missing true tail is several times more frequent there than anywhere."""
    for name, least in (("codex_s", 3), ("umls", 1.2)):
        graph = EntityGraph(load_triples(shared_data / name))
        found = missing_answers(graph, side="both")
        assert found.lift > least
        assert found.recall > 0.4


def test_the_filter_drops_more_hidden_answers_than_it_loses_negatives(shared_data):
    """A fifth of CoDEx-S's training part hidden: of 50 typed tails a query, which share of the hidden ones is marked?"""
    whole = load_triples(shared_data / "codex_s")
    rows = whole.part("train")
    hidden = np.random.default_rng(1).random(len(rows)) < 0.2
    triples = Triples(whole.entities, whole.relations, {"train": rows[~hidden], "hidden": rows[hidden]})
    source = CorruptedTriples(triples, known=("train",), pool="typed")
    run = source(triples.dataset("train"), k=50)
    truth = set(map(tuple, rows[hidden].tolist()))
    table = run.queries.table
    entity, relation = (table[name].to_numpy()[run.query] for name in ("entity", "relation"))
    missing = np.array(
        [triple in truth for triple in zip(entity.tolist(), relation.tolist(), run.document.tolist(), strict=True)]
    )
    assert missing.sum() > 300
    gone = ~GraphDistance(EntityGraph(triples))(run).keep
    assert gone[missing].mean() > 1.5 * gone[~missing].mean()
    assert gone[~missing].mean() < 0.4


# ------------------------------------------------------------------------------------------------- suspects for the loss


def test_suspects_come_from_the_list_then_from_around_then_from_the_known():
    triples = graph_of([[0, 0, 1], [0, 0, 5], [1, 1, 2], [1, 1, 3], [1, 1, 4]])
    dataset = triples.dataset().take([0])  # (0, r0, ?): 1 and 5 known, 2, 3, 4 two steps away
    known = dataset.judgements.positives
    run = Run.build(
        dataset.queries, triples.entities, [0, 3], [3, 1, 0], [0.9, 0.8, 0.7], positives=(known.offsets, known.document)
    )
    found = graph_suspects(run, EntityGraph(triples), count=5)
    assert found.document[0, 0] == 3
    assert sorted(found.document[0, 1:3].tolist()) == [2, 4]
    assert found.document[0, 3:].tolist() == [1, 5]
    assert found.origin.tolist() == [[0, 1, 1, 2, 2]]
    assert found.mask.all()
    draws = {graph_suspects(run, EntityGraph(triples), count=2, epoch=epoch).document[0, 1] for epoch in range(20)}
    assert draws == {2, 4}
    more = graph_suspects(run, EntityGraph(triples), count=7)
    assert more.mask.tolist() == [[True] * 5 + [False] * 2]
    with pytest.raises(RivalsError, match="count must be 1 or more"):
        graph_suspects(run, EntityGraph(triples), count=0)


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(1, 4))
def test_suspects_are_different_and_what_they_say(triples, count):
    run = run_over(triples, "both").top(3)
    graph = EntityGraph(triples)
    found = graph_suspects(run, graph, count=count)
    table = run.queries.table
    for query in range(len(run.queries)):
        own = found.document[query][found.mask[query]]
        origin = found.origin[query][found.mask[query]]
        assert len(set(own.tolist())) == len(own)
        assert (np.diff(origin) >= 0).all()
        known = run.positive[run.positive_offsets[query] : run.positive_offsets[query + 1]]
        assert np.isin(own[origin == 2], known).all()
        assert not np.isin(own[origin < 2], known).any()
        entity, backward = int(table["entity"][query].as_py()), bool(table["asks_head"][query].as_py())
        steps = graph.distances(np.full(len(own), entity), own, max_hops=2, backward=backward)
        assert ((steps[origin < 2] > 0) & (steps[origin < 2] <= 2)).all()
        listed = run.document[run.offsets[query] : run.offsets[query + 1]]
        assert np.isin(own[origin == 0], listed).all()
    again = graph_suspects(run, graph, count=count)
    assert (again.document == found.document).all()


def test_suspects_feed_the_structure_aware_loss(shared_data):
    triples = load_triples(shared_data / "umls")
    dataset = triples.dataset().take(np.arange(40))
    source = CorruptedTriples(triples, known=("train",))
    run = source(dataset, k=20)
    found = graph_suspects(run, EntityGraph(triples))
    generator = torch.Generator().manual_seed(0)
    entities = torch.randn(len(triples.entities), 8, generator=generator, requires_grad=True)
    queries = torch.randn(40, 8, generator=generator)
    positive = torch.from_numpy(run.positive[run.positive_offsets[:-1]])
    columns = torch.cat([positive[:, None], torch.from_numpy(run.document.reshape(40, 20))], 1)
    scores = torch.einsum("qd,qcd->qc", queries, entities[columns])
    relevance = torch.zeros_like(scores)
    relevance[:, 0] = 1
    false = torch.einsum("qd,qfd->qf", queries, entities[torch.from_numpy(found.document).clamp(min=0)])
    mask = torch.from_numpy(found.mask)
    weight = hardness_weights(false.detach(), torch.zeros_like(false), mask)
    options = {"weight": hardness_weights(scores.detach(), relevance), "false_scores": false, "false_weight": weight}
    plain = structure_aware_info_nce_loss(scores, relevance, weight=options["weight"])
    loss = structure_aware_info_nce_loss(scores, relevance, positive_prior=0.05, **options)
    loss.backward()
    assert torch.isfinite(entities.grad).all()
    assert loss < plain  # what suspects add is taken off


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_hops": 0}, "hops must be a whole number in 1..100"),
        ({"max_hops": 1.5}, "hops must be a whole number"),
        ({"action": "hide"}, "action must be one of"),
        ({"probability": 2.0}, "probability must lie in 0..1"),
        ({"action": "weight"}, "needs the probability"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(RivalsError, match=said):
        GraphDistance(EntityGraph(CHAIN), **options)


def test_what_does_not_fit():
    graph = EntityGraph(CHAIN)
    with pytest.raises(RivalsError, match="rows of the 5 of the graph"):
        graph.distances(np.array([5]), np.array([0]))
    with pytest.raises(RivalsError, match="no part 'dev'"):
        EntityGraph(CHAIN, part="dev")
    other = Run.build(Collection(["q"]), CHAIN.entities, [0, 1], [0], [0.5])
    with pytest.raises(RivalsError, match="not of a knowledge graph"):
        GraphDistance(graph)(other)
    stranger = Run.build(CHAIN.dataset().queries.take([0]), Collection(["x"]), [0, 1], [0], [0.5])
    with pytest.raises(RivalsError, match="different documents"):
        GraphDistance(graph)(stranger)
