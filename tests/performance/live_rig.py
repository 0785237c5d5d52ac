"""A server of event streams without a database: subscribers, and what they are held against.

`python -m tests.performance.live_rig FD`: serves on the listening socket. `/live` is a
subscriber's, `/aiohttp-sse` a handler of that library's; `/measure?…` answers with JSON.
"""

import asyncio
import gc
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from feedsvc.core.broadcast import chunk
from feedsvc.server.open_files import raise_limit
from feedsvc.settings import Limits
from feedsvc.web.send_queue import outstanding
from tests.support.live import LiveWorld, live_world

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Rig:
    """The measures; each is seconds of this process's processor for all events to all clients."""

    def __init__(self, world: LiveWorld) -> None:
        self._world = world
        self._responses: set[EventSourceResponse] = set()

    async def measure(self, request: web.Request) -> web.Response:
        """The measure that is asked for, of events of so many bytes."""
        asked = request.query
        if (what := asked["what"]) == "memory":
            gc.collect()
            return web.json_response(self._memory())
        if what == "flood":
            for _ in range(int(asked["events"])):
                self._world.broadcast.publish(b"x" * int(asked["bytes"]))
                await self._woken()
            return web.json_response(0)
        ways: dict[str, Callable[[bytes], Awaitable[None]]] = {
            "broadcast": self._broadcast, "bare": self._bare, "aiohttp-sse": self._send,
        }  # fmt: skip
        data = b"event: change\nid: 1\ndata: %b\n\n" % (b"x" * int(asked["bytes"]))
        spent = 0.0
        for _ in range(int(asked["events"])):
            began = time.process_time()
            await ways[what](data)
            spent += time.process_time() - began
            await self._settle()
        return web.json_response(spent)

    async def sse(self, request: web.Request) -> web.StreamResponse:
        """A handler, a response and a task for a client."""
        async with sse_response(request) as response:
            await response.send("{}", event="open")
            self._responses.add(response)
            try:
                await response.wait()
            finally:
                self._responses.discard(response)
        return response

    async def _broadcast(self, data: bytes) -> None:
        self._world.broadcast.publish(data)
        await self._woken()

    async def _woken(self) -> None:
        while self._world.broadcast.has_waiting:
            await asyncio.sleep(0)

    async def _bare(self, data: bytes) -> None:
        """A loop over the same transports, which writes the bytes as they are sent."""
        ready = chunk(data)
        for each in self._world.subscribers._subscribers:
            transport = each._transport
            assert transport is not None
            transport.write(ready)

    async def _send(self, data: bytes) -> None:
        text = data.decode()
        for response in list(self._responses):
            await response.send(text, event="change", id="1")

    async def _settle(self) -> None:
        """Wait until all clients have taken all."""
        transports = [each._transport for each in self._world.subscribers._subscribers]
        while any(outstanding(t) for t in transports if t is not None):
            await asyncio.sleep(0.005)
        if self._responses:
            await asyncio.sleep(0.05)

    def _memory(self) -> int:
        """Resident bytes (proc(5))."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def serve(listener: socket.socket) -> None:
    """Serve until it is ended."""
    free = Limits(enabled=False)
    async with live_world(listener=listener, limits=free, stall_timeout=600) as world:
        rig = Rig(world)
        world.routes["/aiohttp-sse"] = rig.sse
        world.routes["/measure"] = rig.measure
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


def main() -> None:
    """Serve on the descriptor that is the argument."""
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
