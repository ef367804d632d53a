"""Many requests at once from ordinary code: an event loop in a thread of its own, results as they come, a clean stop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

T = TypeVar("T")

Ask = Callable[[int], Awaitable[T]]
_END = object()


def as_answered(
    session: Callable[[], AbstractAsyncContextManager[Ask[T]]], count: int, *, concurrency: int
) -> Generator[tuple[int, T], None, None]:
    """Yield (row, result) of `count` requests as they end, at most `concurrency` on their way at a time.

    session: opened once, inside the loop; gives the coroutine function that serves one row. If one raises, no further
    row begins, those on their way end and are yielded, and then the error is raised. When the consumer stops, or on
    Ctrl-C, those on their way are cancelled; results that had come are still yielded on Ctrl-C.
    When to use: also where an event loop runs already, as in notebooks: this one has its own thread.
    """
    arrived: queue.SimpleQueue[object] = queue.SimpleQueue()
    started = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def drive() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        started.set()
        rows = iter(range(count))
        halted: list[Exception] = []

        async def serve(ask: Ask[T]) -> None:
            for row in rows:
                if halted:
                    return
                try:
                    arrived.put((row, await ask(row)))
                except Exception as error:
                    halted.append(error)

        async with session() as ask, asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, count)):
                group.create_task(serve(ask))
        if halted:
            raise halted[0]

    def main() -> None:
        try:
            asyncio.run(drive())
            arrived.put(_END)
        except asyncio.CancelledError:
            arrived.put(_END)
        except BaseException as error:  # handed to the consumer, who raises it
            arrived.put(error)
        finally:
            started.set()

    def stop() -> None:
        if thread.is_alive() and running:
            loop, task = running[0]
            with suppress(RuntimeError):  # the loop may close by itself in this very moment
                loop.call_soon_threadsafe(task.cancel)
        thread.join()

    thread = threading.Thread(target=main, name="rivals-requests", daemon=True)
    thread.start()
    started.wait()
    try:
        while True:
            try:
                item = arrived.get(timeout=0.5)  # an endless wait could not be interrupted on every system
            except queue.Empty:
                continue
            except KeyboardInterrupt:
                stop()
                while not arrived.empty():
                    item = arrived.get()
                    if isinstance(item, tuple):
                        yield item
                raise
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            assert isinstance(item, tuple)
            yield item
    finally:
        stop()
