"""What was answered is not asked again: after errors, interrupts and kills, and by any process."""

from __future__ import annotations

import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.models.language import (
    Budget,
    BudgetSpent,
    CachedLanguageModel,
    Completion,
    EndpointLanguageModel,
    LanguageModel,
    Message,
    Prompt,
    Sampling,
)
from rivals.models.language.base import GREEDY
from tests.models.language import jobs
from tests.models.language.server import Reply, Seen, Server, chat

Serve = Callable[[Callable[[Seen], Reply]], Server]


class Upper(LanguageModel):
    """Answers in capitals and remembers what it was asked; prompts with ! fail, and ? has no log-probabilities."""

    def __init__(self, name: str = "upper") -> None:
        self.name = name
        self.asked: list[str] = []

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, *, show: bool = False
    ) -> list[Completion]:
        texts = [prompt.messages[-1].text for prompt in prompts]
        self.asked += texts
        return [
            Completion("", "error", error="no")
            if "!" in text
            else Completion(text.upper(), prompt_tokens=3, completion_tokens=1)
            for text in texts
        ]

    def option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str], *, show: bool = False
    ) -> NDArray[np.float32]:
        texts = [prompt.messages[-1].text for prompt in prompts]
        self.asked += texts
        table = np.array([[-len(text) - column / 3 for column in range(len(options))] for text in texts], np.float32)
        table[["?" in text for text in texts]] = np.nan
        table[["~" in text for text in texts], 0] = np.nan
        return table.reshape(len(texts), len(options))


def ask(model: LanguageModel, *texts: str, sampling: Sampling = GREEDY) -> list[Completion]:
    return model.complete([Prompt.of(text) for text in texts], sampling)


def test_only_what_is_missing_is_asked_and_equal_prompts_once(tmp_path: Path) -> None:
    inner = Upper()
    with CachedLanguageModel(inner, tmp_path / "a.db") as model:
        first = ask(model, "a", "b", "a", "c!", "c!", "b")
        assert inner.asked == ["a", "b", "c!"]
        assert [answer.text for answer in first] == ["A", "B", "A", "", "", "B"]
        assert [answer.cached for answer in first] == [False, False, True, False, False, True]
        assert [answer.prompt_tokens for answer in first] == [3, 3, 0, 0, 0, 0]
        second = ask(model, "b", "d", "c!", "a")
        assert inner.asked[3:] == ["d", "c!"]  # errors are asked for again
        assert [(answer.text, answer.cached) for answer in second] == [
            ("B", True),
            ("D", False),
            ("", False),
            ("A", True),
        ]
        assert (model.usage.cached, inner.usage.cached) == (4, 4)


def test_odd_texts_come_back_as_they_were(tmp_path: Path) -> None:
    texts = ["", "\0", "\ud800", "é", "e\u0301", "x" * 100_000, "\r\n"]
    for _ in range(2):
        with CachedLanguageModel(Upper(), tmp_path / "a.db") as model:
            assert [answer.text for answer in ask(model, *texts)] == [text.upper() for text in texts]
    assert model.usage.cached == len(texts)


def test_every_setting_and_every_message_counts(tmp_path: Path) -> None:
    base = Prompt.of("a", system="s")
    prompts = [base, Prompt.of("a"), Prompt((*base.messages, Message("assistant", "A"), Message("user", "a")))]
    prompts += [Prompt((Message("user", "s"), Message("user", "a"))), Prompt.of("s\na"), Prompt.of("a ")]
    settings = [Sampling(), Sampling(8), Sampling(temperature=1), Sampling(top_p=0.5), Sampling(stop=("a",))]
    settings += [Sampling(stop=("a", "b")), Sampling(seed=1)]
    asked = 0
    for name in ("one", "two"):
        for sampling in settings:
            inner = Upper(name)
            with CachedLanguageModel(inner, tmp_path / "a.db") as model:
                model.complete(prompts, sampling)
                model.option_log_probabilities(prompts, ["x", str(sampling)])
            asked += len(inner.asked)
    assert asked == 2 * len(settings) * 2 * len(prompts)
    inner = Upper("one")
    with CachedLanguageModel(inner, tmp_path / "a.db") as model:
        model.complete(prompts, Sampling(temperature=1.0))
        model.complete(prompts, Sampling(temperature=0))
    assert inner.asked == []


