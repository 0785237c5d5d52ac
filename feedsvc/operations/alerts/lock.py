"""The lock of the alerts' board, which a worker that is frozen does not keep.

The kernel releases the lock of a worker that dies, and not that of one that is stopped. So the
holder notes when it took it, and one that is held for too long is replaced by a new file.
"""

import fcntl
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_STAMP: Final = struct.Struct("d")


class BoardLock:
    """One worker's use of the lock file."""

    def __init__(
        self, file: Path, worker: str, patience: float, clock: Callable[[], float]
    ) -> None:
        """`patience`: seconds for which one worker may hold it, by `clock`, which all share."""
        self._file = file
        self._worker = worker
        self._patience = patience
        self._clock = clock
        self._seen: bytes | None = None

    @contextmanager
    def hold(self) -> Iterator[Callable[[], bool]]:
        """Hold the lock in the block, which gets a function that tells whether it still does.

        Raises BlockingIOError while another worker holds it, else OSError.
        """
        with ExitStack() as stack:
            lock = stack.enter_context(_opened(self._file))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not self._is_overdue(lock):
                    raise
                lock = stack.enter_context(self._replacement())
            self._seen = None
            if not self._is_current(lock):
                raise BlockingIOError
            os.pwrite(lock, _STAMP.pack(self._clock()), 0)
            yield partial(self._is_current, lock)

    def _is_overdue(self, lock: int) -> bool:
        """Return whether its holder has had it for too long.

        One that has only just taken it may not have noted it yet, so that it is looked at twice.
        """
        stamp = os.pread(lock, _STAMP.size, 0)
        before, self._seen = self._seen, stamp
        taken = _STAMP.unpack(stamp)[0] if stamp else -self._patience
        return stamp == before and self._clock() - taken > self._patience

    @contextmanager
    def _replacement(self) -> Iterator[int]:
        """A lock file in place of the one that is held, held by this worker from the first."""
        logger.warning("alerts: a worker has kept the lock of the board, which is replaced")
        new = self._file.with_name(f"{self._file.name}.{self._worker}")
        with _opened(new) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.replace(self._file)
            yield lock

    def _is_current(self, lock: int) -> bool:
        return os.path.samestat(os.fstat(lock), self._file.stat())


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)
