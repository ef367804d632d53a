"""Ensemble source: principal axes against numpy's decomposition, the card's laws, and what cannot be done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.negatives import principal
from rivals.negatives.ensemble import EnsembleEncoder, EnsembleSource
from rivals.negatives.principal import PrincipalAxes, fit_principal_axes
from rivals.retrieve import Dense


class Table:
    """An encoder that looks vectors up by text."""

    def __init__(self, rows: dict[str, np.ndarray], name: str) -> None:
        self.rows, self.name, self.calls = rows, name, 0

    def encode(self, texts, *, role, progress):
        self.calls += 1
        return np.array([self.rows[text] for text in texts], np.float32)

    def fingerprint(self) -> str:
        return self.name


@pytest.fixture
def space():
    generator = np.random.default_rng(0)
    names = [f"t{i}" for i in range(60)]
    mixing = generator.standard_normal((5, 30))
    latent = generator.standard_normal((60, 5)) @ mixing + 0.05 * generator.standard_normal((60, 30))
    rows = [latent[:, :12], 40 * latent[:, 12:20], latent[:, 20:]]  # one encoder with much longer vectors
    encoders = [Table(dict(zip(names, part, strict=True)), f"e{i}") for i, part in enumerate(rows)]
    documents = Collection(names[:50], names[:50])
    queries = Collection(names[50:], names[50:], name="query")
    return encoders, documents, queries, rows


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_scores_are_the_cosines_of_centred_joined_unit_vectors_projected_on_the_components(space):
    encoders, documents, queries, rows = space
    source = EnsembleSource(encoders, documents, variance=0.9, show_progress=False)
    joined = np.hstack([unit(part) for part in rows])
    mean = joined[:50].mean(0)
    _, singular, axes = np.linalg.svd(joined[:50] - mean, full_matrices=False)
    share = np.cumsum(singular**2) / (singular**2).sum()
    r = int(np.argmax(share >= 0.9)) + 1
    assert source.components == r
    reduced = unit((joined - mean) @ axes[:r].T)
    run = source(queries, k=50)
    np.testing.assert_allclose(run.score, (reduced[50:] @ reduced[:50].T)[run.query, run.document], atol=2e-6)
    assert run.score_kind == "cosine"
    np.testing.assert_allclose(source.transform(["t3"]), ((joined - mean) @ source.axes.axes)[3:4], atol=1e-5)


def test_the_kept_components_reach_the_variance_and_one_less_does_not(space):
    encoders, documents, *_ = space
    for variance in (0.5, 0.8, 0.95, 0.99):
        share = EnsembleSource(encoders, documents, variance=variance, show_progress=False).explained_variance
        assert share.sum() >= variance - 1e-9
        assert share[:-1].sum() < variance
        assert (np.diff(share) <= 1e-12).all()


def test_all_variance_keeps_the_rank_and_the_cosines_of_the_centred_vectors(space):
    encoders, documents, queries, rows = space
    source = EnsembleSource(encoders, documents, variance=1.0, show_progress=False)
    centred = np.hstack([unit(part) for part in rows])
    centred = unit(centred - centred[:50].mean(0))
    assert source.components == np.linalg.matrix_rank(centred[:50], tol=1e-5)
    run = source(queries, k=3)
    np.testing.assert_allclose(run.score, (centred[50:] @ centred[:50].T)[run.query, run.document], atol=1e-5)


def test_turning_and_reflecting_an_encoder_changes_nothing(space):
    encoders, documents, queries, _rows = space
    plain = EnsembleSource(encoders, documents, show_progress=False)(queries, k=20)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0] * np.where(np.arange(12) % 2, -1, 1)
    turned = Table({name: row @ turn for name, row in encoders[0].rows.items()}, "turned")
    other = EnsembleSource([turned, *encoders[1:]], documents, show_progress=False)(queries, k=20)
    np.testing.assert_allclose(other.score, plain.score, atol=1e-5)


def test_without_normalising_the_longest_encoder_rules(space):
    encoders, documents, queries, rows = space
    loud = EnsembleSource(encoders, documents, variance=1.0, normalise_blocks=False, show_progress=False)(queries, k=5)
    centred = unit(rows[1] - rows[1][:50].mean(0))
    np.testing.assert_allclose(loud.score, (centred[50:] @ centred[:50].T)[loud.query, loud.document], atol=0.05)


def test_given_vectors_and_memory_maps_equal_encoding(space, tmp_path):
    encoders, documents, queries, rows = space
    encoded = EnsembleSource(encoders, documents, show_progress=False)
    calls = [encoder.calls for encoder in encoders]
    np.save(tmp_path / "part.npy", rows[1][:50].astype(np.float32))
    maps = [rows[0][:50].astype(np.float32), np.load(tmp_path / "part.npy", mmap_mode="r"), rows[2][:50]]
    read = EnsembleSource(encoders, documents, vectors=maps, show_progress=False)
    assert [encoder.calls for encoder in encoders] == calls
    np.testing.assert_allclose(np.abs(read.vectors), np.abs(encoded.vectors), atol=1e-5)
    found, expected = read(queries, k=4), encoded(queries, k=4)
    assert (found.document == expected.document).all()


def test_fitting_on_queries_too_changes_the_axes(space):
    encoders, documents, queries, rows = space
    joined = np.hstack([unit(part) for part in rows])
    both = EnsembleSource(encoders, documents, fit_on="both", queries=queries, show_progress=False)
    np.testing.assert_allclose(both.axes.mean, joined.mean(0), atol=1e-6)
    alone = EnsembleSource(encoders, documents, show_progress=False)
    np.testing.assert_allclose(alone.axes.mean, joined[:50].mean(0), atol=1e-6)


def test_it_is_a_retriever_that_scores_the_positives_alike(space):
    encoders, documents, queries, _ = space
    source = EnsembleSource(encoders, documents, show_progress=False)
    dataset = Dataset(queries, documents, Judgements.build(range(10), range(10), [1] * 10, queries=10, documents=50))
    run = source(dataset, k=50)
    assert isinstance(source, Dense)
    for q in range(10):
        rows = slice(run.offsets[q], run.offsets[q + 1])
        assert run.positive_score[q] == pytest.approx(run.score[rows][run.document[rows] == q].item(), abs=1e-6)


def test_another_model_gives_another_fingerprint(space):
    encoders, documents, *_ = space
    one = EnsembleSource(encoders[:2], documents, show_progress=False)
    two = EnsembleSource(encoders[1:], documents, show_progress=False)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == EnsembleSource(encoders[:2], documents, show_progress=False).fingerprint


# -------------------------------------------------------------------------------------------------------- the axes


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 10_000), st.floats(0.2, 1.0))
def test_axes_equal_numpys_decomposition_in_whatever_blocks(count, width, seed, share):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, width)) * np.exp(-0.3 * np.arange(width)) + 5
    cut = int(generator.integers(0, count + 1))
    fitted = fit_principal_axes(lambda: [rows[:cut], rows[cut:]], share=share)
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    variance = singular**2 / count
    r = len(fitted.variance)
    np.testing.assert_allclose(fitted.variance, variance[:r], rtol=1e-6, atol=1e-9)
    assert fitted.total == pytest.approx(variance.sum())
    np.testing.assert_allclose(fitted.axes.T @ fitted.axes, np.eye(r), atol=1e-6)
    assert fitted.share.sum() >= share - 1e-9
    assert fitted.project(rows).shape == (count, r)


def test_wide_vectors_go_through_the_randomised_iteration(monkeypatch):
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((300, 120)) * 0.9 ** np.arange(120)
    exact = fit_principal_axes(lambda: [rows], share=0.95)
    monkeypatch.setattr(principal, "_WIDEST", 50)
    found = fit_principal_axes(lambda: [rows[:100], rows[100:]], share=0.95)
    assert len(found.variance) == len(exact.variance)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=0.02)
    np.testing.assert_allclose(np.abs((found.axes * exact.axes).sum(0))[:8], 1, atol=0.02)
    assert (found.axes == fit_principal_axes(lambda: [rows[:100], rows[100:]], share=0.95).axes).all()


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variance": 0.0}, r"variance must lie in \(0, 1\]"),
        ({"variance": 1.5}, r"variance must lie in \(0, 1\]"),
        ({"fit_on": "queries"}, "fit_on must be"),
        ({"fit_on": "both"}, "queries are given with fit_on='both'"),
        ({"vectors": [np.ones((50, 2))]}, "3 encoders need as many sets"),
        ({"vectors": [np.ones((50, 2)), np.ones((49, 2)), np.ones((50, 2))]}, "encoder 1 have shape"),
    ],
)
def test_options_that_do_not_fit(space, options, said):
    encoders, documents, *_ = space
    with pytest.raises(RivalsError, match=said):
        EnsembleSource(encoders, documents, show_progress=False, **options)


def test_what_has_no_direction_is_named(space):
    encoders, documents, _queries, _ = space
    with pytest.raises(RivalsError, match="at least one encoder"):
        EnsembleSource([], documents, show_progress=False)
    with pytest.raises(RivalsError, match="2 documents or more"):
        EnsembleSource(encoders, documents.take([0]), show_progress=False)
    silent = Table(encoders[1].rows | {"t7": np.zeros(8)}, "silent")
    with pytest.raises(RivalsError, match="encoder 1 gives document 7"):
        EnsembleSource([encoders[0], silent], documents, show_progress=False)
    same = Table({f"t{i}": np.ones(3) for i in range(60)}, "same")
    with pytest.raises(RivalsError, match="2 different rows"):
        EnsembleSource([same], documents, show_progress=False)
    source = EnsembleSource(encoders[:1], documents, show_progress=False)
    with pytest.raises(RivalsError, match="20 dimensions together, the axes have 12"):
        EnsembleEncoder(encoders[:2], source.axes).encode(["t1"])
    axes = PrincipalAxes(np.ones(2), np.eye(2), np.ones(2), 2.0)
    with pytest.raises(RivalsError, match=r"query 0 .* length 0"):
        EnsembleEncoder([Table({"centre": np.ones(2)}, "middle")], axes, normalise_blocks=False).encode(
            ["centre"], role="query"
        )
