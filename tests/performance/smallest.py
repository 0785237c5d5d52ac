"""The least that aiohttp can do: a handler that answers with bytes that it has.

`python -m tests.performance.smallest FD` answers on a listening socket with what it reads from
standard input, whoever asks.
"""

import asyncio
import socket
import sys

import uvloop
from aiohttp import web


async def _serve(listener: socket.socket, body: bytes) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/x-ndjson")

    app = web.Application()
    app.router.add_get("/page", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until it is ended."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener, sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
