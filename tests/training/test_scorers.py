"""Scorers: the same matrix whichever way it is asked for, with any model behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivals.data import Collection
from rivals.errors import RivalsError
from rivals.models import CrossEncoder, Encoder
from rivals.models.list_ranker import ContextRanker
from rivals.training.scorers import FeatureScorer, PairScorer, Scorer, inference, pair_scores, rescore
from rivals.training.vector_scorers import EncodedTexts, MappedVectors, VectorScorer
from tests.models.tiny import TEXTS, write_tiny_bert
from tests.training.small_world import DOCUMENTS, QUERIES, World

ALL = np.arange(DOCUMENTS)


def whole(scorer: Scorer) -> np.ndarray:
    with inference(scorer.model):
        return scorer(np.arange(QUERIES), ALL, np.ones((QUERIES, DOCUMENTS), bool)).numpy()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(["dot", "cosine", "ranker"]))
def test_lists_are_cells_of_the_whole_matrix(seed: int, kind: str) -> None:
    world, rng = World(), np.random.default_rng(seed)
    retriever = world.retriever()
    scorer: Any = world.ranker() if kind == "ranker" else VectorScorer(
        retriever.query, retriever.document, similarity=kind, scale=3.0  # type: ignore[arg-type]
    )  # fmt: skip
    query = rng.permutation(QUERIES)[: rng.integers(1, 6)]
    document = rng.integers(0, DOCUMENTS, (len(query), int(rng.integers(1, 9))))
    mask = rng.random(document.shape) < 0.6
    with inference(scorer.model):
        found = scorer(query, document, mask).numpy()
    expected = np.where(mask, whole(scorer)[query[:, None], document], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_scores_are_products_of_the_towers() -> None:
    world = World()
    scorer = world.retriever(scale=2.0)
    scorer.model.eval()
    with torch.no_grad():
        q = scorer.query.module(torch.from_numpy(world.queries))
        d = scorer.document.module(torch.from_numpy(world.documents))
    np.testing.assert_allclose(whole(scorer), (2 * q @ d.T).numpy(), rtol=1e-4, atol=1e-5)
    assert {name.split(".")[0] for name, _ in scorer.model.named_parameters()} == {"query", "document"}
    shared = world.retriever(shared=True)
    assert {name.split(".")[0] for name, _ in shared.model.named_parameters()} == {"query"}


@pytest.mark.parametrize("kind", ["vectors", "ranker"])
def test_empty_lists_have_scores_and_a_gradient_of_nothing(kind: str) -> None:
    world = World()
    scorer: Any = world.retriever() if kind == "vectors" else world.ranker()
    scores = scorer(np.arange(2), np.zeros((2, 3), np.int64), np.zeros((2, 3), bool))
    assert scores.tolist() == [[0, 0, 0]] * 2
    scores.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in scorer.model.parameters())


def test_pairs_in_any_order_are_scored_by_query() -> None:
    world, rng = World(), np.random.default_rng(0)
    scorer = world.retriever()
    query, document = rng.integers(0, QUERIES, 50), rng.integers(0, DOCUMENTS, 50)
    assert scorer.model.training
    for block in (1, 5, 256):
        np.testing.assert_allclose(
            pair_scores(scorer, query, document, block=block), whole(scorer)[query, document], rtol=1e-4, atol=1e-5
        )
    assert scorer.model.training
    assert pair_scores(scorer, query[:0], document[:0]).shape == (0,)


def test_a_run_under_the_model_s_scores() -> None:
    world = World()
    scorer, run = world.retriever(), world.run(6)
    scored = rescore(scorer, run)
    np.testing.assert_allclose(scored.score, whole(scorer)[scored.query, scored.document], rtol=1e-4, atol=1e-5)
    owner = np.repeat(np.arange(QUERIES), np.diff(scored.positive_offsets))
    np.testing.assert_allclose(scored.positive_score, whole(scorer)[owner, scored.positive], rtol=1e-4, atol=1e-5)
    assert scored.reasons == run.reasons


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_searching_finds_the_best_of_the_matrix(similarity: Any) -> None:
    world = World()
    towers = world.retriever()
    scorer = VectorScorer(towers.query, towers.document, similarity=similarity)
    rows = np.array([3, 0, 11])
    run = scorer.search(world.dataset, 5, rows)
    best = np.argsort(-whole(scorer), axis=1)[rows, :5]
    assert run.document.reshape(3, 5).tolist() == best.tolist()
    np.testing.assert_allclose(run.score.reshape(3, 5), whole(scorer)[rows[:, None], best], rtol=1e-4, atol=1e-5)
    assert run.queries.ids.tolist() == ["q3", "q0", "q11"]
    assert run.positive.tolist() == [3, 31, 0, 30, 11]
    assert (run.score_kind, len(scorer.search(world.dataset, 2))) == (similarity, 2 * QUERIES)


def test_texts_of_an_encoder(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_bert(tmp_path / "model"), device="cpu", dtype="float32")
    queries, documents = Collection(["a", "b"], TEXTS[:2]), Collection(list("uvwxyz"), TEXTS)
    scorer = VectorScorer(
        EncodedTexts(encoder, queries, "query", chunk_tokens=64, precision="float32"),
        EncodedTexts(encoder, documents, "document", chunk_tokens=64, precision="float32"),
    )
    with inference(scorer.model):
        found = scorer(np.array([1, 0]), np.array([[5, 0], [3, 2]]), np.ones((2, 2), bool)).numpy()
    vectors = [encoder.encode(part.full_texts, progress=False) for part in (queries, documents)]
    matrix = vectors[0] @ vectors[1].T
    np.testing.assert_allclose(found, matrix[[[1, 1], [0, 0]], [[5, 0], [3, 2]]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scorer.document.all(), vectors[1], rtol=1e-4, atol=1e-5)


def test_pairs_of_a_cross_encoder(tmp_path: Path) -> None:
    model = CrossEncoder.load(write_tiny_bert(tmp_path / "model"), device="cpu", dtype="float32")
    queries, documents = Collection(["a", "b"], ["the cat", "flu"]), Collection(list("uvwxyz"), TEXTS)
    scorer = PairScorer(model, queries, documents, chunk_tokens=64, precision="float32")
    mask = np.array([[True, True], [False, True]])
    with inference(model):
        found = scorer(np.array([0, 1]), np.array([[0, 5], [2, 3]]), mask).numpy()
        shared = scorer(np.array([0, 1]), np.array([0, 3]), mask).numpy()
    pairs = [("the cat", TEXTS[0]), ("the cat", TEXTS[5]), ("flu", TEXTS[3]), ("the cat", TEXTS[3])]
    one = model.score(*map(list, zip(*pairs, strict=True)), progress=False)
    np.testing.assert_allclose(found, [[one[0], one[1]], [0, one[2]]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shared, [[one[0], one[3]], [0, one[2]]], rtol=1e-4, atol=1e-5)
    empty = scorer(np.array([0]), np.array([[0]]), np.zeros((1, 1), bool))
    empty.sum().backward()
    assert empty.tolist() == [[0]]


def test_a_ranker_that_reads_the_list_as_a_whole() -> None:
    world = World()
    torch.manual_seed(0)
    ranker = ContextRanker(12, fc=(8,), n_layers=1, d_ff=16).eval()
    scorer = FeatureScorer(ranker, world.features)
    document = np.array([[0, 5, 9], [3, 4, 0]])
    mask = np.array([[True, True, True], [True, True, False]])
    features = torch.from_numpy(world.features(np.array([2, 3]), document))
    expected = ranker.score(features, torch.from_numpy(mask))
    assert torch.equal(scorer(np.array([2, 3]), document, mask), expected)
    alone = scorer(np.array([2]), document[:1, :2], np.ones((1, 2), bool))
    assert not torch.allclose(alone[0], expected[0, :2])
    flat = pair_scores(scorer, np.array([3, 2, 2, 3, 2]), np.array([3, 0, 5, 4, 9]))
    np.testing.assert_allclose(flat, expected.detach().numpy()[[1, 0, 0, 1, 0], [0, 0, 1, 1, 2]], rtol=1e-5)


def test_inference_leaves_every_layer_as_it_was() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval()).train()
    net[1].eval()

    def fails() -> None:
        with inference(net):
            assert not any(layer.training for layer in net.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [layer.training for layer in net.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: VectorScorer(w.retriever().query, w.retriever().document, similarity="l2"), "similarity is 'l2'"),
        (lambda w: w.retriever(scale=0.0), "scale must be above 0"),
        (lambda w: MappedVectors(nn.Identity(), np.zeros(3)), r"must be \[N, F\]"),
        (
            lambda w: FeatureScorer(nn.Linear(12, 2), w.features)(ALL[:1], ALL[None], np.ones((1, DOCUMENTS), bool)),
            "the ranker gave scores of shape",
        ),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        make(World())