def test_option_log_probabilities_are_kept_bit_for_bit(tmp_path: Path) -> None:
    prompts = [Prompt.of(text) for text in ("a", "bb?", "cc~", "a")]
    inner = Upper()
    with CachedLanguageModel(inner, tmp_path / "a.db") as model:
        first = model.option_log_probabilities(prompts, ["Yes", "No"])
        assert inner.asked == ["a", "bb?", "cc~"]
        second = model.option_log_probabilities(prompts, ["Yes", "No"])
        assert inner.asked[3:] == ["bb?"]  # nothing was known of it: it may have been an error
        assert first.tobytes() == second.tobytes() == Upper().option_log_probabilities(prompts, ["Yes", "No"]).tobytes()
        model.option_log_probabilities(prompts[:1], ["No", "Yes"])
        assert inner.asked[4:] == ["a"]


class Fails(Upper):
    """Answers two prompts and then raises."""

    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]:
        yield 1, self.complete(prompts[1:2])[0]
        yield 0, self.complete(prompts[:1])[0]
        raise KeyboardInterrupt


def test_what_came_before_an_interrupt_is_kept(tmp_path: Path) -> None:
    with CachedLanguageModel(Fails(), tmp_path / "a.db") as model, pytest.raises(KeyboardInterrupt):
        ask(model, "a", "b", "c", "d")
    inner = Upper()
    with CachedLanguageModel(inner, tmp_path / "a.db") as model:
        assert [answer.text for answer in ask(model, "a", "b", "c", "d")] == ["A", "B", "C", "D"]
    assert inner.asked == ["c", "d"]


# ---------------------------------------------------------------------------------- killed jobs

COUNT, CONCURRENCY = 60, 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_stopped_job_asks_only_for_the_rest(serve: Serve, tmp_path: Path, how: signal.Signals) -> None:
    reached = threading.Event()

    def reply(seen: Seen) -> Reply:
        number = len(server.seen)
        if number >= 20:
            reached.set()
        return Reply(chat(f"re: {seen.text}"), delay=0.02 if number < 30 else 0.2)

    server = serve(reply)
    file = tmp_path / "answers.db"
    command = [sys.executable, jobs.__file__, server.url, str(file), str(COUNT), str(CONCURRENCY)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        assert reached.wait(60)
        time.sleep(0.03)
        job.send_signal(how)
        complaint = job.communicate(timeout=20)[1]
    assert job.returncode == (130 if how == signal.SIGINT else -how)
    assert complaint == ""
    before = server.texts
    model = jobs.model_at(server.url, str(file), 16)
    answers = model.complete(jobs.questions(COUNT))
    assert [answer.text for answer in answers] == [f"re: question {number}" for number in range(COUNT)]
    again = server.texts[len(before) :]
    kept = sum(answer.cached for answer in answers)
    assert kept >= len(before) - 4 * CONCURRENCY  # at most those on their way are lost, and those just come
    assert len(again) == COUNT - kept
    assert len(set(before) & set(again)) == len(before) - kept
    assert [answer.cached for answer in model.complete(jobs.questions(COUNT))] == [True] * COUNT
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_processes_fill_one_file(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda seen: Reply(chat(f"re: {seen.text}")))
    file = tmp_path / "new" / "answers.db"
    command = [sys.executable, jobs.__file__, server.url, str(file), "150", "4"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(job.communicate(timeout=60)[1], job.returncode) for job in running] == [("", 0)] * 2
    asked = len(server.seen)
    answers = jobs.model_at(server.url, str(file), 1).complete(jobs.questions(150))
    assert [(answer.text, answer.cached) for answer in answers] == [(f"re: question {n}", True) for n in range(150)]
    assert len(server.seen) == asked <= 300


# ---------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("limits", "most"),
    [({"max_calls": 17}, 17), ({"max_tokens": 1000}, 1000), ({"max_cost": 0.01}, 0.01)],
    ids=["calls", "tokens", "cost"],
)
def test_a_budget_holds_under_concurrency_and_its_answers_are_kept(
    serve: Serve, tmp_path: Path, limits: dict[str, float], most: float
) -> None:
    served: list[tuple[int, int]] = []

    def reply(seen: Seen) -> Reply:
        if seen.times == 0 and seen.text[-1] == "5":
            return Reply(chat("half"), sent=30, delay=0.01)  # it may have been charged for
        tokens = (len(seen.text) + 20, 8 if int(seen.text[-1]) % 2 else 3)
        served.append(tokens)
        return Reply(chat("ok", tokens=tokens), delay=0.01)

    server = serve(reply)
    prompts = [Prompt.of(f"question {number}") for number in range(200)]

    def spent() -> float:
        read, written = (sum(part) for part in zip(*served, strict=True))
        return {"max_calls": len(server.seen), "max_tokens": read + written}.get(
            next(iter(limits)), (read * 8 + written * 40) / 1e6
        )

    def model_with(budget: Budget) -> CachedLanguageModel:
        inner = EndpointLanguageModel(
            server.url, "m", concurrency=16, backoff=0.01, price_in=8, price_out=40, budget=budget
        )
        return CachedLanguageModel(inner, tmp_path / "a.db")

    budget = Budget(**limits)  # type: ignore[arg-type]
    with model_with(budget) as model, pytest.raises(BudgetSpent, match=r"the budget of .* is spent: .* raise max_"):
        model.complete(prompts, Sampling(max_tokens=8))
    assert 0.5 * most < spent() <= most
    assert budget.calls == len(server.seen)
    assert budget.cost == pytest.approx(model.usage.cost)
    paid, before = len(served), len(server.seen)
    with model_with(Budget()) as model:
        answers = model.complete(prompts, Sampling(max_tokens=8))
    assert sum(answer.cached for answer in answers) == paid
    assert len({one.text for one in server.seen[before:]}) == len(prompts) - paid


