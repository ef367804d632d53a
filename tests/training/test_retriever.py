"""Retriever training: who may be a negative, which batches there are, prompts, gradients, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.models import Encoder
from rivals.negatives import Top
from rivals.training import LoopConfig, Negatives, RetrieverConfig, RetrieverObjective, fit, train_retriever
from rivals.training.retriever import _assembled
from tests.models.tiny import WORDS, write_modules, write_tiny_bert
from tests.training.tiny import assert_same_weights, small_sample, weights, write_word_bert

LOOP = LoopConfig(evaluations=0, precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def load(folder: Path) -> Callable[[], Encoder]:
    return lambda: Encoder.load(folder, device="cpu", dtype="float32")


def toy(queries: int = 6, documents: int = 10, seed: int = 0) -> tuple[Dataset, Run]:
    """Query i has document i; query 0 also 6; documents 1 and 7 have the same text; every query has candidates 5 to 9."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS[:14], 6)) for _ in range(documents)]
    texts[7] = texts[1].upper()
    data = Dataset(
        Collection([f"q{i}" for i in range(queries)], [" ".join(rng.choice(WORDS[:14], 3)) for _ in range(queries)]),
        Collection([f"d{i}" for i in range(documents)], texts),
        Judgements.build(
            [*range(queries), 0, 2],
            [*range(queries), 6, 9],
            [1] * (queries + 1) + [0],
            queries=queries,
            documents=documents,
        ),
    )
    candidates = np.tile(np.arange(5, 10), queries)
    run = Run.build(data.queries, data.documents, np.arange(queries + 1) * 5, candidates, rng.random(5 * queries))
    return data, run


def test_mask_rules(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    run = run.mark((run.query == 3) & (run.document == 8), "doubtful")
    made = RetrieverObjective(load(), data, RetrieverConfig(loop=LOOP), negatives=Negatives(run, Top(2)))
    batch = made.batches(0)[0]
    columns = np.concatenate([batch.positive, np.arange(10)])
    mask = made._mask(batch, columns, 0)
    hidden = {
        0: {0, 6},
        1: {1, 7},
        2: {2},
        3: {3, 8},
        4: {4},
        5: {5},
    }  # own, other positive, same text, marked; 9 is judged 0
    for row, query in enumerate(batch.query.tolist()):
        expected = [column == row or document not in hidden[query] for column, document in enumerate(columns.tolist())]
        assert mask[row].tolist() == expected


def test_masked_documents_get_no_gradient_from_a_query(load: Callable[[], Encoder]) -> None:
    """The loss is that of a plain softmax over the columns that may compete, computed here from `encode`d vectors."""
    data, run = toy()
    run = run.mark(run.document == 8, "doubtful")
    encoder = load()
    config = RetrieverConfig(
        loop=LOOP, negatives=3, late_interaction=0.0, temperature=0.1, batch_size=6, chunk_tokens=64
    )
    made = RetrieverObjective(encoder, data, config, negatives=Negatives(run, Top(3)))
    (batch,) = made.batches(0)
    loss = made.loss(batch, torch.Generator())
    queries = encoder.encode(data.queries.full_texts, progress=False, normalize=True)
    documents = encoder.encode(data.documents.full_texts, progress=False, normalize=True)
    known = {0: {0, 6}, 1: {1, 7}, **{i: {i} for i in range(2, 6)}}
    columns = [*batch.positive.tolist(), *batch.negative[batch.present].tolist()]
    assert 8 not in batch.negative[batch.present]
    losses = []
    for place, query in enumerate(batch.query.tolist()):
        rivals = [d for d in columns if d not in known[query] and d != 8]
        logits = np.array([batch.positive[place], *rivals])
        scores = documents[logits] @ queries[query] / 0.1
        losses.append(np.log(np.exp(scores - scores[0]).sum()))
    assert float(loss.detach()) == pytest.approx(np.mean(losses), rel=1e-4)


def test_late_interaction_adds_the_same_loss_over_max_sim(load: Callable[[], Encoder]) -> None:
    data, _ = toy()
    encoder = load()
    losses = []
    for late in (0.0, 1.0, 2.0):
        made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP, late_interaction=late, temperature=0.2))
        losses.append(made.loss(made.batches(0)[0], torch.Generator()).item())
    made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP))
    (batch,) = made.batches(0)
    tokens = [
        encoder.encode_tokens(c.full_texts, progress=False, storage="float32") for c in (data.queries, data.documents)
    ]
    unit = [[t.vectors[a:b] for a, b in zip(t.offsets, t.offsets[1:], strict=False)] for t in tokens]
    mask = made._mask(batch, batch.positive, 0)
    expected = []
    for place, query in enumerate(batch.query):
        scores = np.array([(unit[0][query] @ unit[1][d].T).max(1).mean() for d in batch.positive]) / 0.2
        expected.append(np.log(np.exp(scores[mask[place]] - scores[place]).sum()))
    assert losses[1] - losses[0] == pytest.approx(np.mean(expected), rel=1e-3)
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


