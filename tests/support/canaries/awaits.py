"""Cancelling a piece of work at its N-th await, its children's awaits included."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any


@dataclass
class _Count:
    """The number of awaits so far, and those at which the work is to be cancelled."""

    at: frozenset[int]
    act: Callable[[], bool] | None = None
    waited: int = 0
    acted: int = 0
    work: "asyncio.Task[Any] | None" = None

    def one_more(self) -> None:
        self.waited += 1
        if self.waited in self.at and self.work is not None:
            self.acted += self.work.cancel() if self.act is None else self.act()


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells each time before it waits.

    It is cancelled by way of its task, so that what it waits for is cancelled, too, and finds out
    as it would in earnest: thrown in, CancelledError would leave the other side waiting.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any], count: _Count) -> None:
        self._inner = inner
        self._count = count

    def send(self, value: Any) -> Any:
        return self._told(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(lambda: self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def _told(self, step: Callable[[], Any]) -> Any:
        waited_for = step()
        self._count.one_more()
        return waited_for


async def cancelled_at(
    work: Coroutine[Any, Any, Any], *at: int, act: Callable[[], bool] | None = None
) -> tuple[int, int]:
    """Do the work and cancel it at these awaits, counted over it and every task it makes.

    With `act` call that instead, which gives whether anything was done. Gives how often it waited,
    and how often it was cancelled or disturbed. Raises what the work raises, except for the
    cancellation.
    """
    loop, count = asyncio.get_running_loop(), _Count(frozenset(at), act)

    def factory(loop: asyncio.AbstractEventLoop, inner: Any, **more: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(_Counted(inner, count), loop=loop, **more)

    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        count.work = loop.create_task(work)
        await asyncio.wait({count.work})
    finally:
        loop.set_task_factory(before)
    if not count.work.cancelled():
        count.work.result()
    return count.waited, count.acted
