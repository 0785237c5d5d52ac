"""Signals of a process that serves, in this one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from feedsvc.server import signals


@pytest.fixture
async def _handlers() -> AsyncIterator[None]:
    """The event loop's handlers are gone after the test, and the process's as they were."""
    with signals._handlers_restored():
        yield
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.usefixtures("_handlers")
async def test_a_reload_that_fails_is_logged_and_the_next_signal_reloads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Queue[None]()

    async def reload() -> None:
        begun.put_nowait(None)
        raise OSError("of a kind that nobody has foreseen")

    monkeypatch.setattr(signals, "_is_terminal", lambda _: False)
    async with asyncio.timeout(60), signals._signals_handled(pytest.fail, reload):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await begun.get()
    assert caplog.text.count("of a kind that nobody has foreseen") >= 1