@pytest.mark.parametrize("with_run", [False, True])
@pytest.mark.parametrize("size", [2, 4, 64])
def test_batches_cover_every_query_once_and_always_the_same(
    load: Callable[[], Encoder], with_run: bool, size: int
) -> None:
    data, run = toy(queries=6)
    data = Dataset(
        Collection([*data.queries.ids, "unanswered"], [*data.queries.texts, "flu"]),
        data.documents,
        Judgements.build(
            data.judgements.query, data.judgements.document, data.judgements.relevance, queries=7, documents=10
        ),
    )
    run = Run.build(data.queries, data.documents, [*run.offsets, len(run)], run.document, run.score)
    options = {"negatives": Negatives(run, Top(2))} if with_run else {}

    def make(seed: int = 0) -> RetrieverObjective:
        loop = LoopConfig(evaluations=0, seed=seed)
        return RetrieverObjective(load(), data, RetrieverConfig(batch_size=size, negatives=2, loop=loop), **options)

    one, again, other = make(), make(), make(seed=1)
    orders = set()
    for epoch in (0, 1, 2, 1, 0):  # also after the cache has forgotten it
        rows = np.concatenate([batch.query for batch in one.batches(epoch)])
        assert sorted(rows.tolist()) == [0, 1, 2, 3, 4, 5]
        assert [len(batch.query) for batch in one.batches(epoch)] == [
            len(c) for c in np.array_split(rows, range(size, 6, size))
        ]
        for batch, same in zip(one.batches(epoch), again.batches(epoch), strict=True):
            for name in ("query", "positive", "negative", "present"):
                assert np.array_equal(getattr(batch, name), getattr(same, name))
            assert all(
                p in data.judgements.document[data.judgements.query == q]
                for q, p in zip(batch.query, batch.positive, strict=True)
            )
            assert batch.negative.shape == (len(batch.query), 2 if with_run else 0)
        orders.add(tuple(rows.tolist()))
    orders.add(tuple(np.concatenate([batch.query for batch in other.batches(0)]).tolist()))
    assert len(orders) >= 3


def test_several_positives_take_turns(load: Callable[[], Encoder]) -> None:
    data, _ = toy()
    made = RetrieverObjective(load(), data, RetrieverConfig(loop=LOOP))
    seen = {
        int(b.positive[b.query == 0][0]) for epoch in range(12) for b in made.batches(epoch) if (b.query == 0).any()
    }
    assert seen == {0, 6}


