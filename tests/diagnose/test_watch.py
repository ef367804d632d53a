"""Diagnoses while training: looks at intervals, and the distribution of scores (papers 12 and 34)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.diagnose.collapse import collapse_report
from rivals.diagnose.watch import ScoreHistory, Watch
from rivals.errors import RivalsError
from rivals.losses import in_batch_triplet_loss, softmax_loss
from rivals.models.images import FeatureEncoder
from rivals.training import LoopConfig, SupervisedObjective, fit
from rivals.training.loop import read_log
from rivals.training.regime import Together

CONFIG = LoopConfig(epochs=10, learning_rate=0.01, evaluations=0, precision="float32", checkpoint_seconds=0.0)


def objective() -> SupervisedObjective:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=draw), torch.arange(40) % 8
    model = FeatureEncoder(6, 4, hidden=(16,), dropout=0.3)
    return SupervisedObjective(model, [x], [y], in_batch_triplet_loss, classes=y, each=5, batch_size=20)


def test_collapse_is_watched_in_the_log_of_a_resumed_run(tmp_path) -> None:
    def watch(made: SupervisedObjective) -> Watch:
        def look(step: int) -> dict[str, object]:
            assert not made.model.training
            return collapse_report(made.model(made.inputs[0]), made.targets[0], margin=0.2).to_json()

        return Watch(look, every=4, name="collapse")

    made = objective()
    whole = watch(made)
    fit(made, CONFIG, folder=tmp_path / "whole", regime=whole)
    assert [step for step, _ in whole.history] == [0, 4, 8, 12, 16]
    assert whole.history[0][1]["effective_rank"] > 1
    logged = [line for line in read_log(tmp_path / "whole") if "refresh" in line]
    assert [line["refresh"]["collapse"] for line in logged] == [seen for _, seen in whole.history]

    class Stop(Exception):
        pass

    class Stopping(Watch):
        def begin(self, step: int, total: int) -> None:
            super().begin(step, total)
            if step == 9:
                raise Stop

    cut = objective()
    stopping = Stopping(watch(cut).look, every=4, name="collapse")
    with pytest.raises(Stop):
        fit(cut, CONFIG, folder=tmp_path / "cut", regime=stopping)
    again = objective()
    resumed = watch(again)
    fit(again, CONFIG, folder=tmp_path / "cut", resume=True, regime=resumed)
    assert resumed.history == whole.history


def test_watching_changes_nothing() -> None:
    plain, seen = objective(), objective()
    fit(plain, CONFIG)
    scores = ScoreHistory()

    def look(step: int) -> dict[str, float]:
        vectors = torch.nn.functional.normalize(seen.model(seen.inputs[0]), dim=1)
        same = (seen.targets[0][:, None] == seen.targets[0]).long()
        return scores(step, vectors @ vectors.T, same, ~torch.eye(40, dtype=torch.bool))

    regime = Together(
        [Watch(look, every=5, name="scores"), Watch(lambda step: {"step": step}, every=7, first=3, name="b")]
    )
    fit(seen, CONFIG, regime=regime)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), seen.model.parameters(), strict=True))
    assert [view.step for view in scores.views] == [0, 5, 10, 15]
    assert [step for step, _ in regime.members[1].history] == [3, 10, 17]
    first, last = scores.views[0], scores.views[-1]
    assert last.positive_mean - last.negative_mean > first.positive_mean - first.negative_mean
    assert first.positives.sum() == 40 * 4
    assert first.negatives.sum() == 40 * 35


def test_a_watched_loss_is_the_loss() -> None:
    seen = ScoreHistory(low=-5, high=5, bins=10)
    scores, relevance = torch.randn(3, 4, requires_grad=True), torch.tensor([[1, 0, 0, 0]] * 3)
    mask = torch.tensor([[True, True, True, False]] * 3)
    watched = seen.watched(softmax_loss)
    assert torch.equal(watched(scores, relevance, mask), softmax_loss(scores, relevance, mask))
    watched(scores, relevance).backward()
    assert scores.grad is not None
    assert [view.step for view in seen.views] == [0, 1]
    assert seen.views[0].negatives.sum() == 6
    assert seen.views[1].negatives.sum() == 9


def test_numbers_by_hand() -> None:
    seen = ScoreHistory(bins=2)
    values = seen(
        7,
        torch.tensor([[0.9, 0.2, -0.4, 0.0], [0.1, 0.5, 0.0, 0.0], [0.3, 0.3, 0.3, 0.3]]),
        torch.tensor([[1, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]),
        torch.tensor([[True, True, True, False], [True, True, False, False], [True, False, False, False]]),
    )
    assert values["positive_mean"] == pytest.approx(0.5)  # the list without positive does not count
    assert values["negative_mean"] == pytest.approx((-0.1 + 0.5 + 0.3) / 3)
    assert values["negative_std"] == pytest.approx(np.std([0.2, -0.4], ddof=1) / 3)
    assert values["above_positive"] == pytest.approx(0.5)
    assert values["overlap"] == pytest.approx(0.75)
    assert seen.views[0].positives.tolist() == [0, 2]
    assert seen.views[0].negatives.tolist() == [1, 3]
    json.dumps(seen.to_json())


def test_scores_beyond_the_ends_are_in_the_end_bins_and_nothing_is_fine() -> None:
    seen = ScoreHistory(bins=2)
    seen(0, torch.tensor([[50.0, -50.0]]), torch.tensor([[1, 0]]))
    assert seen.views[0].positives.tolist() == [0, 1]
    assert seen.views[0].negatives.tolist() == [1, 0]
    values = seen(1, torch.zeros(0, 3), torch.zeros(0, 3))
    assert set(values.values()) == {0.0}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_running_means_of_queries_are_those_of_all_calls(seed, calls) -> None:
    rng = np.random.default_rng(seed)
    seen, kept = ScoreHistory(queries=5), [[] for _ in range(5)]
    for step in range(calls):
        places = rng.integers(0, 5, 4)
        scores = torch.from_numpy(rng.standard_normal((4, 3)).astype(np.float32))
        relevance = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
        seen(step, scores, relevance, queries=places)
        for place, row, marks in zip(places, scores.numpy(), relevance.numpy(), strict=True):
            if marks.any():
                kept[place].append([row[marks > 0].mean(), row[marks == 0].mean()])
    mean, variance, count = seen.per_query()
    assert count.tolist() == [len(rows) for rows in kept]
    for place, rows in enumerate(kept):
        if rows:
            assert mean[place] == pytest.approx(np.mean(rows, axis=0), abs=1e-6)
            assert variance[place] == pytest.approx(np.var(rows, axis=0), abs=1e-6)


def test_errors() -> None:
    with pytest.raises(RivalsError, match="every must be at least 1"):
        Watch(lambda step: {}, every=0)
    with pytest.raises(RivalsError, match="high must be above low"):
        ScoreHistory(low=1, high=1)
    seen = ScoreHistory(queries=2)
    with pytest.raises(RivalsError, match="places below 2"):
        seen(0, torch.zeros(1, 2), torch.tensor([[1, 0]]), queries=np.array([2]))
    with pytest.raises(RivalsError, match="scores at step 0 are not finite"):
        seen(0, torch.tensor([[torch.nan, 0.0]]), torch.tensor([[1, 0]]))
