"""Training a cross-encoder: its lists, its loss, the mixture chosen on dev, and that it goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.models import CrossEncoder, Encoder
from rivals.models.rerank import CrossEncoderReranker
from rivals.training.cross_encoder import CrossEncoderObjective, fit_cross_encoder
from rivals.training.second_stage import dev_score
from tests.models.tiny import WORDS, write_tiny_bert
from tests.training.tiny import assert_same_weights, weights


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_tiny_bert(tmp_path_factory.mktemp("m") / "tiny"), device="cpu", dtype="float32")


def toy(queries: int, seed: int, candidates: int = 8) -> tuple[Dataset, Run]:
    """Only documents with a zebra are relevant, whatever the question; candidates in random order, one of them relevant."""
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS[:14], 5)) + (" zebra zebra" if i < 10 else " dog dog") for i in range(50)]
    texts[49] = texts[0].upper()
    rng = np.random.default_rng(seed)
    relevant = rng.integers(0, 9, queries)
    document = np.concatenate([[d, *(10 + rng.permutation(39)[: candidates - 1])] for d in relevant])
    collection = Collection(
        [f"q{i}" for i in range(queries)], [str(rng.choice(WORDS)) for _ in range(queries)], name="query"
    )
    documents = Collection([f"d{i}" for i in range(50)], texts)
    judgements = Judgements.build(np.arange(queries), relevant, np.ones(queries), queries=queries, documents=50)
    data = Dataset(collection, documents, judgements)
    offsets = np.arange(queries + 1) * candidates
    return data, Run.build(collection, documents, offsets, document, rng.random(len(document)))


def objective(encoder: Encoder, folder: Path, data: Dataset, run: Run, **options: Any) -> CrossEncoderObjective:
    model = CrossEncoder.load(encoder.save(folder / "start"), device="cpu", dtype="float32")
    sizes = {"depth": 5, "negatives": 3, "max_length": 32, "seed": 0, **options}
    return CrossEncoderObjective(model, run, data, run, data, **sizes)


def test_lists(encoder: Encoder, tmp_path: Path) -> None:
    data, run = toy(19, 2)
    first = data.judgements.document[0]
    texts = list(data.documents.texts)
    texts[int(run.document[run.query == 0][run.document[run.query == 0] != first][0])] = texts[first] + " "
    documents = Collection(data.documents.ids.tolist(), texts)
    data = Dataset(data.queries, documents, data.judgements)
    run = Run.build(data.queries, documents, run.offsets, run.document, run.score)
    run = run.mark((run.query == 1) & (run.rank > 1), "doubtful")
    made = objective(encoder, tmp_path, data, run)
    seen: dict[int, set[int]] = {}
    for epoch in range(40):  # a usable candidate is missed once in 10^9
        queries = []
        for batch, again in zip(made.batches(epoch), made._batches(epoch), strict=True):
            assert np.array_equal(batch.document, again.document)
            for start, end in zip(batch.offsets, batch.offsets[1:], strict=False):
                query, document = batch.query[start:end], batch.document[start:end]
                assert len(set(query.tolist())) == 1
                queries.append(int(query[0]))
                assert document[0] == data.judgements.document[query[0]]
                assert len(set(document.tolist())) == len(document)
                seen.setdefault(int(query[0]), set()).update(document[1:].tolist())
                assert len(document) == (4 if query[0] != 1 else len(document))
        assert sorted(queries) == list(range(19))
    for query, negatives in seen.items():
        mine = run.query == query
        usable = {
            d
            for d, keep in zip(run.document[mine].tolist(), run.keep[mine].tolist(), strict=True)
            if keep and documents.text_hashes[d] != documents.text_hashes[data.judgements.document[query]]
        }
        assert negatives == usable
    assert len(seen[0]) == 6
    assert len(seen[1]) <= 2


def test_loss_is_the_softmax_over_the_list(encoder: Encoder, tmp_path: Path) -> None:
    data, run = toy(5, 2)
    run = run.mark((run.query == 1) & (run.rank > 1), "doubtful")
    made = objective(encoder, tmp_path, data, run)
    (batch,) = made.batches(0)
    loss = made.loss(batch, torch.Generator())
    scores = made.model.score(
        [data.queries.texts[i] for i in batch.query],
        [data.documents.texts[i] for i in batch.document],
        max_length=32,
        progress=False,
    )
    expected = []
    for start, end in zip(batch.offsets, batch.offsets[1:], strict=False):
        expected.append(np.log(np.exp(scores[start:end] - scores[start]).sum()))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.model.parameters())


def test_it_learns_what_the_first_stage_does_not_know(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rivals.training.cross_encoder._RATE", 2e-3)  # for a tiny model, not a trained one
    train, train_run = toy(80, 2)
    dev, dev_run = toy(20, 3)
    before = weights(encoder)
    options: Any = {"epochs": 3, "depth": 6, "negatives": 4}
    stage = fit_cross_encoder(encoder, train_run, train, dev_run, dev, **options)
    assert dev_score(stage(dev_run), dev) > dev_score(dev_run, dev) + 0.1
    assert (stage.depth, stage.max_length) == (6, 64)  # the model reads no more
    scores = [
        dev_score(CrossEncoderReranker(stage.model, w, 6, 64)(dev_run), dev)
        for w in np.round(np.arange(0.1, 1.05, 0.1), 1)
    ]
    assert dev_score(stage(dev_run), dev) == max(scores)
    assert stage.weight == max(w for w, s in zip(np.arange(1, 11) / 10, scores, strict=True) if s == max(scores))
    assert_same_weights(weights(encoder), before)
    again = fit_cross_encoder(encoder, train_run, train, dev_run, dev, **options)
    assert_same_weights(weights(again.model), weights(stage.model))


def test_cut_off_and_resumed(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = toy(24, 2)
    dev, dev_run = toy(4, 3)
    whole = fit_cross_encoder(encoder, run, data, dev_run, dev, seed=3)
    real, calls = CrossEncoderObjective.loss, []

    def loss(self: CrossEncoderObjective, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(CrossEncoderObjective, "loss", loss)
    with pytest.raises(KeyboardInterrupt):
        fit_cross_encoder(encoder, run, data, dev_run, dev, seed=3, folder=tmp_path / "run")
    resumed = fit_cross_encoder(encoder, run, data, dev_run, dev, seed=3, folder=tmp_path / "run")
    assert_same_weights(weights(resumed.model), weights(whole.model))
    assert resumed.weight == whole.weight
    count = len(calls)
    finished = fit_cross_encoder(encoder, run, data, dev_run, dev, seed=3, folder=tmp_path / "run")
    assert len(calls) == count
    assert finished.weight == whole.weight
    with pytest.raises(RivalsError, match=r"\(negatives\)"):
        fit_cross_encoder(encoder, run, data, dev_run, dev, seed=3, negatives=2, folder=tmp_path / "run")


def test_nothing_to_learn_from(encoder: Encoder) -> None:
    data, run = toy(4, 2)
    marked = run.mark(np.ones(len(run), bool), "all")
    with pytest.raises(RivalsError, match="learn from that"):
        fit_cross_encoder(encoder, marked, data, run, data)
    with pytest.raises(RivalsError, match="depth=0"):
        fit_cross_encoder(encoder, run, data, run, data, depth=0)
    unjudged = Dataset(data.queries, data.documents, Judgements.build([], [], [], queries=4, documents=50))
    with pytest.raises(RivalsError, match="dev query"):
        fit_cross_encoder(encoder, run, data, run, unjudged)
