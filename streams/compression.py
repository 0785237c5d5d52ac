"""gzip and zstd, flushed with every chunk, so that no row waits in a compressor.

isal (ISA-L) makes gzip some four times faster than zlib at a like size; both compressors work at
their fastest level, for the rows leave at the speed of PostgreSQL.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import zstandard
from isal import isal_zlib

from streams.formats import Pieces

# A window of 128 KiB keeps a compressor small: a thousand streams may hold one each.
_ZSTD_WINDOW_LOG: Final = 17
_GZIP_WRAPPER: Final = 16  # added to zlib's window bits, it asks for a gzip header and trailer


class Compressor(Protocol):
    """Compresses one body, chunk by chunk. Not for two threads at once."""

    def compress(self, chunk: Pieces) -> Pieces:
        """The whole chunk, flushed: a reader of these bytes can decode it to its end."""
        ...

    def finish(self) -> bytes:
        """The body's proper end; without it a reader knows that the body was cut."""
        ...


class Gzip:
    """The gzip coding (RFC 1952), each chunk ended by a sync flush."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = isal_zlib.compressobj(
            isal_zlib.ISAL_BEST_SPEED + 1, isal_zlib.DEFLATED, isal_zlib.MAX_WBITS + _GZIP_WRAPPER
        )

    def compress(self, chunk: Pieces) -> Pieces:
        """See `Compressor.compress`."""
        return *map(self._stream.compress, chunk), self._stream.flush(isal_zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """See `Compressor.finish`."""
        tail: bytes = self._stream.flush(isal_zlib.Z_FINISH)
        return tail


class Zstd:
    """The zstd coding (RFC 8878), each chunk ended by a block flush."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=_ZSTD_WINDOW_LOG)
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def compress(self, chunk: Pieces) -> Pieces:
        """See `Compressor.compress`."""
        made = [self._stream.compress(memoryview(piece)) for piece in chunk]
        return *made, self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        """See `Compressor.finish`."""
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


class Identity:
    """No coding at all."""

    __slots__ = ()

    def compress(self, chunk: Pieces) -> Pieces:
        """See `Compressor.compress`."""
        return chunk

    def finish(self) -> bytes:
        """See `Compressor.finish`."""
        return b""


# The server's favourite first.
CODINGS: Final[Mapping[str, Callable[[], Compressor]]] = {
    "zstd": Zstd,
    "gzip": Gzip,
    "identity": Identity,
}
