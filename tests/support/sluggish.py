"""A proxy for event streams that holds back what it passes on, or cuts connections by the clock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PIECE = 65_536


@asynccontextmanager
async def sluggish(
    target: int, *, holds: float = 0.0, cuts: float | None = None
) -> AsyncIterator[str]:
    """Its URL. What an answer brings is held for `holds` seconds; a connection lasts for `cuts`."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await asyncio.sleep(holds)
            writer.write(piece)
            await writer.drain()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        beyond: asyncio.StreamWriter | None = None
        asking: asyncio.Task[None] | None = None
        try:
            # A cancelled one would be logged by asyncio as a mistake of its own.
            with suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(cuts):
                    coming, beyond = await asyncio.open_connection("127.0.0.1", target)
                    asking = asyncio.create_task(_forward(reader, beyond))
                    await answer(coming, writer)
        finally:
            if asking is not None:
                asking.cancel()
            for each in (writer, beyond):
                if each is not None:
                    each.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
