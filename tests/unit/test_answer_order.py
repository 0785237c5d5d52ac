"""The order of answers on one connection, at each turn of the event loop at which bytes can arrive.

The transport is a fake, for no real one lets a test choose the turn: with a real socket
(`tests/integration/web/test_pipelining.py`) the same fault is a matter of microseconds.
"""

import asyncio
from functools import partial
from typing import Any, cast

import pytest
from aiohttp import web

from feedsvc.settings import Server
from feedsvc.web.protocol.finished_response import FinishedResponse
from feedsvc.web.protocol.page_answers import PageAnswers, answer_first
from feedsvc.web.protocol.server import FeedServer

FROM_MEMORY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Answer: memory\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """Stay open."""

    def order(self) -> list[str]:
        """The ways that the answers took, in the order in which they were written."""
        heads = bytes(self.written).decode().split("X-Answer: ")[1:]
        return [head.split("\r\n")[0] for head in heads]


class Memory:
    """Answers from memory for `/warm`, none else."""

    async def answer(self, request: web.BaseRequest) -> FinishedResponse | None:
        return FinishedResponse(200, FROM_MEMORY) if request.path == "/warm" else None

    def may_remember(self, request: web.BaseRequest) -> bool:
        return False


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("waits", [False, True])
async def test_an_answer_from_memory_waits_its_turn(turns: int, waits: bool) -> None:
    release = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.Response:
        if waits:
            await release.wait()
        return web.Response(headers={"X-Answer": "handler"})

    front = partial(answer_first, cast("PageAnswers", Memory()), handler)
    connection, transport = FeedServer(web.Server(front), Server())(), Transport()
    connection.connection_made(transport)
    try:
        for _ in range(2):  # the handler's first request, and one when it has waited before
            await _settle()
            transport.written.clear()
            release.clear()
            connection.data_received(_request("/cold"))
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.data_received(_request("/warm"))
            connection.data_received(_request("/warm"))
            release.set()
            async with asyncio.timeout(30):
                while len(transport.order()) < 3:
                    await asyncio.sleep(0)
            assert transport.order() == ["handler", "memory", "memory"]
    finally:
        connection.connection_lost(None)
        await _settle()


async def _settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def _request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