def test_every_trained_parameter_gets_a_gradient(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    encoder = load()
    made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP), negatives=Negatives(run, Top(1)))
    made.loss(made.batches(0)[0], torch.Generator()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        if not name.endswith("key.bias"):  # a softmax over keys does not feel it
            assert parameter.grad.abs().max() > 0, name


def test_chunks_change_nothing(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    losses = []
    for chunk in (64, 4096):
        made = RetrieverObjective(
            load(), data, RetrieverConfig(loop=LOOP, chunk_tokens=chunk), negatives=Negatives(run, Top(1))
        )
        losses.append(made.loss(made.batches(0)[0], torch.Generator()).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("dropout", [None, 0.0, 0.4])
def test_dropout_is_restored(
    load: Callable[[], Encoder], dropout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = toy()
    encoder = load()
    layers = [m for m in encoder.modules() if isinstance(m, torch.nn.Dropout)]
    assert {layer.p for layer in layers} == {0.1}
    seen = set()
    real = RetrieverObjective.loss

    def loss(self: RetrieverObjective, *arguments: Any) -> torch.Tensor:
        seen.update(layer.p for layer in layers)
        return real(self, *arguments)

    monkeypatch.setattr(RetrieverObjective, "loss", loss)
    train_retriever(encoder, data, RetrieverConfig(loop=LOOP, dropout=dropout))
    assert seen == {0.1 if dropout is None else dropout}
    assert {layer.p for layer in layers} == {0.1}

    def fails(self: RetrieverObjective, *arguments: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(RetrieverObjective, "loss", fails)
    with pytest.raises(KeyboardInterrupt):
        train_retriever(encoder, data, RetrieverConfig(loop=LOOP, dropout=dropout))
    assert {layer.p for layer in layers} == {0.1}


@pytest.mark.parametrize("include", [True, False])
def test_prompts_are_those_of_encode(tmp_path: Path, include: bool) -> None:
    """Training sees the vectors that search will see: with the prompts, pooled over them or not as the folder says."""
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": include}
    folder = write_tiny_bert(tmp_path / "tiny")
    kinds = [
        ("sentence_transformers.models.Transformer", "", None),
        ("sentence_transformers.models.Pooling", "1_Pooling", pooling),
    ]
    write_modules(folder, kinds, prompts={"query": "query : ", "document": "passage : "})
    encoder = Encoder.load(folder, device="cpu", dtype="float32")
    data, _ = toy()
    made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP))
    for role, tokens, texts in (
        ("query", made._queries, data.queries.full_texts),
        ("document", made._documents, data.documents.full_texts),
    ):
        rows = np.arange(len(texts))
        chunks, order = made._chunks(tokens, rows, 64)
        vectors = _assembled([encode() for encode in chunks], order)[0].detach().numpy()
        expected = encoder.encode(texts, role=role, progress=False)  # type: ignore[arg-type]
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
        bare = encoder.encode(texts, prompt="", progress=False)
        assert np.abs(bare - expected).max() > 1e-2


def test_a_small_model_learns_real_questions(tmp_path: Path) -> None:
    train, dev = small_sample(240, 60)
    write_word_bert(tmp_path / "words", train.documents.texts, words=3000)
    encoder = Encoder.load(tmp_path / "words", device="cpu", dtype="float32")
    loop = LoopConfig(epochs=4, learning_rate=3e-3, evaluations=4, precision="float32")
    config = RetrieverConfig(loop=loop, max_document_tokens=32, max_query_tokens=24, temperature=0.05)
    before = RetrieverObjective(encoder, train, config, dev=dev).evaluate()
    result = train_retriever(encoder, train, config, dev=dev)
    after = RetrieverObjective(encoder, train, config, dev=dev).evaluate()
    assert after == pytest.approx(result.best_score)
    assert after == max(score for _, score in result.scores)
    assert after > 2 * before
    assert after > before + 0.03
    assert np.mean([loss for _, loss in result.losses[-8:]]) < 0.7 * result.losses[0][1]


def test_dev_score_is_ndcg_over_the_pool(load: Callable[[], Encoder]) -> None:
    data, _ = toy()
    encoder = load()
    pool = np.array([9, 0, 1, 2, 3, 5])
    made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP), dev=data, dev_pool=pool)
    queries = encoder.encode(data.queries.full_texts, role="query", progress=False, normalize=True)
    documents = encoder.encode(data.documents.full_texts, role="document", progress=False, normalize=True)
    expected = []
    for query in (0, 1, 2, 3, 5):
        place = int(np.flatnonzero(pool[np.argsort(-(documents[pool] @ queries[query]))] == query)[0])
        expected.append(1 / np.log2(place + 2))
    expected.append(0.0)  # 4 has no relevant document in the pool
    assert made.evaluate() == pytest.approx(np.mean(expected), rel=1e-5)
    unjudged = Dataset(data.queries, data.documents, Judgements.build([0], [0], [0], queries=6, documents=10))
    with pytest.raises(RivalsError, match="no dev query has a relevant document"):
        RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP), dev=unjudged).evaluate()
    with pytest.raises(RivalsError, match="needs dev queries"):
        RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP)).evaluate()


def test_odd_data(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    empty = Run.build(data.queries, data.documents, np.zeros(7, np.int64), [], [])
    encoder = load()
    made = RetrieverObjective(encoder, data, RetrieverConfig(loop=LOOP), negatives=Negatives(empty, Top(1)))
    assert made.loss(made.batches(0)[0], torch.Generator()).isfinite()
    with pytest.raises(RivalsError, match="mined run is over 6 queries, the training data over 2"):
        RetrieverObjective(encoder, data.take([0, 1]), RetrieverConfig(loop=LOOP), negatives=Negatives(run, Top(1)))
    unanswered = Dataset(data.queries, data.documents, Judgements.build([], [], [], queries=6, documents=10))
    with pytest.raises(RivalsError, match="nothing to train on"):
        train_retriever(encoder, unanswered, RetrieverConfig(loop=LOOP))
    lonely = RetrieverObjective(encoder, data.take([3]), RetrieverConfig(loop=LOOP))
    assert lonely.loss(lonely.batches(0)[0], torch.Generator()).item() == 0.0  # one pair and no rival


def test_resumes_only_with_its_own_options(tmp_path: Path, load: Callable[[], Encoder]) -> None:
    data, _ = toy()
    encoder, whole = load(), load()
    train_retriever(whole, data, RetrieverConfig(loop=LOOP))
    train_retriever(encoder, data, RetrieverConfig(loop=LOOP), folder=tmp_path)
    assert_same_weights(weights(encoder), weights(whole))
    with pytest.raises(RivalsError, match=r"other training options \(temperature\)"):
        train_retriever(load(), data, RetrieverConfig(loop=LOOP, temperature=0.5), folder=tmp_path, resume=True)
    again = load()
    train_retriever(again, data, RetrieverConfig(loop=LOOP, chunk_tokens=64), folder=tmp_path, resume=True)
    assert_same_weights(weights(again), weights(whole))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"negatives": -1},
        {"temperature": 0.0},
        {"late_interaction": -1.0},
        {"dropout": 1.0},
        {"max_query_tokens": 3},
        {"chunk_tokens": 1},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        RetrieverConfig(**options)


