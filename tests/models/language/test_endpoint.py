"""An endpoint's answers come back in order whatever the server does, and its failures are told or tried again."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.models.language import CachedLanguageModel, EndpointLanguageModel, Message, Prompt, Sampling
from rivals.models.language.endpoint import _Job
from tests.models.language.server import Reply, Seen, Server, chat, failure

Serve = Callable[[Callable[[Seen], Reply]], Server]
KEY = "sk-very-secret-0123456789"


def model_at(server: Server, **options: Any) -> EndpointLanguageModel:
    return EndpointLanguageModel(server.url, "m", **({"backoff": 0.01} | options))


def asked(*texts: str) -> list[Prompt]:
    return [Prompt.of(text) for text in texts]


def echo(seen: Seen) -> Reply:
    return Reply(chat(f"re: {seen.text}"))


# ---------------------------------------------------------------------------------- answers


def test_answers_keep_their_order_though_they_come_in_another(serve: Serve) -> None:
    server = serve(lambda seen: Reply(chat(f"re: {seen.text}"), delay=0.004 * (20 - int(seen.text))))
    model = model_at(server, concurrency=5)
    answers = model.complete(asked(*map(str, range(20))))
    assert [answer.text for answer in answers] == [f"re: {number}" for number in range(20)]
    assert 1 < server.peak <= 5
    assert str(model.usage) == "20 calls, 100 tokens read, 40 written"
    assert {(one.finish, one.prompt_tokens, one.completion_tokens, one.cached) for one in answers} == {
        ("stop", 5, 2, False)
    }


def test_what_is_sent(serve: Serve) -> None:
    server = serve(echo)
    prompt = Prompt((Message("system", "s"), Message("user", "u\ud800{}")))
    model = EndpointLanguageModel(server.url + "/chat/completions?version=1", "m", limit_field="max_completion_tokens")
    assert model.complete([prompt])[0].text == "re: u\ud800{}"
    drawn = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, stop=("\n",), seed=3)
    model_at(server).complete([prompt], drawn)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u\ud800{}"}]
    first, second = (one.body for one in server.seen)
    assert first == {"model": "m", "messages": messages, "max_completion_tokens": 256, "temperature": 0.0}
    assert second == {"model": "m", "messages": messages, "max_tokens": 7} | {
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 3,
    }
    assert "Authorization" not in server.seen[0].headers


def test_ways_to_end(serve: Serve) -> None:
    bodies = {
        "length": chat("cut", finish="length"),
        "refusal": chat(None, refusal="I cannot help with that."),
        "filter": chat("part", finish="content_filter"),
        "parts": json.dumps(
            {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]}
        ).encode(),
        "nothing": chat(None),
    }
    answers = model_at(serve(lambda seen: Reply(bodies[seen.text]))).complete(asked(*bodies))
    assert [(answer.text, answer.finish) for answer in answers] == [
        ("cut", "length"),
        ("I cannot help with that.", "refusal"),
        ("part", "refusal"),
        ("ab", "stop"),
        ("", "stop"),
    ]


def test_prices_make_a_cost_and_missing_counts_the_worst_case(serve: Serve) -> None:
    server = serve(lambda seen: Reply(chat("a", tokens=(1000, 100) if seen.text == "told" else None)))
    model = model_at(server, price_in=2.0, price_out=10.0)
    model.complete(asked("told"))
    assert model.usage.cost == pytest.approx(0.003)
    answer = model.complete(asked("x" * 10), Sampling(max_tokens=50))[0]
    assert (answer.prompt_tokens, answer.completion_tokens) == (10 + 32, 50)


def test_it_works_where_a_loop_is_running(serve: Serve) -> None:
    model = model_at(serve(echo))

    async def notebook() -> list[str]:
        return [answer.text for answer in model.complete(asked("a", "b"))]

    assert asyncio.run(notebook()) == ["re: a", "re: b"]
    assert model.complete([]) == []


# ---------------------------------------------------------------------------------- failures that pass

FAULTS = {
    "server error": failure(500, "overloaded"),
    "bad gateway": Reply(b"<html>bad gateway</html>", 502),
    "slow down": failure(429, "slow down"),
    "stall": Reply(chat("late"), delay=1.5),
    "dropped": Reply(b"", drop=True),
    "cut short": Reply(chat("half"), sent=40),
    "broken JSON": Reply(chat("half")[:-20]),
    "an error in 200": Reply(b'{"error": {"message": "upstream failed"}}'),
    "no choice": Reply(b'{"choices": []}'),
    "a bare list": Reply(b"[1]"),
}
REASONS = {
    "server error": "HTTP 500: overloaded",
    "bad gateway": "HTTP 502: <html>bad gateway</html>",
    "slow down": "HTTP 429: slow down",
    "stall": "no answer within 1 s",
    "dropped": "the connection was lost: Server disconnected",
    "cut short": "the connection was lost: peer closed",
    "broken JSON": "the answer is broken JSON, perhaps cut short",
    "an error in 200": "upstream failed",
    "no choice": "the answer holds no choice",
    "a bare list": "",
}


def test_failures_that_pass_are_tried_again(serve: Serve) -> None:
    server = serve(lambda seen: FAULTS[seen.text] if seen.times < 2 else Reply(chat("at last")))
    model = model_at(server, timeout=1, retries=2, concurrency=10)
    answers = model.complete(asked(*FAULTS))
    assert [answer.text for answer in answers] == ["at last"] * len(FAULTS)
    assert (model.usage.calls, model.usage.errors) == (3 * len(FAULTS), 0)


def test_failures_that_stay_are_told(serve: Serve) -> None:
    server = serve(lambda seen: FAULTS[seen.text] if seen.text in FAULTS else Reply(chat("fine")))
    model = model_at(server, timeout=1, retries=1, concurrency=10)
    answers = model.complete(asked(*FAULTS, "another"))
    assert answers[-1].text == "fine"
    for (fault, reason), answer in zip(REASONS.items(), answers, strict=False):
        assert (answer.finish, answer.text) == ("error", ""), fault
        assert answer.error.startswith(reason), fault
        assert answer.error.endswith("(2 tries)")
    assert model.usage.errors == len(FAULTS)
    assert server.texts.count("dropped") == 2


def test_a_server_that_is_not_there() -> None:
    with Server(echo) as server:
        pass
    model = EndpointLanguageModel(server.url, "m", backoff=0, retries=1)
    assert "no connection" in model.complete(asked("a"))[0].error
    assert model.usage.calls == 0  # nothing was sent
    with pytest.raises(RivalsError, match="failed 32 prompts in a row, each after 1 try; last: no connection"):
        EndpointLanguageModel(server.url, "m", backoff=0, retries=0).complete(asked(*map(str, range(100))))


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_every_request(serve: Serve, as_date: bool) -> None:
    def reply(seen: Seen) -> Reply:
        if seen.text != "0" or seen.times:
            return Reply(chat("ok"), delay=0.05)
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 from now
        return failure(429, "slow down", Retry_After=until if as_date else "0.7")

    server = serve(reply)
    answers = model_at(server, concurrency=2).complete(asked(*map(str, range(12))))
    assert {answer.text for answer in answers} == {"ok"}
    told = server.seen[0].at
    pause = 0.9 if as_date else 0.68
    early = [one.text for one in server.seen if told + 0.1 < one.at < told + pause]
    assert len(early) <= 1  # the one that was on its way when the server said so
    assert len(server.seen) == 13


def test_a_wait_that_is_too_long_ends_the_job(serve: Serve) -> None:
    server = serve(lambda _: failure(429, "daily quota", Retry_After="3600"))
    with pytest.raises(
        RivalsError, match=r"asks to wait 3600 s, longer than max_wait \(120 s\); go on later \(HTTP 429: daily"
    ):
        model_at(server).complete(asked("a"))
    assert len(server.seen) == 1


def test_pauses_grow_and_are_seeded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda _: failure(503, "busy"))
    waits: list[float] = []

    async def note(_: object, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(_Job, "wait", note)
    runs = []
    for seed in (0, 0, 1):
        waits.clear()
        model_at(server, backoff=2.0, retries=4, max_wait=10, seed=seed, concurrency=1).complete(asked("a", "b"))
        runs.append(list(waits))
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][:4] != runs[0][4:]  # each prompt has pauses of its own
    for run in runs:
        assert all(least / 2 <= wait <= least for wait, least in zip(run, [2, 4, 8, 16] * 2, strict=True))
        assert max(run) <= 10


# ---------------------------------------------------------------------------------- failures that stay


def test_a_bad_request_fails_alone_and_at_once(serve: Serve) -> None:
    server = serve(lambda seen: failure(400, "too long") if seen.text == "bad" else echo(seen))
    answers = model_at(server).complete(asked("good", "bad", "fine"))
    assert [answer.finish for answer in answers] == ["stop", "error", "stop"]
    assert answers[1].error == "HTTP 400: too long"
    assert server.texts.count("bad") == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "it refuses the key"), (404, "there is no such model"), (402, "no credit"), (301, "it has moved")],
)
def test_what_fails_every_prompt_ends_the_job(serve: Serve, status: int, message: str) -> None:
    server = serve(lambda _: failure(status, "no"))
    with pytest.raises(RivalsError, match=rf"m at http://127\.0\.0\.1.*: .*{message}.*HTTP {status}: no"):
        model_at(server, concurrency=2).complete(asked(*map(str, range(50))))
    assert len(server.seen) <= 2


def test_answers_on_their_way_are_handed_over_before_the_end(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda seen: failure(401, "expired") if seen.text == "2" else Reply(chat("ok"), delay=0.2))
    with CachedLanguageModel(model_at(server, concurrency=3), tmp_path / "a.db") as model:
        with pytest.raises(RivalsError, match="refuses the key"):
            model.complete(asked("0", "1", "2", "3"))
        assert sorted(server.texts) == ["0", "1", "2"]
        assert [answer.cached for answer in model.complete(asked("0", "1"))] == [True, True]


# ---------------------------------------------------------------------------------- log-probabilities


def test_option_log_probabilities(serve: Serve) -> None:
    replies = {
        "one token": [("Yes", {"Yes": -0.2, "No": -1.9, "Perhaps": -4.0})],
        "not reported": [("Hm", {"Hm": -0.1, "No": -3.0})],
        "blank": [(" Yes", {" Yes": -0.3, "\nNo": -1.5, "Y": -9.0})],
        "several": [("Per", {"Per": -0.5, "Yes": -1.0, "N": -2.0}), ("haps", {"haps": -0.25, "fect": -3.0})],
        "none": None,
        "fails": None,
    }

    def reply(seen: Seen) -> Reply:
        if seen.text == "fails":
            return failure(400, "no logprobs here")
        return Reply(chat("x", logprobs=replies[seen.text]))

    server = serve(reply)
    table = model_at(server, top_logprobs=5).option_log_probabilities(asked(*replies), ["Yes", "No", "Perhaps"])
    nan = np.nan
    expected = [[-0.2, -1.9, -4.0], [nan, -3.0, nan], [nan, nan, nan], [-1.0, nan, -0.75], [nan] * 3, [nan] * 3]
    expected[2] = [
        nan,
        -1.5,
        nan,
    ]  # the reported Y begins Yes exactly, so blanks are not overlooked, and it leads nowhere
    np.testing.assert_allclose(table, expected, rtol=1e-6)
    assert table.dtype == np.float32
    sent = server.seen[0].body
    assert (sent["logprobs"], sent["top_logprobs"], sent["max_tokens"], sent["temperature"]) == (True, 5, 7, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one or more strings"),
        ("Yes", "one or more strings"),
        (["a", ""], "option 1 is ''"),
        (["a", "a"], "given twice"),
    ],
)
def test_options_are_checked(options: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        EndpointLanguageModel("http://127.0.0.1:9/v1", "m").option_log_probabilities(asked("a"), options)


# ---------------------------------------------------------------------------------- the key


def test_the_key_is_sent_and_shown_nowhere(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")

    def reply(seen: Seen) -> Reply:
        assert seen.headers["Authorization"] == f"Bearer {KEY}"
        if seen.text in ("400", "401", "500"):
            return failure(int(seen.text), f"wrong key {KEY} for you")
        return Reply(chat("fine"))

    server = serve(reply)
    inner = model_at(server, api_key_variable="JUDGE_KEY", retries=0)
    shown = [repr(inner), str(vars(inner)), inner.name, pickle.dumps(inner).decode("latin1")]
    with caplog.at_level(logging.DEBUG), CachedLanguageModel(inner, tmp_path / "answers.db") as model:
        for text in ("ok", "400", "500"):
            answer = model.complete(asked(text))[0]
            shown.append(repr(answer))
        assert "wrong key *** for you" in shown[-1]
        with pytest.raises(RivalsError, match=r"wrong key \*\*\* for you") as caught:
            model.complete(asked("401"))
        shown += [str(caught.value), repr(caught.value), caplog.text, repr(model)]
    shown += [path.read_bytes().decode("latin1") for path in tmp_path.iterdir()]
    assert len(server.seen) == 4
    assert not [text for text in shown if "secret" in text]


def test_a_key_in_the_wrong_place_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str = "http://127.0.0.1/v1", **options: Any) -> str:
        with pytest.raises(RivalsError) as caught:
            EndpointLanguageModel(url, "m", **options)
        return str(caught.value)

    assert "must be the name of an environment variable" in refused(api_key_variable=KEY)
    assert KEY not in refused(api_key_variable=KEY)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert refused(api_key_variable="NO_SUCH_KEY") == "the environment variable NO_SUCH_KEY holds no key; set it"
    for url in (f"http://me:{KEY}@127.0.0.1/v1", f"http://127.0.0.1/v1?a=1&api_key={KEY}"):
        assert "must hold no" in refused(url)
        assert KEY not in refused(url)


# ---------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://a/v1"}, "begins with http"),
        ({"url": "http://"}, "begins with http"),
        ({"url": "http://a:x/v1"}, "begins with http"),
        ({"model": " "}, "model is empty"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"timeout": 0}, "timeout must be a finite number of seconds above 0"),
        ({"backoff": -1}, "backoff must be a finite number, 0 or more"),
        ({"price_in": float("inf")}, "price_in must be a finite number"),
        ({"limit_field": "max"}, "limit_field must be"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        EndpointLanguageModel(**({"url": "http://127.0.0.1/v1", "model": "m"} | options))


def test_prompts_are_checked() -> None:
    model = EndpointLanguageModel("http://127.0.0.1:9/v1", "m")
    for wrong, message in ((Prompt.of("a"), "put it in a list"), (["a"], "row 0 is str"), ([Prompt(())], "no message")):
        with pytest.raises(RivalsError, match=message):
            model.complete(wrong)  # type: ignore[arg-type]


def test_httpx_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(RivalsError, match=r"install rivals\[judge\]"):
        EndpointLanguageModel("http://127.0.0.1:9/v1", "m").complete(asked("a"))


def test_a_stopped_reader_cancels_what_is_on_its_way(serve: Serve) -> None:
    server = serve(lambda seen: Reply(chat("ok"), delay=0.0 if seen.text == "0" else 20.0))
    model = model_at(server, concurrency=2)
    started = time.monotonic()
    coming = model.iter_complete(asked("0", "1", "2", "3"))
    assert next(coming)[1].text == "ok"
    coming.close()
    assert time.monotonic() - started < 10
