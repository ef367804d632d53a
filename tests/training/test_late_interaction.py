"""Training late interaction: the loss by hand, both executors, resume, and that sentences are learnt (paper 31)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.losses import multi_granular_distillation_loss
from rivals.models.encoder import Encoder
from rivals.models.late_interaction_model import LateInteraction, MultiVectorLayout, QueryExpansion
from rivals.negatives import Top
from rivals.training import CachedGradients, LoopConfig, Negatives, Plain, RetrieverConfig, fit
from rivals.training.late_interaction import (
    GranularConfig,
    LateInteractionObjective,
    MultiGranularObjective,
    train_late_interaction,
)
from tests.models.tiny import WORDS, write_tiny_bert
from tests.training.test_retriever import taught, toy
from tests.training.tiny import assert_same_weights, weights

LOOP = LoopConfig(epochs=3, learning_rate=1e-3, evaluations=0, precision="float32", checkpoint_seconds=0)
CONFIG = RetrieverConfig(batch_size=3, negatives=2, group_size=1, temperature=0.2, chunk_tokens=64, loop=LOOP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def load(folder: Path) -> Callable[..., LateInteraction]:
    def make(**options: Any) -> LateInteraction:
        layout = MultiVectorLayout(expansion=QueryExpansion(6), **options)
        encoder = Encoder.load(folder, device="cpu", dtype="float32")
        markers = {"query": "[Q]", "document": "[D]", "fine": "[Q1]"}
        return LateInteraction.from_encoder(encoder, dimension=12, layout=layout, markers=markers)

    return make


def test_the_loss_is_that_of_encoded_scores(load: Callable[..., LateInteraction]) -> None:
    data, run = toy()
    model = load()
    made = LateInteractionObjective(model, data, CONFIG, negatives=Negatives(run, Top(2)))
    batch = made.batches(0)[0]
    queries = [data.queries.full_texts[i] for i in batch.query]
    documents = [data.documents.full_texts[i] for i in batch.columns]
    scores = torch.from_numpy(model.score(queries, documents)) / 0.2
    scores = scores.masked_fill(~torch.from_numpy(made._mask(batch, batch.columns, 0)), -torch.inf)
    expected = -scores.log_softmax(1).diagonal().mean()
    assert float(made.loss(batch, torch.Generator()).detach()) == pytest.approx(float(expected), abs=1e-4)


def test_both_executors_give_one_model_that_learns(load: Callable[..., LateInteraction]) -> None:
    data, run = toy()
    models = [load(), load()]
    results = [
        train_late_interaction(model, data, CONFIG, negatives=Negatives(run, Top(2)), executor=executor, dev=data)
        for model, executor in zip(models, (None, CachedGradients()), strict=True)
    ]
    assert [v for _, v in results[0].losses] == pytest.approx([v for _, v in results[1].losses], rel=1e-3)
    assert results[0].losses[-1][1] < results[0].losses[0][1]
    made = LateInteractionObjective(models[0], data, CONFIG, negatives=Negatives(run, Top(2)))
    found = []
    for executor in (Plain(), CachedGradients()):
        models[0].zero_grad()
        executor.backward(made, made.batches(0)[0], torch.Generator(), 1.0)
        found.append([p.grad.clone() for p in models[0].parameters() if p.grad is not None])
    assert len(made.parts(made.batches(0)[0])) > 2
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_teacher_adds_its_divergence_over_max_sim(load: Callable[..., LateInteraction]) -> None:
    data, run = toy()
    run = taught(run, data)
    model, losses = load(), []
    for weight in (0.0, 1.0):
        config = RetrieverConfig(
            batch_size=6, negatives=2, group_size=1, temperature=0.2, teacher_weight=weight, loop=LOOP
        )
        made = LateInteractionObjective(model, data, config, negatives=Negatives(run, Top(2)))
        batch = made.batches(0)[0]
        losses.append(float(made.loss(batch, torch.Generator()).detach()))
    expected = 0.0
    for i, query in enumerate(batch.query):
        own = [batch.positive[i], *batch.negative[i][batch.present[i]]]
        scores = model.score([data.queries.full_texts[query]], [data.documents.full_texts[d] for d in own])[0]
        student = (torch.from_numpy(scores) / 0.2).log_softmax(0)
        teacher = torch.from_numpy(batch.teacher[i][np.concatenate([[True], batch.present[i]])]).log_softmax(0)
        expected += float((teacher.exp() * (teacher - student)).sum()) / len(batch.query)
    assert losses[1] - losses[0] == pytest.approx(expected, abs=1e-4)


def test_dev_scores_are_those_of_max_sim(load: Callable[..., LateInteraction]) -> None:
    data, _ = toy()
    made = LateInteractionObjective(load(), data, CONFIG, dev=data)
    assert 0 <= made.evaluate() <= 1


def passages(seed: int = 0) -> tuple[Run, list[list[tuple[int, int]]], np.ndarray]:
    """Six queries with four passages each of three sentences; the teacher likes the passage and the sentence with the query's word."""
    rng = np.random.default_rng(seed)
    words = WORDS[2:14]
    texts, units, held = [], [], []
    for _ in range(8):
        sentences = [" ".join(rng.choice(words, 3)) + "." for _ in range(3)]
        starts = np.cumsum([0, *(len(s) + 1 for s in sentences)])
        units.append([(int(a), int(a) + len(s)) for a, s in zip(starts, sentences, strict=False)])
        texts.append(" ".join(sentences))
        held.append(sentences)
    queries = list(rng.choice(words, 6, replace=False))
    document = np.concatenate([rng.permutation(8)[:4] for _ in queries])
    score, targets = [], []
    for place, row in enumerate(document):
        inside = [3.0 * (queries[place // 4] in sentence) for sentence in held[row]]
        score.append(max(inside) + 0.01 * place)
        targets += inside
    run = Run.build(
        Collection([f"q{i}" for i in range(6)], queries),
        Collection([f"d{i}" for i in range(8)], texts),
        np.arange(7) * 4,
        document,
        score,
    )
    return run, units, np.array(targets)


SMALL = GranularConfig(batch_size=3, candidates=3, temperature=0.1, chunk_tokens=80, precision="float32")


def test_the_granular_loss_is_that_of_encoded_scores(load: Callable[..., LateInteraction]) -> None:
    run, units, targets = passages()
    model = load()
    with torch.no_grad():
        model.encoder.backbone.get_input_embeddings().weight[-1] += 0.3  # coarse and fine queries differ
    made = MultiGranularObjective(model, run, units, targets, SMALL)
    batch = made.batches(0)[0]
    assert (
        batch.row[:, 0]
        == [run.offsets[q] + run.score[run.offsets[q] : run.offsets[q + 1]].argmax() for q in batch.query]
    ).all()
    per_row = np.repeat(np.arange(len(run)), 3)
    scores, unit_scores, t, u = (np.zeros((3, 3, *size), np.float32) for size in ((), (3,), (), (3,)))
    for i, query in enumerate(batch.query):
        for j, row in enumerate(batch.row[i]):
            text, asked = run.documents.full_texts[run.document[row]], [run.queries.full_texts[query]]
            scores[i, j] = model.score(asked, [text])[0, 0]
            unit_scores[i, j] = model.score_units(asked, [text], [units[run.document[row]]], alpha=0.0)[0]
            t[i, j], u[i, j] = run.score[row], targets[per_row == row]
    expected = multi_granular_distillation_loss(
        torch.from_numpy(scores / 0.1), torch.from_numpy(t),
        unit_scores=torch.from_numpy(unit_scores / 0.1), unit_targets=torch.from_numpy(u),
    )  # fmt: skip
    assert float(made.loss(batch, torch.Generator()).detach()) == pytest.approx(float(expected), rel=1e-4)


def test_lists_may_be_short_and_sentences_cut_off(load: Callable[..., LateInteraction]) -> None:
    run, units, targets = passages()
    keep = np.ones(len(run), bool)
    keep[[1, 2, 5]] = False
    rows = np.repeat(np.arange(len(run)), 3)
    short = run.select(keep)
    made = MultiGranularObjective(load(document_length=8), short, units, targets[keep[rows]], SMALL)
    losses = [made.loss(batch, torch.Generator()) for epoch in range(3) for batch in made.batches(epoch)]
    assert all(bool(torch.isfinite(loss)) for loss in losses)
    sum(losses).backward()  # type: ignore[union-attr]
    assert all(bool(torch.isfinite(p.grad).all()) for p in made.model.parameters() if p.grad is not None)
    shifted = MultiGranularObjective(
        made.model, short.rescored(short.score + 5, scorer="teacher"), units, targets[keep[rows]] - 2, SMALL
    )
    for mine, theirs in zip(made.batches(0), shifted.batches(0), strict=True):  # a constant changes nothing
        assert float(made.loss(mine, torch.Generator()).detach()) == pytest.approx(
            float(shifted.loss(theirs, torch.Generator()).detach()), rel=1e-4
        )


def test_granular_training_resumes_exactly_and_is_the_same_in_chunks(
    load: Callable[..., LateInteraction], tmp_path: Path
) -> None:
    run, units, targets = passages()

    class Killed(MultiGranularObjective):
        calls = 0

        def joined(self, *given: Any) -> torch.Tensor:
            self.calls += 1
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().joined(*given)

    whole = MultiGranularObjective(load(), run, units, targets, SMALL)
    result = fit(whole, LOOP, executor=CachedGradients())
    assert result.losses[-1][1] < result.losses[0][1]
    with pytest.raises(KeyboardInterrupt):
        fit(Killed(load(), run, units, targets, SMALL), LOOP, executor=CachedGradients(), folder=tmp_path)
    resumed = MultiGranularObjective(load(), run, units, targets, SMALL)
    fit(resumed, LOOP, executor=CachedGradients(), folder=tmp_path, resume=True)
    assert_same_weights(weights(whole.model), weights(resumed.model))
    plain = MultiGranularObjective(load(), run, units, targets, SMALL)
    again = fit(plain, LOOP)
    assert [v for _, v in again.losses] == pytest.approx([v for _, v in result.losses], rel=1e-3)


def test_sentences_are_learnt(load: Callable[..., LateInteraction]) -> None:
    run, units, targets = passages()

    def found(model: LateInteraction) -> float:
        """How much better the sentences that hold the word score than the others of their passage."""
        gaps = []
        for row in range(len(run)):
            own = targets[3 * row : 3 * row + 3]
            if 0 < own.sum() < 9:
                query = run.queries.full_texts[int(np.searchsorted(run.offsets, row, side="right")) - 1]
                document = run.document[row]
                scores = model.score_units([query], [run.documents.full_texts[document]], [units[document]], alpha=0.0)[
                    0
                ]
                gaps.append(scores[own > 0].mean() - scores[own == 0].mean())
        return float(np.mean(gaps))

    gap = {}
    for weight in (0.0, 1.0):
        model = load()
        config = GranularConfig(batch_size=3, candidates=4, temperature=0.1, unit_weight=weight, precision="float32")
        fit(
            MultiGranularObjective(model, run, units, targets, config),
            LoopConfig(epochs=25, learning_rate=3e-3, evaluations=0),
        )
        gap[weight] = found(model)
    assert gap[1.0] > gap[0.0] + 0.02


def test_mistakes_are_told(load: Callable[..., LateInteraction]) -> None:
    run, units, targets = passages()
    model = load()
    with pytest.raises(RivalsError, match="must hold 72 finite numbers"):
        MultiGranularObjective(model, run, units, targets[1:])
    with pytest.raises(RivalsError, match="units for 7 documents"):
        MultiGranularObjective(model, run, units[1:], targets)
    with pytest.raises(RivalsError, match="two candidates"):
        MultiGranularObjective(model, run.select(run.rank < 1), units, targets[:18])
    with pytest.raises(RivalsError, match="candidates=1 is below 2"):
        GranularConfig(candidates=1)
    with pytest.raises(RivalsError, match="held-out score"):
        MultiGranularObjective(model, run, units, targets).evaluate()
