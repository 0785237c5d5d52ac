"""A listening socket that several workers answer on: nobody takes a whole burst of connections."""

import asyncio
import socket
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from aiohttp import web

from feedsvc.settings import Server, Settings
from feedsvc.web.keys import SERVICE
from feedsvc.web.server import Runner, listen

BURST = 100


@pytest.fixture
def app() -> web.Application:
    made, service = web.Application(), SimpleNamespace(settings=Settings())
    made[SERVICE] = service  # type: ignore[misc]
    return made


def left_over(listener: socket.socket) -> int:
    """How many connections another worker could take now. Takes them."""
    for taken in range(BURST):
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return taken
    return BURST


async def test_of_a_burst_a_worker_takes_a_few_at_a_time(app: web.Application) -> None:
    listener = listen("127.0.0.1", 0, Server())
    runner = Runner(app, Server())
    await runner.setup()
    try:
        await runner.answer_on(listener)
        with ExitStack() as clients:
            for _ in range(BURST):  # all of them may wait, while the worker does something else
                at = listener.getsockname()
                clients.enter_context(socket.create_connection(at, timeout=5))
            for _ in range(2):  # in which it sees that they are there, and takes some
                await asyncio.sleep(0)
            taken = BURST - left_over(listener)
            assert 0 < taken < 10
            assert runner.server is not None
            async with asyncio.timeout(5):
                while len(runner.server.connections) < taken:
                    await asyncio.sleep(0.01)
    finally:
        await runner.cleanup()
        listener.close()
