"""A budget is never exceeded, and counts add up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.errors import DataError, RivalsError
from rivals.models.language import Budget, BudgetSpent, Usage
from rivals.models.language.budget import Reservation

REQUESTS = st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1), st.booleans()), max_size=60)


@given(
    REQUESTS,
    st.none() | st.integers(0, 400),
    st.none() | st.floats(0, 300),
    st.none() | st.integers(0, 20),
)
def test_no_order_of_events_exceeds_a_limit(
    requests: list[tuple[int, float, bool]], tokens: int | None, cost: float | None, calls: int | None
) -> None:
    budget = Budget(max_tokens=tokens, max_cost=cost, max_calls=calls)
    held: list[tuple[Reservation, float]] = []
    for worst, share, settle in requests:
        try:
            reservation = budget.reserve(tokens=worst, cost=float(worst))
        except BudgetSpent:
            break
        if reservation is not None:
            held.append((reservation, share))
        if settle and held:
            one, share = held.pop(0)
            one.settle(tokens=int(one.tokens * share), cost=one.cost * share)
    for one, _ in held:  # the worst case comes true for all that are left
        one.settle(tokens=one.tokens, cost=one.cost)
    assert tokens is None or budget.tokens <= tokens
    assert cost is None or budget.cost <= cost + 1e-9
    assert calls is None or budget.calls <= calls


def test_what_does_not_fit_now_may_fit_later_or_never() -> None:
    budget = Budget(max_tokens=100, max_calls=3)
    first = budget.reserve(tokens=70, cost=0)
    assert first is not None
    assert budget.reserve(tokens=40, cost=0) is None
    first.settle(tokens=10, cost=0)
    second = budget.reserve(tokens=90, cost=0)
    assert second is not None
    second.settle(tokens=80, cost=0)
    with pytest.raises(
        BudgetSpent, match="the budget of 100 tokens is spent: 90 used, and the next request may take 40"
    ):
        budget.reserve(tokens=40, cost=0)
    third = budget.reserve(tokens=10, cost=0)
    assert third is not None
    third.settle(tokens=0, cost=0, calls=0)  # it was never sent
    assert str(budget) == "2 of 3 calls, 90 of 100 tokens"
    assert repr(budget) == "Budget(max_tokens=100, max_calls=3)"


def test_threads_share_a_budget() -> None:
    budget = Budget(max_tokens=1000)
    most = [0]
    guard = threading.Lock()

    def work() -> None:
        while True:
            try:
                held = budget.reserve(tokens=9, cost=0)
            except BudgetSpent:
                return
            if held is not None:
                held.settle(tokens=7, cost=0)
                with guard:
                    most[0] = max(most[0], budget.tokens)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 991 < budget.tokens == most[0] <= 1000


@pytest.mark.parametrize("wrong", [{"max_tokens": -1}, {"max_cost": float("nan")}, {"max_calls": -3}])
def test_a_limit_must_be_a_number(wrong: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match="must be a finite number, 0 or more"):
        Budget(**wrong)  # type: ignore[arg-type]


def test_usage_prints_and_is_read_back(tmp_path: Path) -> None:
    usage = Usage()
    assert str(usage) == "0 calls, 0 tokens read, 0 written"
    usage.add(calls=1, prompt_tokens=1234, completion_tokens=5, cost=0.25, cached=1200, errors=1)
    assert str(usage) == "1 call, 1,234 tokens read, 5 written, cost 0.25, 1,200 from the cache, 1 error"
    assert usage.tokens == 1239
    assert Usage.load(usage.save(tmp_path / "usage.json")) == usage
    (tmp_path / "usage.json").write_text('{"calls": 1}')
    with pytest.raises(DataError, match=r"usage\.json: no counts of usage can be read here"):
        Usage.load(tmp_path / "usage.json")
