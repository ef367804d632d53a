"""exact_top_k against a float64 scan and faiss, on every product, in ties, in blocks, on odd input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.retrieve import _topk
from rivals.retrieve._topk import PreparedDocuments, exact_top_k

PRODUCTS = ("int8", "bfloat16", "float32")


def unit(generator: np.random.Generator, rows: int, width: int) -> np.ndarray:
    vectors = generator.normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(rows: np.ndarray, reference: np.ndarray) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows.tolist(), reference.tolist(), strict=True)])
    )


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_topk, "compiled", lambda: False)
    return


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 400), st.integers(1, 40), st.integers(1, 60)),
    product=st.sampled_from([*PRODUCTS, "torch"]),
    scale=st.sampled_from([1e-6, 1.0, 300.0]),
    offset=st.sampled_from([0.0, 2.0, -2.0]),
    copies=st.booleans(),
)
def test_equals_a_float64_scan(
    seed: int, sizes: tuple[int, int, int, int], product: str, scale: float, offset: float, copies: bool
) -> None:
    generator = np.random.default_rng(seed)
    many, size, width, k = sizes
    queries = (scale * generator.normal(size=(many, width))).astype(np.float32)
    documents = (scale * (offset + generator.normal(size=(size, width)))).astype(np.float32)
    if copies:
        documents[size // 2 :] = documents[: size - size // 2]
    reference = queries.astype(np.float64) @ documents.astype(np.float64).T
    with pytest.MonkeyPatch.context() as patch:
        if product == "torch":
            patch.setattr(_topk, "compiled", lambda: False)
        precision = "auto" if product == "torch" else product
        scores, rows = exact_top_k(queries, documents, k, precision=precision, proven=True)
    kept = min(k, size)
    assert scores.shape == rows.shape == (many, kept)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    norms = np.linalg.norm(queries, axis=1, keepdims=True) * np.linalg.norm(documents, axis=1).max()
    tolerance = 1e-6 * norms
    best = -np.sort(-reference, axis=1)[:, :kept]
    assert (np.abs(scores - best) <= tolerance).all()
    assert (np.abs(scores - np.take_along_axis(reference, rows, axis=1)) <= tolerance).all()
    assert all(len(set(row)) == kept for row in rows.tolist())
    assert (np.diff(scores) <= 0).all()
    assert (np.diff(rows)[np.diff(scores) == 0] > 0).all()


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("k", [1, 100])
def test_recall_of_the_faiss_list(product: str, k: int) -> None:
    faiss = pytest.importorskip("faiss")
    generator = np.random.default_rng(3)
    centres = unit(generator, 30, 128)
    documents = centres[generator.integers(30, size=6000)] + 0.7 * unit(generator, 6000, 128)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries = unit(generator, 200, 128)
    index = faiss.IndexFlatIP(128)
    index.add(documents)
    expected, listed = index.search(queries, k)
    scores, rows = exact_top_k(queries, documents, k, precision=product)
    assert recall(rows, listed) >= 0.999
    np.testing.assert_allclose(scores, expected, atol=2e-6)


def test_products_and_threads_and_blocks_agree_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    queries, documents = unit(generator, 70, 32), unit(generator, 3000, 32)
    order = generator.permutation(3000)
    scores, rows = exact_top_k(queries, documents, 40, order=order, precision="float32", threads=1)
    for block, stretch, tile in ((32_768, 32_768, 256), (700, 32_768, 16), (700, 150, 16), (2000, 333, 64)):
        for name, value in (("_BLOCK", block), ("_STRETCH", stretch), ("_TILE", tile)):
            monkeypatch.setattr(_topk, name, value)
        for product in PRODUCTS:
            for threads in (1, 3):
                other = exact_top_k(queries, documents, 40, order=order, precision=product, threads=threads)
                np.testing.assert_array_equal(other[1], rows)
                np.testing.assert_array_equal(other[0], scores)


def test_searching_in_threads_leaves_torch_with_its_own() -> None:
    generator = np.random.default_rng(7)
    queries, documents = unit(generator, 200, 16), unit(generator, 500, 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        exact_top_k(queries, documents, 5, threads=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("without_compiler")
def test_torch_alone_gives_the_same_list() -> None:
    generator = np.random.default_rng(6)
    queries, documents = unit(generator, 150, 24), unit(generator, 2500, 24)
    _, rows = exact_top_k(queries, documents, 30)
    expected = np.argsort(-(queries.astype(np.float64) @ documents.T.astype(np.float64)), axis=1)[:, :30]
    assert recall(rows, expected) == 1.0


def test_int8_dither_bears_vectors_whose_rounding_is_one_sided() -> None:
    """One huge value and many equal small ones: plain rounding would lose all the small ones in the same direction."""
    generator = np.random.default_rng(7)
    documents = np.abs(0.003 * generator.normal(size=(4000, 256))).astype(np.float32)
    documents[:, 0] = 1.0 + 0.001 * generator.normal(size=4000)
    queries = np.abs(generator.normal(size=(60, 256))).astype(np.float32)
    expected = np.argsort(-(queries.astype(np.float64) @ documents.T.astype(np.float64)), axis=1)[:, :50]
    assert recall(exact_top_k(queries, documents, 50, precision="int8")[1], expected) >= 0.9999


@pytest.mark.parametrize("product", [*PRODUCTS, "torch"])
def test_equal_scores_are_cut_by_order(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if product == "torch":
        monkeypatch.setattr(_topk, "compiled", lambda: False)
        product = "auto"
    documents = np.tile(np.array([[0.3, 0.4]], np.float32), (500, 1))
    documents[100] *= 2
    scores, rows = exact_top_k(np.ones((2, 2), np.float32), documents, 4, precision=product)
    assert rows.tolist() == [[100, 0, 1, 2]] * 2
    np.testing.assert_allclose(scores[0], [1.4, 0.7, 0.7, 0.7], rtol=1e-6)
    backwards = np.arange(499, -1, -1)
    assert exact_top_k(np.ones((1, 2), np.float32), documents, 4, order=backwards, precision=product)[1].tolist() == [
        [100, 499, 498, 497]
    ]


def test_signs_zeros_and_empty_sides() -> None:
    documents = np.array([[-1.0], [0.0], [-0.0], [2.0]], np.float32)
    scores, rows = exact_top_k(np.array([[-1.0], [0.0]], np.float32), documents, 9)
    assert rows.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert scores.tolist() == [[1, 0, 0, -2], [0, 0, 0, 0]]
    for queries, rest, k in ((np.empty((0, 3)), np.ones((4, 3)), 2), (np.ones((2, 3)), np.empty((0, 3)), 2)):
        scores, rows = exact_top_k(queries, rest, k)
        assert scores.shape == rows.shape == (len(queries), min(k, len(rest)))
    assert exact_top_k(np.ones((2, 3)), np.ones((4, 3)), 0)[1].shape == (2, 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_and_memory_maps(dtype: type, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(8)
    queries, documents = unit(generator, 20, 16), unit(generator, 900, 16).astype(dtype)
    expected = exact_top_k(queries, documents.astype(np.float32), 7)
    np.save(tmp_path / "vectors.npy", documents)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    monkeypatch.setattr(_topk, "_BLOCK", 256)
    held = PreparedDocuments(mapped, keep=0)
    for _ in range(2):
        scores, rows = exact_top_k(queries, held, 7)
        np.testing.assert_array_equal(rows, expected[1])
        np.testing.assert_array_equal(scores, expected[0])
    assert not held._blocks


def test_reduced_float32_products_widen_the_margin() -> None:
    generator = np.random.default_rng(9)
    queries, documents = unit(generator, 30, 64), unit(generator, 1500, 64)
    expected = exact_top_k(queries, documents, 20, precision="float32")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = exact_top_k(queries, documents, 20, precision="float32")
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("product", [*PRODUCTS, "torch"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_not_finite_are_named(product: str, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if product == "torch":
        monkeypatch.setattr(_topk, "compiled", lambda: False)
        product = "auto"
    good, wrong = np.ones((5, 3), np.float32), np.ones((5, 3), np.float32)
    wrong[3, 1] = bad
    fault = "too large" if bad == 1e30 else "NaN or infinity"
    with pytest.raises(RivalsError, match=f"documents: row 3 .*{fault}"):
        exact_top_k(good, wrong, 2, precision=product)
    with pytest.raises(RivalsError, match=f"queries: row 3 .*{fault}"):
        exact_top_k(wrong, good, 2, precision=product)


@pytest.mark.parametrize(
    ("queries", "documents", "options", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), {}, "3 dimensions and documents 4"),
        (np.ones(3), np.ones((2, 3)), {}, "queries must be a matrix"),
        (np.ones((2, 3)), np.ones((2, 3), int), {}, "documents must be floats"),
        (np.ones((2, 3)), np.ones((2, 3)), {"k": -1}, "k is -1"),
        (np.ones((2, 3)), np.ones((2, 3)), {"k": 1.5}, "k is 1.5"),
        (np.ones((2, 3)), np.ones((2, 3)), {"order": np.array([0, 0])}, "permutation"),
        (np.ones((2, 3)), np.ones((2, 3)), {"precision": "int4"}, "precision is 'int4'"),
        (np.ones((2, 3)), np.ones((2, 3)), {"device": "no such device"}, "device 'no such device'"),
    ],
)
def test_bad_input_is_named(queries: np.ndarray, documents: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        exact_top_k(queries, documents, **{"k": 1, **options})


def test_progress_counts_every_pair() -> None:
    seen: list[float] = []
    exact_top_k(np.ones((150, 3)), np.ones((40, 3)), 2, advance=seen.append)
    assert sum(seen) == 150 * 40
