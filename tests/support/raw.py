"""Sockets that send what no HTTP client would."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict

from tests.support.service import Running


@dataclass(frozen=True)
class RawAnswer:
    """A response of known length."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, *, has_body: bool = True) -> RawAnswer:
        """The next answer."""
        text = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *fields = text.strip().split("\r\n")
        pairs = (field.partition(": ") for field in fields)
        headers = CIMultiDict((name, value) for name, _, value in pairs)
        length = int(headers.get("Content-Length", "0")) if has_body else 0
        return RawAnswer(int(first.split()[1]), headers, await self._reader.readexactly(length))

    async def rows_of_a_stream(self) -> int:
        """The lines of a chunked body, read to its proper end."""
        rows = 0
        while size := int(await self._reader.readline(), 16):
            rows += (await self._reader.readexactly(size + 2))[:-2].count(b"\n")
        assert await self._reader.readline() == b"\r\n"
        return rows

    async def flood(self, data: bytes, times: int) -> None:
        """Send all of it so often, and then reads; raises where the service hangs up."""
        for _ in range(times):
            await self.send(data)
        while True:
            await self._reader.readexactly(65_536)

    async def trickle(self, data: bytes, pause: float) -> None:
        """Send a byte at a time until all are sent, or the service hangs up."""
        for byte in data:
            self._writer.write(bytes([byte]))
            if await self.is_closed_within(pause):
                return

    async def is_closed_within(self, seconds: float) -> bool:
        """Return whether the service has hung up without another word."""
        try:
            async with asyncio.timeout(seconds):
                return await self._reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


@asynccontextmanager
async def wire(
    service: Running, address: str = "127.0.0.1", receive_buffer: int | None = None
) -> AsyncIterator[Wire]:
    """A connection to the service from this address of the loopback network."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.bind((address, 0))
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", service.port))
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    """A request's head."""
    lines: Sequence[str] = (f"{method} {target} HTTP/1.1", "Host: x", *fields, "", "")
    return "\r\n".join(lines).encode()
