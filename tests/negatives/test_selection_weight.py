"""Weights from a selection model (paper 5): the card's values, coupled training on the runs of batches, laws, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Run
from rivals.errors import RivalsError
from rivals.losses import coupled_losses, pairwise_logistic_loss, selection_weight
from rivals.negatives import KnownPositives
from rivals.negatives.selection_weight import SelectionWeight, candidate_scores
from tests.negatives.given_vectors import planted


def fixed(values):
    return lambda run: np.resize(np.asarray(values, np.float32), len(run))


@pytest.mark.parametrize("ratio", [0.5, 2.0, 10.0])
def test_weights_of_the_card(make_run, ratio):
    """Check 1."""
    run = make_run([[0.9, 0.8, 0.7]])
    weighed = SelectionWeight(fixed([0.0, ratio * math.log(3), -1e6]), debias_ratio=ratio)(run)
    assert weighed.weight == pytest.approx([2.0, 4.0, 1.0])


def test_the_weighted_loss_of_the_card(make_run):
    """Check 2, the weight column in the loss: one pair (1, 0), selection score 0."""
    run = SelectionWeight(fixed([5.0, 0.0]))(KnownPositives()(make_run([[1.0, 0.0]], [[0]])))
    assert run.weight.tolist() == [1.0, 2.0]  # the positive keeps its weight
    scores = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = pairwise_logistic_loss(scores, torch.tensor([[1.0, 0.0]]), weight=torch.from_numpy(run.weight)[None])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.626523375, abs=1e-6)
    assert scores.grad is not None
    assert scores.grad.tolist()[0] == pytest.approx([-0.537882843, 0.537882843], abs=1e-6)


def test_huge_ratio_and_huge_scores(make_run):
    """Checks 4 and 6."""
    run = make_run([[0.9, 0.8]])
    assert SelectionWeight(fixed([20.0, -20.0]), debias_ratio=1e9)(run).weight == pytest.approx([2, 2])
    extreme = SelectionWeight(fixed([3e4, -3e4]), debias_ratio=0.1)(run).weight
    assert np.isfinite(extreme).all()
    assert extreme[1] == 1
    assert SelectionWeight(fixed([20.0, 0.0]), debias_ratio=1, max_weight=3.0)(run).weight.tolist() == [3, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 20), st.booleans())
def test_laws(make_run, seed, ratio, normalise):
    generator = np.random.default_rng(seed)
    run = make_run(generator.normal(size=(4, 6)), [[0], [1, 2], [], [5]])
    scores = generator.normal(size=(4, 6)) * 5

    def model(run: Run) -> np.ndarray:
        rows = [int(name[1:]) for name in run.queries.ids]
        return scores[np.array(rows)[run.query], run.document]

    rule = SelectionWeight(model, debias_ratio=ratio, normalise=normalise)
    once = rule(run)
    assert np.array_equal(rule(once).weight, once.weight)
    assert np.array_equal(once.keep, run.keep)
    assert np.array_equal(once.document, run.document)
    part = rule(run.take([3, 1]))
    assert part.weight == pytest.approx(once.take([3, 1]).weight)
    known = ~KnownPositives()(run).keep
    assert (once.weight[known] == 1).all()
    if normalise:
        for query in range(4):
            assert once.weight[(run.query == query) & ~known].mean() == pytest.approx(1, rel=1e-5)
    else:
        expected = selection_weight(torch.from_numpy(model(run)), ratio).numpy()
        assert once.weight[~known] == pytest.approx(expected[~known], rel=1e-5)


def test_scorers(make_run):
    dense, dataset, _ = planted(0, queries=8)
    run = dense(dataset, 6)
    own = candidate_scores(run, dense)
    assert own == pytest.approx(run.score, abs=1e-6)
    assert candidate_scores(run.rescored(np.zeros(len(run)), scorer="other"), "dense").size == len(run)
    assert repr(SelectionWeight(dense)) == "SelectionWeight(dense, debias_ratio=10)"


def test_in_training_the_weights_follow_the_selection_model():
    """Online: two small models learn by the coupled losses; the filter gives what the loss used, step after step."""
    dense, dataset, _ = planted(1, queries=24)
    run = KnownPositives()(dense(dataset, 12))
    queries, documents = torch.from_numpy(dense.query_vectors(dataset.queries)), torch.from_numpy(dense.vectors)
    torch.manual_seed(0)
    relevance, selection = torch.nn.Linear(12, 1), torch.nn.Linear(12, 1)
    optimizer = torch.optim.SGD([*relevance.parameters(), *selection.parameters()], lr=0.5)

    def score(model: torch.nn.Module, run: Run) -> torch.Tensor:
        asked = dataset.queries.find(run.queries.ids)[run.query]
        return model(queries[asked] * documents[run.document]).squeeze(-1)

    def now(run: Run) -> np.ndarray:
        with torch.no_grad():
            return score(selection, run).numpy()

    rule, weights = SelectionWeight(now, debias_ratio=2.0), []
    for _ in range(3):
        batch = run.take(np.arange(24))
        lists = batch.lists()
        useful = torch.from_numpy((lists.relevance > 0).any(1))
        shape = (24, 12)
        both = [score(model, batch).reshape(shape)[useful] for model in (relevance, selection)]
        labels = torch.from_numpy(lists.relevance)[useful]
        found = coupled_losses(*both, labels, debias_ratio=2.0)
        weighed = rule(batch)
        weights.append(weighed.weight)
        column = torch.from_numpy(weighed.weight).reshape(shape)[useful]
        assert float(pairwise_logistic_loss(both[0], labels, weight=column).detach()) == pytest.approx(
            float(found.relevance_loss.detach()), rel=1e-5
        )
        optimizer.zero_grad()
        (found.relevance_loss + found.selection_loss).backward()
        optimizer.step()
    assert not np.allclose(weights[0], weights[2])


def test_bad_input(make_run):
    run = make_run([[0.9, 0.8], [0.7, 0.6]])
    dense, _, _ = planted(0, queries=4)
    for call, message in (
        (lambda: SelectionWeight(3), "3 scores no candidates"),  # type: ignore[arg-type]
        (lambda: SelectionWeight("x", debias_ratio=0), "debias_ratio must be"),
        (lambda: SelectionWeight("x", max_weight=0.5), "max_weight must be at least 1"),
        (lambda: SelectionWeight("bm25")(run), "no feature 'bm25'; it has none"),
        (lambda: SelectionWeight(lambda run: [1.0])(run), r"gave scores of shape \(1,\) for 4 candidates"),
        (
            lambda: SelectionWeight(fixed([1.0, 1.0, np.nan]))(run),
            "gives document 'd000' of query 'q1' the score nan",
        ),
        (lambda: SelectionWeight(dense)(run), "over different documents"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()
