"""A body that is broken off while a thread compresses a chunk of it: that, too, can be unpacked."""

import asyncio
import socket
import threading
import time
import zlib
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from backports import zstd

from feedsvc.core.timing import Stages
from feedsvc.settings import Streams
from feedsvc.web.context import STAGES
from feedsvc.web.feeds.body import Body
from streams.compression import CODINGS, Compressor
from streams.formats import Pieces

CHUNK = bytes(range(256)) * 2_000  # more than is compressed without a thread
LAST_WORDS = b"why it ends\n"
READERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16).decompress,
    "zstd": lambda: zstd.ZstdDecompressor().decompress,
}


class Held:
    """Nothing that a request waits for."""

    pressed = asyncio.Event()

    async def park(self) -> None:
        """There is nothing to give up."""


class Slow:
    """A compressor that takes its time for the first chunk."""

    def __init__(self, compressor: Compressor) -> None:
        self.begun = threading.Event()
        self._compressor = compressor

    def compress(self, chunk: Pieces) -> Pieces:
        if not self.begun.is_set():
            self.begun.set()
            time.sleep(0.3)
        return self._compressor.compress(chunk)

    def finish(self) -> bytes:
        return self._compressor.finish()


def unframed(body: bytes) -> bytes:
    """The data in the chunks of a body (RFC 9112, section 7.1); there must be no last one."""
    data = b""
    while body:
        size, body = body.split(b"\r\n", 1)
        assert int(size, 16)
        data, body = data + body[: int(size, 16)], body[int(size, 16) :]
        assert body.startswith(b"\r\n")
        body = body[2:]
    return data


@pytest.mark.parametrize("coding", READERS)
async def test_what_a_thread_compresses_still_arrives_before_the_last_words(coding: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        request[STAGES] = Stages()
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        compressor = Slow(CODINGS[coding]())
        body = Body(request, response, compressor, Streams(), Held())
        await body.start()
        sending = asyncio.create_task(body.send((CHUNK,)))
        assert await asyncio.to_thread(compressor.begun.wait, 60)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await body.break_off((LAST_WORDS,))
        return response

    application = web.Application()
    application.router.add_get("/", answer)
    async with TestServer(application) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: tests\r\n\r\n")
        arrived = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    head, _, body = arrived.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert READERS[coding]()(unframed(body)) == CHUNK + LAST_WORDS


class Tail:
    """A compressor that keeps everything back until its end: more than any socket takes."""

    def compress(self, chunk: Pieces) -> Pieces:
        return ()

    def finish(self) -> bytes:
        return bytes(32 * 1_048_576)


async def test_a_client_that_stalls_on_the_last_chunk_is_not_waited_for() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def answer(request: web.Request) -> web.StreamResponse:
        request[STAGES] = Stages()
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        body = Body(request, response, Tail(), Streams(stall_timeout=0.2), Held())
        await body.start()
        try:
            await body.finish()
        except TimeoutError as error:
            ended.set_result(error)
        body.cut()
        return response

    application = web.Application()
    application.router.add_get("/", answer)
    async with TestServer(application) as server, asyncio.timeout(60):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: tests\r\n\r\n")
            assert isinstance(await ended, TimeoutError)
