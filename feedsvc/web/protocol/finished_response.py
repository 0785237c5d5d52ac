"""A response whose bytes, head included, are complete before aiohttp asks for them."""

import asyncio

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


class FinishedResponse(web.StreamResponse):
    """Bytes that are sent as they are, when it is this response's turn on its connection.

    aiohttp calls `prepare`, `write_eof` and `keep_alive`, in this order, behind all responses to
    earlier requests. `headers` is empty, for the head is in the bytes.
    """

    def __init__(self, status: int, whole: bytes) -> None:
        super().__init__(status=status, reason="-")  # in no line: the bytes have their own
        self._whole = whole
        self._receiver: asyncio.Transport | None = None
        self._is_last = False

    @property
    def prepared(self) -> bool:
        """Return whether `prepare` has been called."""
        return self._receiver is not None

    @property
    def keep_alive(self) -> bool:
        """Return whether the connection goes on behind this response."""
        return not self._is_last

    def force_close(self) -> None:
        """End the connection behind this response."""
        self._is_last = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Take the connection of the request. Raises ConnectionResetError if it is lost."""
        self._receiver = request.transport
        if self._receiver is None or self._receiver.is_closing():
            raise ConnectionResetError("the connection is closed")
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all bytes at once, which `data` can add nothing to."""
        # In one piece, for writev(2) costs more here than the copy does.
        if self._receiver is not None:
            self._receiver.write(self._whole)
