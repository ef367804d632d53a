"""The retriever adapter (paper 20): the card's checks, training on planted false negatives, saving, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rivals.data import Run
from rivals.errors import ModelError, RivalsError
from rivals.negatives.adapter import RetrieverAdapter, TrainedAdapter, adapter_loss, line_penalty, train_adapter
from rivals.negatives.adapter_transforms import AdapterFilter, AdapterReranker, adapter_scores
from rivals.negatives.filters import KnownPositives
from tests.negatives.given_vectors import all_known, planted, searched

Q, C = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1, 2)


def moved(dim: int = 6, seed: int = 0) -> RetrieverAdapter:
    """An adapter whose last layer is not zero any more."""
    adapter = RetrieverAdapter(dim, 8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        adapter.outer.weight.copy_(torch.randn(adapter.outer.weight.shape, generator=generator))
    return adapter.eval()


# ------------------------------------------------------------------------------------------------- the line and the loss


@pytest.mark.parametrize(("adapted", "penalty"), [([0.5, 0.2], 0.04), ([2.0, 0.0], 1.0), ([-1.0, 0.0], 1.0)])
def test_line_penalty_of_the_card(adapted, penalty):
    """Check 1."""
    assert float(line_penalty(Q, C, torch.tensor([[adapted]]))) == pytest.approx(penalty)


def test_query_equal_to_candidate():
    """The pitfall: no segment; the penalty is |a - c|^2, and its gradient is finite."""
    adapted = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    penalty = line_penalty(Q, Q[:, None], adapted)
    penalty.backward()
    assert float(penalty.detach()) == 4.0
    assert adapted.grad is not None
    assert adapted.grad.tolist() == [[[0.0, 4.0]]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_minimum_is_below_both_ends(seed):
    """Check 7, and a point anywhere on the segment."""
    generator = torch.Generator().manual_seed(seed)
    q, c, a = (torch.randn(shape, generator=generator) for shape in ((2, 3), (2, 4, 3), (2, 4, 3)))
    least = float(line_penalty(q, c, a))
    for alpha in (0.0, 0.3, 1.0):
        point = alpha * q[:, None] + (1 - alpha) * c
        assert least <= float((a - point).square().sum(-1).mean()) + 1e-6
    on_it = 0.4 * q[:, None] + 0.6 * c
    assert float(line_penalty(q, c, on_it)) == pytest.approx(0, abs=1e-10)


def test_masked_pairs_do_not_count():
    generator = torch.Generator().manual_seed(0)
    q, c = torch.randn(3, 6, generator=generator), torch.randn(3, 4, 6, generator=generator)
    mask = torch.tensor([[True, True, False, False], [True, False, True, False], [True, True, True, False]])
    relevance = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    adapter = moved()
    whole = adapter_loss(adapter, q, c, relevance, mask)
    spoilt = adapter_loss(adapter, q, c.masked_fill(~mask[..., None], 7.0), 1 - relevance.where(mask, relevance), mask)
    again = adapter_loss(adapter, q, c.masked_fill(~mask[..., None], 7.0), relevance, mask)
    assert [float(part.detach()) for part in again] == pytest.approx([float(part.detach()) for part in whole])
    assert float(spoilt.classification.detach()) != pytest.approx(float(whole.classification.detach()))
    logits = adapter.logits(q, c)[0]
    terms = torch.nn.functional.binary_cross_entropy_with_logits(logits, relevance.float(), reduction="none")
    classes = [terms[mask & (relevance == value)].mean() for value in (0, 1)]  # both weigh the same
    assert float(whole.classification.detach()) == pytest.approx(float((sum(classes) / 2).detach()))


# ------------------------------------------------------------------------------------------------------------ the adapter


def test_an_untrained_adapter_moves_nothing():
    """Check 2: a = c, penalty 0, p = sigmoid(10 (cos - 1)), so p rises with the cosine."""
    generator = torch.Generator().manual_seed(1)
    q, c = torch.randn(2, 5, generator=generator), torch.randn(2, 7, 5, generator=generator)
    adapter = RetrieverAdapter(5)
    assert torch.equal(adapter(q, c), c)
    assert float(line_penalty(q, c, adapter(q, c).detach())) == 0
    cosine = torch.nn.functional.cosine_similarity(q[:, None], c, dim=-1)
    probability = adapter.false_negative_probability(q, c).detach()
    assert torch.allclose(probability, torch.sigmoid(10 * (cosine - 1)), atol=1e-6)
    assert torch.equal(probability.argsort(1), cosine.argsort(1))


def test_candidates_are_seen_one_by_one():
    """Check 5, second half: permutation equivariance."""
    generator = torch.Generator().manual_seed(2)
    q, c = torch.randn(3, 6, generator=generator), torch.randn(3, 5, 6, generator=generator)
    adapter, order = moved(), torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(adapter(q, c)[:, order], adapter(q, c[:, order]), atol=1e-5)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one, two, other = RetrieverAdapter(4, seed=3), RetrieverAdapter(4, seed=3), RetrieverAdapter(4, seed=4)
    state = torch.random.get_rng_state()
    assert torch.equal(one.inner.weight, two.inner.weight)
    assert not torch.equal(one.inner.weight, other.inner.weight)
    RetrieverAdapter(4)
    assert torch.equal(state, torch.random.get_rng_state())


# -------------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained() -> tuple:
    dense, dataset, relevant = planted(0)
    run = dense(all_known(dataset, relevant).take(np.arange(110)), 60)
    return (
        dense,
        dataset,
        relevant,
        train_adapter(run, dense, hard=20, epochs=12, batch_size=32, learning_rate=3e-3, show=False),
    )


def planted_in(run: Run, relevant: np.ndarray) -> np.ndarray:
    hidden = relevant[[int(name[1:]) for name in run.queries.ids]][run.query, run.document]
    return hidden & KnownPositives()(run).keep


def test_finds_planted_positives_better_than_the_score(trained):
    dense, dataset, relevant, result = trained
    run = dense(dataset.take(np.arange(110, 160)), 60)
    others = KnownPositives()(run).keep
    hidden = planted_in(run, relevant)
    assert hidden.sum() > 30
    marked = AdapterFilter(result.adapter, dense)(run)
    ours = roc_auc_score(hidden[others], marked.fn_probability[others])
    plain = roc_auc_score(hidden[others], run.score[others])
    assert ours > plain + 0.1
    assert result.losses[-1][0] < result.losses[0][0]
    assert (result.queries, result.without_positive) == (110, 0)


def test_reranking_does_not_hurt(trained):
    dense, dataset, relevant, result = trained
    run = dense(dataset.take(np.arange(110, 160)), 60)
    shown = [
        relevant[110 + top.query, top.document].mean()
        for top in (run.top(1), AdapterReranker(result.adapter, dense)(run).top(1))
    ]
    assert shown[1] >= shown[0]


def test_training_repeats_bit_for_bit():
    dense, dataset, relevant = planted(1, queries=30)
    run = dense(all_known(dataset, relevant), 40)
    one, two = (train_adapter(run, dense, hard=5, epochs=2, seed=3, show=False) for _ in range(2))
    other = train_adapter(run, dense, hard=5, epochs=2, seed=4, show=False)
    assert one.losses == two.losses != other.losses
    for name, value in one.adapter.state_dict().items():
        assert torch.equal(value, two.adapter.state_dict()[name])


def test_the_encoder_stays_as_it_was(tmp_path: Path):
    """Check 6, with a real encoder."""
    from rivals.data import Collection, Dataset, Judgements
    from rivals.models import Encoder
    from rivals.retrieve import Dense
    from tests.models.tiny import WORDS, write_tiny_bert

    encoder = Encoder.load(write_tiny_bert(tmp_path / "tiny"))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    documents = Collection(
        [f"d{i}" for i in range(20)], [f"{WORDS[i % 12]} {WORDS[(i + 5) % 12]} {i}" for i in range(20)]
    )
    queries = Collection([f"q{i}" for i in range(6)], WORDS[:6], name="query")
    judged = Judgements.build(np.arange(6), np.arange(6), np.ones(6), queries=6, documents=20)
    dense = Dense(encoder, documents, show_progress=False)
    result = train_adapter(dense(Dataset(queries, documents, judged), 10), dense, hard=3, epochs=3, show=False)
    assert result.adapter.encoder == encoder.fingerprint()
    for name, value in encoder.state_dict().items():
        assert torch.equal(before[name], value)


def test_hard_candidates_and_positives_are_never_negatives():
    from rivals.negatives.adapter import _Pairs

    dense, dataset, relevant = planted(2, queries=12)
    run = dense(all_known(dataset, relevant), 20)
    pairs = _Pairs(run, 8, 30, 10)
    rows = np.array([3, 0, 11])
    generator = np.random.default_rng(0)
    for _ in range(5):
        document, mask = pairs.draw(rows, generator)
        assert document.shape == (3, 41)
        assert mask[:, 0].all()
        assert relevant[rows, document[:, 0]].all()
        for row, found, there in zip(rows, document, mask, strict=True):
            negatives = set(found[1:][there[1:]].tolist())
            hard = set(run.document[(run.query == row) & (run.rank < 8)].tolist())
            assert not negatives & (hard | set(np.flatnonzero(relevant[row]).tolist()))
            low = run.document[(run.query == row) & (run.rank >= 8)]
            assert set(found[31:][there[31:]].tolist()) <= set(low.tolist())


def test_queries_without_positive_are_left_out_and_counted():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(34, 5))
    dense, dataset = searched(vectors[:4], vectors[4:], [[0], [], [2, 3], []])
    result = train_adapter(dense(dataset, 10), dense, hard=2, epochs=1, show=False)
    assert isinstance(result, TrainedAdapter)
    assert (result.queries, result.without_positive) == (2, 2)


# ------------------------------------------------------------------------------------------------------------ the filter


def test_filter_marks_only_and_repeats(trained):
    dense, dataset, _, result = trained
    run = dense(dataset, 30)
    rule = AdapterFilter(result.adapter, dense, threshold=0.5)
    once = rule(run)
    twice = rule(once)
    assert once.document.tolist() == run.document.tolist()
    assert np.array_equal(once.fn_probability, twice.fn_probability)
    assert np.array_equal(once.keep, twice.keep)
    suspected = once.where_reason("adapter false negative 0.5")
    known = ~KnownPositives()(run).keep
    assert suspected.any()
    assert np.array_equal(suspected, (once.fn_probability >= 0.5) & ~known)
    other = KnownPositives()(run)
    assert np.array_equal(rule(other).keep, KnownPositives()(once).keep)
    assert AdapterFilter(result.adapter, dense)(run).keep.all()


def test_blocks_of_queries_do_not_matter(trained):
    dense, dataset, _, result = trained
    rule, rows = AdapterFilter(result.adapter, dense), np.array([7, 90, 3])
    whole, part = rule(dense(dataset, 20)).take(rows), rule(dense(dataset.take(rows), 20))
    assert part.fn_probability == pytest.approx(whole.fn_probability, abs=1e-5)


# ----------------------------------------------------------------------------------------------------------- re-ranking


def test_power_zero_keeps_the_order(trained):
    """Check 5, first half."""
    dense, dataset, _, result = trained
    run = dense(dataset, 30)
    again = AdapterReranker(result.adapter, dense, power=0.0, depth=30)(run)
    assert again.document.tolist() == run.document.tolist()


def test_only_the_head_is_reranked(trained):
    dense, dataset, _, result = trained
    run = dense(dataset, 30)
    again = AdapterReranker(result.adapter, dense, depth=10)(run)
    assert again.padded("document", fill=-1)[:, 10:].tolist() == run.padded("document", fill=-1)[:, 10:].tolist()
    assert again.padded("document", fill=-1)[:, :10].tolist() != run.padded("document", fill=-1)[:, :10].tolist()


def test_adapter_scores_by_hand():
    assert adapter_scores([0.6, -0.2], [1.0, 0.0]).tolist() == pytest.approx([0.8, 0.2])
    assert adapter_scores([0.6, -0.2], [1.0, 0.0], power=2).tolist() == pytest.approx([0.8, 0.1])
    assert adapter_scores([4.0], [0.0], score_kind="bm25").tolist() == [2.0]
    assert adapter_scores([-1.0000001], [0.5]).tolist() == [0.0]
    with pytest.raises(RivalsError, match="scores of kind 'dot' reach -1, and a product needs them above 0"):
        adapter_scores([4.0, -1.0], [0.0, 0.0], score_kind="dot")
    with pytest.raises(RivalsError, match="power must be"):
        adapter_scores([1.0], [0.0], power=-1)


# ---------------------------------------------------------------------------------------------------------- save and load


def test_save_and_load(tmp_path: Path, trained):
    dense, dataset, _, result = trained
    path = tmp_path / "adapter.safetensors"
    result.adapter.save(path)
    loaded = RetrieverAdapter.load(path)
    assert (loaded.dim, loaded.hidden, loaded.encoder) == (result.adapter.dim, 64, "made")
    run = dense(dataset, 10)
    assert np.array_equal(
        AdapterFilter(loaded, dense)(run).fn_probability, AdapterFilter(result.adapter, dense)(run).fn_probability
    )
    stage = AdapterReranker(result.adapter, dense, power=0.5, depth=7)
    stage.save(tmp_path / "stage")
    back = AdapterReranker.load(tmp_path / "stage", dense)
    assert (back.power, back.depth) == (0.5, 7)
    assert np.array_equal(back(run).score, stage(run).score)


def test_damaged_files_are_named(tmp_path: Path, trained):
    dense, _, _, result = trained
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(ModelError, match=r"adapter\.safetensors cannot be read"):
        RetrieverAdapter.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be read"):
        RetrieverAdapter.load(path)
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="holds no adapter"):
        RetrieverAdapter.load(path)
    stage = tmp_path / "stage"
    AdapterReranker(result.adapter, dense).save(stage)
    file = stage / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="checksum differs"):
        AdapterReranker.load(stage, dense)
    spec = stage / "second_stage.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"kind": "cross-encoder"}))
    with pytest.raises(ModelError, match="second stage 'cross-encoder' of version 1, not 'adapter'"):
        AdapterReranker.load(stage, dense)
    spec.write_text("{}")
    with pytest.raises(ModelError, match=r"second_stage\.json cannot be read"):
        AdapterReranker.load(stage, dense)


# ---------------------------------------------------------------------------------------------------------------- errors


def test_bad_input():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(12, 5))
    dense, dataset = searched(vectors[:2], vectors[2:], [[0], [1]])
    run, adapter = dense(dataset, 5), RetrieverAdapter(5, encoder="made")
    other, _ = searched(vectors[:2], vectors[2:], [[0], [1]], name="another")
    narrow = RetrieverAdapter(4)
    unasked = dense(dataset.queries, 5)
    spoilt, _ = searched(np.full((2, 5), np.nan), vectors[2:], [[0], [1]], similarity="dot")
    for call, message in (
        (lambda: RetrieverAdapter(0), "dim and hidden"),
        (lambda: adapter(torch.zeros(2, 5), torch.zeros(2, 3, 4)), "the adapter reads"),
        (lambda: adapter(torch.zeros(2, 5), torch.zeros(3, 3, 5)), "the adapter reads"),
        (lambda: line_penalty(Q, C, torch.zeros(1, 2, 2)), "need candidates and adapted"),
        (lambda: line_penalty(Q, C, C, torch.ones(1, 1)), "mask must be bool"),
        (lambda: adapter_loss(adapter, torch.zeros(1, 5), torch.zeros(1, 2, 5), torch.zeros(1, 3)), "relevance must"),
        (lambda: AdapterFilter(adapter, dense, threshold=0.0), "threshold must lie"),
        (lambda: AdapterFilter(narrow, dense)(run), "reads vectors of width 4"),
        (lambda: AdapterFilter(adapter, other)(run), "another encoder"),
        (lambda: AdapterFilter(adapter, dense.documents)(run), "Collection gives no vectors"),  # type: ignore[arg-type]
        (lambda: AdapterReranker(adapter, dense, power=-1.0), "power must be"),
        (lambda: AdapterReranker(adapter, dense, depth=0), "depth must be"),
        (lambda: train_adapter(unasked, dense), "no query has a known positive"),
        (lambda: train_adapter(run, dense, hard=10, random=0), "no negative to learn from"),
        (lambda: train_adapter(dense(dataset, 10), dense, hard=10), "no negative to learn from"),
        (lambda: train_adapter(run, dense, epochs=0), "epochs must be 1 or more"),
        (lambda: train_adapter(run, dense, learning_rate=0.0), "learning_rate must be above 0"),
        (lambda: train_adapter(run, spoilt, show=False), "the query vectors hold NaN"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()
