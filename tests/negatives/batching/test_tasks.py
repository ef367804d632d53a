"""Several tasks at once: both in every step, or one a step in proportion."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.negatives.batching import Examples, NoDuplicates, Shuffled, TaskBalanced


def batches(count: int, size: int = 1, seed: int = 0) -> Shuffled:
    judged = Judgements.build(
        np.arange(count), np.arange(count), np.ones(count), queries=count, documents=max(count, 1)
    )
    names = Collection([f"q{i}" for i in range(count)]), Collection([f"d{i}" for i in range(count)])
    return Shuffled(Examples(Dataset(*names, judged)), size, seed=seed)


pytestmark = pytest.mark.filterwarnings("ignore:.*anchors of a batch have no negative:UserWarning")


def test_every_step_has_a_batch_of_each_task() -> None:
    both = TaskBalanced({"retrieval": batches(40, 4), "sts": batches(96, 32)})
    steps = list(both)
    assert len(steps) == len(both) == 10
    for number, (retrieval, sts) in enumerate(steps):
        assert (retrieval.task, sts.task, retrieval.step, sts.step) == (0, 1, number, number)
        assert (len(retrieval), len(sts)) == (4, 32)
    assert sorted(row for step in steps for row in step[0].anchor.tolist()) == list(range(40))
    assert both.repeats == {"retrieval": 0, "sts": 7}
    assert both.unseen == {"retrieval": 0, "sts": 0}
    passes = [sorted(row for step in steps[i : i + 3] for row in step[1].anchor.tolist()) for i in (0, 3, 6)]
    assert passes == [list(range(96))] * 3
    assert steps[0][1].anchor.tolist() != steps[3][1].anchor.tolist()  # begun anew in another order


def test_the_shortest_task_may_end_the_epoch() -> None:
    both = TaskBalanced({"a": batches(10), "b": batches(3)}, until="shortest")
    assert len(list(both)) == 3
    assert both.unseen == {"a": 7, "b": 0}
    assert len(TaskBalanced({"a": batches(10), "b": batches(3)}, steps=25)) == 25


def test_proportional_gives_every_batch_once() -> None:
    both = TaskBalanced({"a": batches(30), "b": batches(10)}, mode="proportional")
    given = [(step[0].task, int(step[0].anchor[0])) for step in both]
    assert sorted(given) == [(0, row) for row in range(30)] + [(1, row) for row in range(10)]
    assert 1 < sum(a != b for (a, _), (b, _) in pairwise(given)) < 39


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from([0.5, 1.0, 2.0, 100.0]))
def test_quotas_follow_the_temperature(sizes: list[int], temperature: float) -> None:
    tasks = {str(place): batches(size) for place, size in enumerate(sizes)}
    balanced = TaskBalanced(tasks, mode="proportional", temperature=temperature)
    assert len(balanced) == sum(sizes)
    share = np.array(sizes) ** (1 / temperature)
    wanted = share / share.sum() * sum(sizes)
    seen = Counter(step[0].task for step in balanced)
    assert [seen[place] for place in range(len(sizes))] == [balanced.quota[name] for name in tasks]
    assert max(abs(balanced.quota[str(i)] - wanted[i]) for i in range(len(sizes))) < 1


def test_tasks_go_on_with_their_epochs() -> None:
    small = batches(4)
    both = TaskBalanced({"a": batches(10), "b": small})
    used = []
    for epoch in (0, 1):
        both.set_epoch(epoch)
        used.append([small.epoch for _ in both])
    assert used == [[0] * 4 + [1] * 4 + [2] * 2, [3] * 4 + [4] * 4 + [5] * 2]


def test_bad_input() -> None:
    one = batches(3)
    for tasks, options, said in (
        ({}, {}, "needs a task"),
        ({"a": one}, {"mode": "round"}, "mode must be"),
        ({"a": one}, {"until": "never"}, "until 'longest' or 'shortest'"),
        ({"a": one}, {"temperature": 0}, "temperature must be"),
        ({"a": one}, {"steps": 0}, "steps must be"),
        ({"a": one, "b": one}, {}, "two tasks have the same batcher"),
        ({"a": one, "b": Shuffled(one.examples, 5, drop_last=True)}, {}, "task 'b' has no batch"),
    ):
        with pytest.raises(RivalsError, match=said):
            TaskBalanced(tasks, **options)
    state = TaskBalanced({"a": one}).state_dict()
    with pytest.raises(RivalsError, match="with tasks="):
        TaskBalanced({"b": NoDuplicates(one.examples, 1)}).load_state_dict(state)
