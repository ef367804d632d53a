"""Corrupted triples from text clusters (paper 49)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from rivals.errors import RivalsError
from rivals.negatives import TextClusterNegatives, degree_weight
from rivals.negatives.text_clusters import principal_components


def allowed(source: TextClusterNegatives, triples, triple, side, nearest, min_cosine, around) -> list[int]:
    """The rule of the card, entity by entity."""
    head, relation, tail = triple
    anchor = {"kept": (tail, head), "replaced": (head, tail)}[around][side == "tail"]
    distance = ((source.centers - source.vectors[anchor]) ** 2).sum(1)
    close = set(np.argsort(distance)[:nearest].tolist())
    found = []
    for entity, vector in enumerate(source.vectors):
        made = (entity, relation, tail) if side == "head" else (head, relation, entity)
        if source.labels[entity] not in close or made in triples:
            continue
        own = source.vectors[anchor]
        cosine = vector @ own / np.linalg.norm(vector) / np.linalg.norm(own)
        if min_cosine is None or cosine >= min_cosine or entity == anchor:
            found.append(entity)
    return found


def example(generator: np.random.Generator, entities: int = 30) -> tuple[TextClusterNegatives, list]:
    source = TextClusterNegatives(generator.normal(size=(entities, 4)), clusters=6, nearest=2)
    triples = [tuple(row) for row in generator.integers(0, [entities, 3, entities], (25, 3)).tolist()]
    return source, triples


def test_pools_against_the_rule() -> None:
    """Check 1, both sides, both entities, with and without the cosine."""
    generator = np.random.default_rng(0)
    made, triples = example(generator)
    for nearest in (1, 3):
        for min_cosine in (None, 0.4):
            for around in ("kept", "replaced"):
                source = TextClusterNegatives.from_clusters(
                    made.vectors, made.centers, made.labels, nearest=nearest, min_cosine=min_cosine, around=around
                )
                for side in ("head", "tail"):
                    members, offsets = source.pool(triples, side, known=triples)
                    for row, triple in enumerate(triples):
                        wanted = allowed(source, triples, triple, side, nearest, min_cosine, around)
                        assert members[offsets[row] : offsets[row + 1]].tolist() == wanted


def test_all_clusters_are_uniform_sampling() -> None:
    """Check 2."""
    made, triples = example(np.random.default_rng(1))
    source = TextClusterNegatives.from_clusters(made.vectors, made.centers, made.labels, nearest=6)
    members, offsets = source.pool(triples[:1], "tail")
    assert members.tolist() == list(range(30))
    assert offsets.tolist() == [0, 30]


def test_draws_are_uniform_and_never_known() -> None:
    """Check 3, with a known triple inside the pool, by rejection and where little is left."""
    vectors = np.concatenate([np.zeros((7, 1)), np.full((40, 1), 9.0)])
    source = TextClusterNegatives.from_clusters(vectors, [[0.0], [9.0]], [0] * 7 + [1] * 40, nearest=1)
    for known in ([(0, 0, 3), (0, 0, 5)], [(0, 0, tail) for tail in range(7) if tail not in (1, 4)]):
        left = [tail for tail in range(7) if (0, 0, tail) not in known]
        found = source.draw(known[:1], "tail", 20_000, known=known, generator=np.random.default_rng(0))
        counts = Counter(found.candidate.ravel().tolist())
        assert sorted(counts) == left
        assert chisquare(list(counts.values())).pvalue > 1e-3
        assert found.mask.all()
        assert found.fallbacks == 0


def test_draws_stay_in_their_pools() -> None:
    generator = np.random.default_rng(2)
    source, triples = example(generator)
    for side in ("head", "tail"):
        members, offsets = source.pool(triples, side, known=triples)
        found = source.draw(triples, side, 16, known=triples, generator=generator)
        for row in range(len(triples)):
            pool = set(members[offsets[row] : offsets[row + 1]].tolist())
            assert set(found.candidate[row].tolist()) <= pool or not pool
    one, two = (source.draw(triples, "head", 4, generator=np.random.default_rng(7)).candidate for _ in range(2))
    assert (one == two).all()


def test_fallback() -> None:
    """Check 4: the cosine leaves the kept entity alone; that being known, the draw is from all others and counted."""
    angle = np.linspace(0, 3, 8)
    vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
    source = TextClusterNegatives.from_clusters(vectors, vectors[:1], [0] * 8, nearest=1, min_cosine=1.0)
    triple = [[2, 0, 5]]
    assert source.pool(triple, "tail")[0].tolist() == [2]
    known = [[2, 0, 5], [2, 0, 2]]
    found = source.draw(triple, "tail", 500, known=known, generator=np.random.default_rng(0))
    assert found.fallbacks == 1
    assert set(found.candidate.ravel().tolist()) == {0, 1, 3, 4, 6, 7}
    every = [[2, 0, tail] for tail in range(8)]
    none = source.draw(triple, "tail", 3, known=every, generator=np.random.default_rng(0))
    assert not none.mask.any()
    assert (none.candidate == -1).all()


def test_degree_weights() -> None:
    """Check 6, and counts of repeated pairs."""
    assert degree_weight([[0, 0, 1]]).tolist() == pytest.approx([1 / math.sqrt(8)])
    triples = np.random.default_rng(0).integers(0, 3, (20, 3)).tolist()
    counts: dict[tuple, int] = {}
    for head, relation, tail in triples:
        for key in ((head, relation), (tail, -relation - 1)):
            counts[key] = counts[key] + 1 if key in counts else 4
    wanted = [1 / math.sqrt(counts[h, r] + counts[t, -r - 1]) for h, r, t in triples]
    assert degree_weight(triples).tolist() == pytest.approx(wanted)


def test_clusters_are_as_good_as_the_peers() -> None:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(5, 6)) * 8
    vectors = np.concatenate([center + generator.normal(size=(40, 6)) for center in centers])
    source = TextClusterNegatives(vectors, clusters=5, nearest=1, seed=1)
    ours = ((vectors - source.centers[source.labels]) ** 2).sum()
    peer = KMeans(5, n_init=10, random_state=0).fit(vectors)
    assert ours == pytest.approx(peer.inertia_, rel=1e-6)
    assert sorted(source.sizes.tolist()) == [40] * 5
    reduced = principal_components(vectors, 2)
    assert np.abs(reduced) == pytest.approx(np.abs(PCA(2).fit_transform(vectors)), rel=1e-6, abs=1e-8)
    two = TextClusterNegatives(vectors, clusters=5, nearest=1, components=2)
    assert two.vectors.shape == (200, 2)
    same = TextClusterNegatives(np.ones((4, 2)), clusters=3, nearest=3)
    assert same.pool([[0, 0, 1]], "tail")[0].tolist() == [0, 1, 2, 3]


def test_bad_input() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 2))
    source = TextClusterNegatives(vectors, clusters=2, nearest=1)
    made = (vectors, vectors[:2], [0, 0, 1, 1, 1])
    generator = np.random.default_rng(0)
    for call in (
        lambda: TextClusterNegatives(vectors, clusters=6),
        lambda: TextClusterNegatives(vectors, clusters=2, nearest=3),
        lambda: TextClusterNegatives(vectors, clusters=2, nearest=1, n_init=0),
        lambda: TextClusterNegatives(vectors, clusters=2, nearest=1, components=3),
        lambda: TextClusterNegatives(vectors * np.nan, clusters=2, nearest=1),
        lambda: TextClusterNegatives.from_clusters(*made, nearest=0),
        lambda: TextClusterNegatives.from_clusters(*made, nearest=1, around="both"),
        lambda: TextClusterNegatives.from_clusters(*made, nearest=1, min_cosine=2),
        lambda: TextClusterNegatives.from_clusters(vectors, vectors[:2], [0, 0, 2, 1, 1], nearest=1),
        lambda: TextClusterNegatives.from_clusters(vectors, vectors[:2], [0, 1], nearest=1),
        lambda: source.pool([[0, 0, 1]], "both"),
        lambda: source.pool([[0, 0, 9]], "tail"),
        lambda: source.pool([[0, 1]], "tail"),
        lambda: source.draw([[0, 0, 1]], "tail", 0, generator=generator),
        lambda: degree_weight([[0, 0, 1]], start=0),
        lambda: degree_weight([[0, -1, 1]]),
    ):
        with pytest.raises(RivalsError):
            call()
