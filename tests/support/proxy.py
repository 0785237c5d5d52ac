"""A TCP proxy that breaks connections in the ways that networks do."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

_PIECE = 65_536


@dataclass(frozen=True)
class Fault:
    """A fault of the answer; without any, the proxy passes everything through.

    `cut_after` bytes of it arrive, counted from behind its HTTP head with `behind_head`; then the
    client gets a FIN or an RST, or with "black hole" nothing more at all. `damage` changes what is
    passed on, piece by piece, behind the head.
    """

    cut_after: int | None = None
    behind_head: bool = False
    how: Literal["fin", "rst", "black hole"] = "fin"
    delay: float = 0.0
    bytes_per_second: float | None = None
    damage: Callable[[bytes], bytes] | None = None


@dataclass
class Proxy:
    """A proxy that listens at `port`. Its fault is taken by each connection as it is made."""

    target: int
    fault: Fault
    port: int = 0
    connections: int = 0
    arrived: int = 0
    """Bytes of answers that were passed on."""
    _busy: set[asyncio.Task[None]] = field(default_factory=set)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _flows: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._flows.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection to its end."""
        fault, task = self.fault, asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._busy.add(task)
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self.target)
            forwards = asyncio.create_task(_copy(reader, to_target))
            answer = asyncio.create_task(self._answer(from_target, writer, fault))
            over = asyncio.create_task(self._over.wait())
            await asyncio.wait({answer, over}, return_when=asyncio.FIRST_COMPLETED)
            for part in (forwards, answer, over):
                part.cancel()
            results = await asyncio.gather(forwards, answer, over, return_exceptions=True)
            _reset(to_target)  # nothing of an answer that goes nowhere is worth finishing
            if isinstance(results[1], OSError):
                _reset(writer)
        except OSError:
            _reset(writer)  # nobody listens there
        finally:
            writer.close()
            self._busy.discard(task)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        if fault.behind_head:
            await self._pass_on(await reader.readuntil(b"\r\n\r\n"), writer, fault)
        left = fault.cut_after
        while left is None or left > 0:
            piece = await reader.read(_PIECE if left is None else min(left, _PIECE))
            if not piece:
                return
            made = piece if fault.damage is None else fault.damage(piece)
            await self._pass_on(made, writer, fault)
            left = None if left is None else left - len(piece)
        if fault.how == "rst":
            _reset(writer)
        elif fault.how == "black hole":
            await self._over.wait()

    async def _pass_on(self, piece: bytes, writer: asyncio.StreamWriter, fault: Fault) -> None:
        await asyncio.sleep(fault.delay)
        await self._flows.wait()
        rate = fault.bytes_per_second
        step = len(piece) if rate is None else max(1, int(rate / 20))
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            writer.write(part)
            await writer.drain()
            self.arrived += len(part)
            if rate is not None:
                await asyncio.sleep(len(part) / rate)

    async def cut(self) -> None:
        """End every connection, and each that comes from now on as soon as it is there."""
        self.fault = Fault(cut_after=0, how="rst")
        await self.end()
        self._over = asyncio.Event()

    def freeze(self) -> None:
        """Take what is sent, on every connection, and give no answer."""
        self._flows.clear()

    def mend(self) -> None:
        """Passes everything through from now on."""
        self.fault = Fault()
        self._flows.set()

    async def end(self) -> None:
        """End every connection that is still there."""
        self._over.set()
        await asyncio.sleep(0)  # one that was just accepted gets to know it too
        while self._busy:
            await asyncio.wait(self._busy)


@asynccontextmanager
async def proxied(target: int, fault: Fault = Fault()) -> AsyncIterator[Proxy]:
    """A proxy in front of this local port, gone at the block's end with its connections."""
    proxy = Proxy(target, fault)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with an RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
