"""An event loop whose clock jumps to the next timer, so that a test of pauses takes no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: what a loop would wait for is added to its clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_by_jumps(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, on a loop of its own whose time begins at 0.

    For what waits for timers alone: sockets and threads take time that this clock doesn't have.
    """
    loop = _JumpingLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
