"""The number of rows that an export reads at a time."""

from typing import Final

from feedsvc.feeds.sources.source import Batch

_FIRST_BATCH: Final = 64
_LARGEST_BATCH: Final = 4_096
_SMALLEST_CHUNK: Final = 65_536  # bytes
_SLOW_BATCH: Final = 0.25  # seconds; rows that come slower than this are passed on as they come


class BatchSize:
    """The number of rows to ask for: as many as make a chunk, fewer where they come slowly.

    Chunks grow with what was read, and that is with what the client took: one that reads nothing
    from the start is found out while the chunk that waits for it is still small.
    """

    def __init__(self, chunk_bytes: int) -> None:
        self.rows = _FIRST_BATCH
        self._read_bytes = 0
        self._chunk_bytes = chunk_bytes

    def learn(self, batch: Batch | None, seconds: float) -> None:
        """Take a batch's size and time into account for the next one."""
        rows, size = (0, 0) if batch is None else (batch.count, len(batch.body))
        self._read_bytes += size
        chunk = min(self._chunk_bytes, max(_SMALLEST_CHUNK, self._read_bytes // 8))
        wanted = chunk * rows // max(1, size)
        if seconds > _SLOW_BATCH:
            wanted = min(wanted, self.rows // 2)
        self.rows = max(1, min(wanted, self.rows * 8, _LARGEST_BATCH))