def test_a_cost_limit_needs_prices() -> None:
    with pytest.raises(RivalsError, match="needs the model's prices"):
        EndpointLanguageModel("http://127.0.0.1/v1", "m", budget=Budget(max_cost=1))


# ---------------------------------------------------------------------------------- files


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a text that is no database, and long enough to be seen as none " * 9)
    with pytest.raises(RivalsError, match=r"text: the answers cannot be kept here \(file is not a database\)"):
        ask(CachedLanguageModel(Upper(), tmp_path / "text"), "a")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(RivalsError, match=r"other\.db is a database of something else"):
        ask(CachedLanguageModel(Upper(), tmp_path / "other.db"), "a")
    with pytest.raises(RivalsError, match="the answers cannot be kept here"):
        ask(CachedLanguageModel(Upper(), tmp_path), "a")
    with pytest.raises(RivalsError, match="the answers cannot be kept here"):
        ask(CachedLanguageModel(Upper(), tmp_path / "text" / "a.db"), "a")


def test_a_later_version_is_not_touched(tmp_path: Path) -> None:
    with CachedLanguageModel(Upper(), tmp_path / "a.db") as model:
        ask(model, "a")
    with sqlite3.connect(tmp_path / "a.db") as file:
        file.execute("PRAGMA user_version = 9")
    with pytest.raises(RivalsError, match="written by a later version"):
        ask(CachedLanguageModel(Upper(), tmp_path / "a.db"), "a")


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    with CachedLanguageModel(Upper(), tmp_path / "a.db") as model:
        ask(model, "a")
        copied = pickle.loads(pickle.dumps(model))
        with copied:
            assert ask(copied, "a")[0].cached
    assert ask(model, "a")[0].cached  # opened again
    model.close()


def test_threads_share_one_cache(tmp_path: Path) -> None:
    with CachedLanguageModel(Upper(), tmp_path / "a.db") as model:
        wrong: list[str] = []

        def work(start: int) -> None:
            texts = [f"t{number}" for number in range(start, start + 40)]
            wrong.extend(text for text in texts if ask(model, text)[0].text != text.upper())

        threads = [threading.Thread(target=work, args=(20 * index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert all(answer.cached for answer in ask(model, *(f"t{number}" for number in range(100))))