def taught(run: Run, data: Dataset, positive: float = 2.0) -> Run:
    """The run with positives that the teacher scored."""
    known = data.judgements.positives
    return run.replace(
        positive_offsets=known.offsets,
        positive=known.document,
        positive_score=np.full(len(known), positive, np.float32),
        positive_relevance=known.relevance,
    )


def test_a_teacher_adds_its_divergence_over_each_query_s_own_list(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    run, options = taught(run, data), {"negatives": 2, "group_size": 1, "late_interaction": 0.0, "loop": LOOP}
    made = [
        RetrieverObjective(
            load(),
            data,
            RetrieverConfig(teacher_weight=w, teacher_temperature=0.5, **options),
            negatives=Negatives(run, Top(2)),
        )
        for w in (0.0, 3.0)
    ]
    batch = made[1].batches(0)[0]
    without, given = (float(o.loss(o.batches(0)[0], torch.Generator()).detach()) for o in made)
    encoder, expected = load(), 0.0
    for i, query in enumerate(batch.query):
        rows = [batch.positive[i], *batch.negative[i]]
        vectors = torch.from_numpy(
            encoder.encode(
                [data.documents.full_texts[r] for r in rows], role="document", normalize=True, progress=False
            )
        )
        asked = torch.from_numpy(
            encoder.encode([data.queries.full_texts[query]], role="query", normalize=True, progress=False)
        )
        student = ((vectors @ asked[0]) / 0.05).log_softmax(0)
        scores = [2.0] + [float(run.score[(run.query == query) & (run.document == r)][0]) for r in rows[1:]]
        teacher = (torch.tensor(scores) / 0.5).log_softmax(0)
        expected += float((teacher.exp() * (teacher - student)).sum()) / len(batch.query)
    assert given - without == pytest.approx(3.0 * expected, rel=1e-4)


def test_a_teacher_that_did_not_score_a_positive_is_told(load: Callable[[], Encoder]) -> None:
    data, run = toy()
    config = RetrieverConfig(teacher_weight=1.0, negatives=1, group_size=1, loop=LOOP)
    with pytest.raises(RivalsError, match="the teacher has not scored its positive"):
        RetrieverObjective(load(), data, config, negatives=Negatives(run, Top(1))).batches(0)
    with pytest.raises(RivalsError, match="group_size to 1"):
        RetrieverConfig(teacher_weight=1.0)


def test_a_compiled_encoder_trains_the_same(load: Callable[[], Encoder], tmp_path: Path) -> None:
    """Traced, with its gradients, but not handed to a C++ compiler, which machines that run the tests may lack."""
    dataset, _ = toy()
    loop = LoopConfig(evaluations=0, precision="float32", learning_rate=1e-3)
    config = RetrieverConfig(batch_size=3, negatives=0, late_interaction=0.0, loop=loop)
    losses, trained = [], []
    for compiled in (False, True):
        encoder = load()
        if compiled:
            encoder.compile(backend="aot_eager")
        losses.append(fit(RetrieverObjective(encoder, dataset, config), loop).losses)
        trained.append(weights(encoder))
    assert [loss for _, loss in losses[1]] == pytest.approx([loss for _, loss in losses[0]], rel=1e-5)
    assert trained[0].keys() == trained[1].keys()
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-3, atol=1e-5)
    encoder.save(tmp_path / "saved")
    texts = ["cat sat", "flu"]
    again = Encoder.load(tmp_path / "saved", device="cpu", dtype="float32")
    np.testing.assert_allclose(again.encode(texts), encoder.encode(texts), atol=1e-5)
