"""A body on its way to a client that may be slow, stalled or gone."""

import asyncio
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http_writer import StreamWriter

from feedsvc.core.events import StreamParked
from feedsvc.settings import Streams
from feedsvc.web.context import SERVICE, STAGES
from feedsvc.web.record import RECORD
from feedsvc.web.send_queue import outstanding
from streams.compression import Compressor, Identity
from streams.formats import Pieces, size_of

_HIGH_WATER: Final = 16_384  # bytes that wait in this process before a client is "behind"
_WORTH_A_THREAD: Final = 131_072  # bytes; less is compressed in the time that a thread takes
_TICK: Final = 1.0  # seconds between looks at whether a client that is behind still reads


class ClientStalledError(ConnectionResetError):
    """The client has read nothing for the whole of `streams.stall_timeout`."""


class Parkable(Protocol):
    """A resource of a stream that other requests may wait for."""

    @property
    def pressed(self) -> asyncio.Event:
        """Set while another request waits for it."""
        ...

    async def park(self) -> None:
        """Release it; it is taken again when it is next needed."""
        ...


class Body:
    """Chunks of one response, each compressed, written and flushed under a deadline.

    The stream's connection is released when its client falls behind: at once where a request waits
    for it, otherwise after `streams.patience`.
    """

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        compressor: Compressor,
        streams: Streams,
        held: Parkable,
    ) -> None:
        self._request = request
        self._response = response
        self._compressor = compressor
        self._is_plain = isinstance(compressor, Identity)
        self._streams = streams
        self.held = held
        """The lease that is released while the client is behind."""
        self._compressing: asyncio.Future[Pieces] | None = None

    async def start(self) -> None:
        """Send the head."""
        if self._request.transport is not None:
            self._request.transport.set_write_buffer_limits(high=_HIGH_WATER)
        await self._response.prepare(self._request)

    async def send(self, chunk: Pieces) -> None:
        """Send a chunk, and wait while the client is behind.

        Raises ClientStalledError, and ConnectionResetError where the client is gone.
        """
        if not chunk:
            return
        stages = self._request[STAGES]
        with stages.timing("encode"):
            made = await self._compressed(chunk)
        with stages.timing("write"):
            self._write(made)
        if self._waiting_bytes() > _HIGH_WATER:
            await self._wait_for_client(cast("StreamWriter", self._request.writer))

    async def _compressed(self, chunk: Pieces) -> Pieces:
        """The chunk compressed: in a thread where it is large, for compressors release the GIL.

        PostgreSQL's next rows are taken meanwhile.
        """
        if self._is_plain or size_of(chunk) < _WORTH_A_THREAD:
            return self._compressor.compress(chunk)
        loop = asyncio.get_running_loop()
        self._compressing = loop.run_in_executor(None, self._compressor.compress, chunk)
        # The thread goes on where this is interrupted, and `break_off` waits for it.
        made = await asyncio.shield(self._compressing)
        self._compressing = None
        return made

    def _write(self, pieces: Pieces) -> None:
        """One chunk of HTTP's (RFC 9112, section 7.1), as it lies in memory.

        aiohttp's own `write` would first copy what it frames.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        size = size_of(pieces)
        if size:
            transport.writelines(
                (b"%x\r\n" % size, *(memoryview(piece) for piece in pieces), b"\r\n")
            )

    async def finish(self) -> None:
        """Send the proper end. To be called only behind the last row."""
        async with asyncio.timeout(self._streams.stall_timeout):
            await self._response.write_eof(self._compressor.finish())

    async def break_off(self, last_words: Pieces) -> None:
        """End the connection without the final chunk, so that the client notices.

        Bytes that were written still get a moment to leave, for the last frame has the reason.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return
        if self._compressing is not None:
            # Without these bytes nothing that follows could be unpacked.
            self._write(await self._compressing)
        if last_words:
            self._write(self._compressor.compress(last_words))
        transport.close()
        self._linger(transport, self._outstanding(), self._deadline())

    def _linger(self, transport: asyncio.Transport, left: int, deadline: float) -> None:
        """Let the last bytes leave for as long as the client reads.

        To abort the connection earlier would reset it, and a proxy that still had most of them
        would throw them away, with the frame that has the reason.
        """
        if not transport.get_write_buffer_size():
            return  # the kernel has them, and sends them by itself
        now_left = outstanding(transport)
        if now_left < left:
            left, deadline = now_left, self._deadline()
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            transport.abort()
        else:
            loop.call_later(_TICK, self._linger, transport, left, deadline)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._streams.stall_timeout

    def cut(self) -> None:
        """End the connection at once."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _wait_for_client(self, writer: StreamWriter) -> None:
        drained = asyncio.ensure_future(writer.drain())
        try:
            with self._request[STAGES].timing("write"):
                if await self._drains_soon(drained):
                    return
                await self.held.park()
                service = self._request.app[SERVICE]
                service.observers.publish(StreamParked(self._request[RECORD].dataset))
                await self._drains_at_all(drained)
        finally:
            drained.cancel()

    async def _drains_soon(self, drained: "asyncio.Future[None]") -> bool:
        """Return whether the client catches up before another request needs the connection."""
        pressed = asyncio.ensure_future(self.held.pressed.wait())
        either: set[asyncio.Future[Any]] = {drained, pressed}
        try:
            await asyncio.wait(
                either,
                timeout=self._streams.patience,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            pressed.cancel()
        if not drained.done():
            return False
        drained.result()
        return True

    async def _drains_at_all(self, drained: "asyncio.Future[None]") -> None:
        """Wait for as long as the client reads anything at all."""
        loop = asyncio.get_running_loop()
        least, deadline = self._outstanding(), loop.time() + self._streams.stall_timeout
        while not drained.done():
            timeout = min(_TICK, self._streams.stall_timeout)
            await asyncio.wait({drained}, timeout=timeout)
            left = self._outstanding()
            if left < least:
                least, deadline = left, loop.time() + self._streams.stall_timeout
            elif loop.time() >= deadline and not drained.done():
                raise ClientStalledError("the client has stopped reading")
        drained.result()

    def _waiting_bytes(self) -> int:
        transport = cast("Any", self._request.transport)
        return transport.get_write_buffer_size() if transport is not None else 0

    def _outstanding(self) -> int:
        """The bytes that the client has not acknowledged, here and in the kernel."""
        transport = self._request.transport
        return 0 if transport is None else outstanding(transport)
