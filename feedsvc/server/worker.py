"""One worker: a child process that serves on sockets that it inherits."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from feedsvc.core.process import WorkerContext
from feedsvc.server.control import ControlLine

_LAST_MOMENTS: Final = 5.0  # seconds from the end of a worker's control connection to its own


class WorkerError(Exception):
    """A worker could not begin; each line of the message is a reason, if it gave any."""


class Worker:
    """A child that serves, or is about to. Raises OSError where no process can be started."""

    def __init__(
        self, command: Sequence[str], of: int, workplace: WorkerContext, slot: int
    ) -> None:
        ours, its = socket.socketpair()
        self.slot = slot
        self.retired = False
        """True if it is meant to end."""
        self.started = time.monotonic()
        with its, ExitStack() as at_failure:
            at_failure.enter_context(ours)
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [*command, *workplace.arguments(slot), f"--control-fd={its.fileno()}"],
                pass_fds=(*workplace.descriptors(), its.fileno()),
                # A worker's share of what all of them may do depends on how many there are.
                env={**os.environ, "FEEDSVC_SERVER__WORKERS": str(of)},
                # A terminal's Ctrl-C reaches the whole group; the supervisor passes it on once.
                start_new_session=True,
            )
            at_failure.pop_all()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._line = ControlLine(ours)
        self._line.listen(self._on_message, self._on_end)

    async def ready(self, timeout: float) -> None:
        """Wait until it answers requests. Raises WorkerError."""
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._ready)
        except TimeoutError:
            raise WorkerError(f"a worker was not ready within {timeout:g} s") from None

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        await self._ended.wait()
        return await asyncio.to_thread(self._reaped)

    def hand_over(self) -> None:
        """Order it to take no more connections, and to end when it has none."""
        self.retired = True
        self._line.say(hand_over=True)

    def stop(self) -> None:
        """Order it to end within the drain's time; the second time, at once."""
        self.retired = True
        self._line.say(stop=True)

    def kill(self) -> None:
        """End it by force."""
        self.retired = True
        with suppress(ProcessLookupError):
            self.process.kill()

    @property
    def is_ready(self) -> bool:
        """Return whether it answers requests, or has."""
        return self._ready.done() and self._ready.exception() is None

    def _on_message(self, message: dict[str, Any]) -> None:
        if self._ready.done():
            return
        if message.get("ready"):
            self._ready.set_result(None)
        elif "failed" in message:
            self._fail(str(message["failed"]))

    def _on_end(self) -> None:
        self._fail("a worker ended before it was ready; its own log lines have the reason")
        self._ended.set()

    def _fail(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(WorkerError(why))
            self._ready.exception()  # it may be awaited by no task

    def _reaped(self) -> int:
        """Its exit status. Its control connection is closed, so its end is near."""
        try:
            return self.process.wait(_LAST_MOMENTS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
