"""k-means and what it leaves: against a peer, spherical, given clusters, files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from rivals.errors import DataError, RivalsError
from rivals.negatives.centers import Clusters, k_means, nearest_centers, squared_distances


def blobs(seed: int, groups: int = 5, each: int = 40, width: int = 6) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(groups, width)) * 8
    return np.concatenate([center + generator.normal(size=(each, width)) for center in centers])


def test_as_good_as_the_peer():
    vectors = blobs(0)
    centers, labels = k_means(vectors, 5, generator=np.random.default_rng(1))
    ours = ((vectors - centers[labels]) ** 2).sum()
    assert ours == pytest.approx(KMeans(5, n_init=10, random_state=0).fit(vectors).inertia_, rel=1e-6)
    for cluster in range(5):
        assert centers[cluster] == pytest.approx(vectors[labels == cluster].mean(0))
    wide = blobs(3, groups=40, each=10, width=20)
    centers, labels = k_means(wide, 40, generator=np.random.default_rng(1), n_init=3)
    peer = KMeans(40, n_init=3, random_state=0).fit(wide).inertia_
    assert ((wide - centers[labels]) ** 2).sum() < 1.3 * peer


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_labels_are_the_nearest_centres(seed, number):
    vectors = np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
    one, two = (Clusters.fit(vectors, number, seed=seed, spherical=False, show=False) for _ in range(2))
    assert np.array_equal(one.labels, two.labels)
    distance = np.linalg.norm(vectors[:, None] - one.centers[None], axis=2)
    assert distance[np.arange(30), one.labels] == pytest.approx(distance.min(1), abs=1e-5)
    assert np.array_equal(
        one.nearest(vectors, number), np.argsort(squared_distances(vectors, one.centers), axis=1, kind="stable")
    )


def test_spherical_clusters_know_directions_only():
    """Check 5 of paper 85: lengths change nothing."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(60, 4))
    lengths = generator.uniform(0.1, 9.0, (60, 1))
    one, two = (Clusters.fit(rows, 6, seed=2, show=False) for rows in (vectors, vectors * lengths))
    assert np.array_equal(one.labels, two.labels)
    assert np.linalg.norm(one.centers, axis=1) == pytest.approx(1, abs=1e-5)
    cosine = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ one.centers.T
    assert np.array_equal(one.nearest(vectors, 2), np.argsort(-cosine, axis=1, kind="stable")[:, :2])
    longer = Clusters(one.centers * np.arange(1, 7)[:, None].astype(np.float32), one.labels, spherical=True)
    assert np.array_equal(longer.nearest(vectors, 6), one.nearest(vectors, 6))


def test_second_nearest_of_two():
    """Check 2 of paper 85."""
    clusters = Clusters.given([0, 1], centers=np.eye(2), spherical=True)
    assert clusters.nearest([[1.0, 0.2], [0.1, 3.0]], 2)[:, 1].tolist() == [1, 0]


def test_a_sample_is_enough(tmp_path: Path):
    vectors = blobs(1, each=400).astype(np.float32)
    path = tmp_path / "vectors.npy"
    np.save(path, vectors)
    clusters = Clusters.fit(np.load(path, mmap_mode="r"), 5, sample=20, spherical=False, show=False, n_init=3)
    assert sorted(clusters.sizes.tolist()) == [400] * 5


def test_blocks_do_not_matter(monkeypatch):
    vectors = blobs(2)
    centers = vectors[:7]
    whole = nearest_centers(vectors, centers, 3)
    monkeypatch.setattr("rivals.negatives.centers._CELLS", 50)
    parts = nearest_centers(vectors, centers, 3)
    assert np.array_equal(whole[0], parts[0])
    assert whole[1] == pytest.approx(parts[1])


def test_more_clusters_than_points():
    """Equal rows: empty clusters keep their centre, nothing divides by zero."""
    clusters = Clusters.fit(np.ones((4, 2)), 3, show=False)
    assert clusters.sizes.sum() == 4
    assert np.isfinite(clusters.centers).all()


def test_members_of_clusters():
    clusters = Clusters.given([2, 0, 2, 0, 1], vectors=np.arange(5.0)[:, None])
    assert clusters.centers.ravel().tolist() == [2.0, 4.0, 1.0]
    rows, offsets = clusters.members_of(np.array([[2, 1], [0, 2]]))
    assert [rows[a:b].tolist() for a, b in pairwise(offsets)] == [[0, 2, 4], [1, 3, 0, 2]]
    assert (len(clusters), repr(clusters)) == (3, "Clusters(3 of 5 rows)")


def test_save_and_load(tmp_path: Path):
    path = tmp_path / "clusters.safetensors"
    for spherical in (True, False):
        clusters = Clusters.fit(blobs(0), 5, spherical=spherical, show=False)
        clusters.save(path)
        loaded = Clusters.load(path)
        assert loaded.spherical is spherical
        assert np.array_equal(loaded.centers, clusters.centers)
        assert np.array_equal(loaded.labels, clusters.labels)
    path.write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        Clusters.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        Clusters.load(tmp_path / "none")
    from safetensors.numpy import save_file

    save_file({"centers": np.zeros((1, 1))}, path)
    with pytest.raises(DataError, match="holds no clusters"):
        Clusters.load(path)


def test_bad_input():
    vectors = blobs(0)
    clusters = Clusters.fit(vectors, 3, show=False)
    generator = np.random.default_rng(0)
    for call, message in (
        (lambda: k_means(vectors, 0, generator=generator), "clusters must lie in 1..200"),
        (lambda: k_means(vectors, 201, generator=generator), "clusters must lie in 1..200"),
        (lambda: k_means(vectors, 2, generator=generator, n_init=0), "n_init and max_iter"),
        (lambda: k_means(vectors * np.nan, 2, generator=generator), "finite numbers"),
        (lambda: Clusters.fit(vectors[:, 0], 2), "rows of finite numbers"),
        (lambda: Clusters.fit(vectors, 2, sample=0), "sample must be"),
        (lambda: Clusters.given([0, 1]), "need their centers"),
        (lambda: Clusters.given([0.5], centers=[[1.0]]), "whole numbers from 0"),
        (lambda: Clusters.given([-1], centers=[[1.0]]), "whole numbers from 0"),
        (lambda: Clusters.given([0, 1], centers=[[1.0]]), r"labels must lie in 0\.\.0"),
        (lambda: Clusters.given([0], vectors=vectors), "1 labels need as many vectors, not 200"),
        (lambda: clusters.nearest(vectors, 4), r"count must lie in 1\.\.3"),
        (lambda: clusters.nearest(vectors[:, :2]), "the centres' width 6"),
        (lambda: clusters.nearest(vectors * np.inf), "finite numbers"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()
