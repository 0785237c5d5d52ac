"""Paces reads so that the socket's buffer fills between them.

PostgreSQL writes 8 KiB at a time. A reader that waits for it is woken for each of them, and each
time costs the kernel, the event loop and asyncpg more than the bytes do. A pause after a small
piece lets the socket's buffers fill, as a network card does with its interrupts; PostgreSQL goes on
meanwhile, for they hold more than comes in that time.
"""

import asyncio
from typing import Final, NamedTuple

from feedsvc.backends.postgres.asyncpg_internals import is_over_unix_socket
from feedsvc.backends.postgres.pool import Connection


class _Pace(NamedTuple):
    """After a piece of fewer bytes, so many seconds."""

    enough: int
    pause: float


# A TCP socket's buffers grow to megabytes, a Unix socket's are 208 KiB (net.core.wmem_default).
_OVER_TCP: Final = _Pace(196_608, 0.003)
_OVER_UNIX: Final = _Pace(65_536, 0.0005)


class ReadPacer:
    """Pauses between reads of pieces from one connection."""

    def __init__(self, connection: Connection) -> None:
        self._pace = _OVER_UNIX if is_over_unix_socket(connection) else _OVER_TCP

    async def pause_after(self, size: int) -> None:
        """Pause after a piece of this size, in bytes, before the next is read."""
        if size < self._pace.enough:
            await asyncio.sleep(self._pace.pause)
