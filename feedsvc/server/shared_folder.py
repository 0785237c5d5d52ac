"""The folder that the workers of one service share, with their figures.

The supervisor makes it, in memory where the system has such a place, and gives each
worker a slot, a number that no other one has while it runs. A worker that takes a dead one's place
takes its slot as well, and goes on counting where that one had come to.
"""

import fcntl
import heapq
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_PREFIX: Final = "feedsvc-workers-"
_LOCK: Final = "lock"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder itself is made by mkdtemp
_GRACE: Final = 60.0  # seconds after which a folder without a lock is a dead service's


@contextmanager
def worker_folder() -> Iterator[Path | None]:
    """A new folder, gone when the block ends; None where no place can be written to.

    Folders that services left behind when they were killed are removed.
    """
    folder = _made(place for place in _places() if _swept(place))
    if folder is None:
        logger.warning("there is no place for what workers share, so /metrics can't be answered")
        yield None
        return
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WorkerSlots:
    """The numbers of the workers that run."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        """The lowest number that is free, so that there are no more files than workers."""
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, slot: int) -> None:
        """Its worker is dead: what it counted stays, and what it was ends with it."""
        heapq.heappush(self._free, slot)
        if self._folder is not None:
            for file in self._folder.glob(f"*_{slot}.now"):
                file.unlink(missing_ok=True)
            for file in self._folder.glob(f"worker_{slot}_*.sock"):
                file.unlink(missing_ok=True)
            for file in self._folder.glob(f"gauge_*_{slot}.db"):
                file.unlink(missing_ok=True)


def _places() -> Iterator[Path]:
    yield _MEMORY
    with suppress(OSError):  # what tempfile raises where it finds none
        yield Path(tempfile.gettempdir())


def _made(places: Iterable[Path]) -> Path | None:
    for place in places:
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    return None


def _swept(place: Path) -> bool:
    """Remove folders of services that ended; whether the parent folder exists."""
    if not place.is_dir():
        return False
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)
    return True


def _is_left_behind(folder: Path) -> bool:
    found = folder.lstat()
    ours = found.st_uid == os.geteuid() and time.time() - found.st_mtime > _GRACE
    if not ours or not folder.is_dir() or folder.is_symlink():
        return False
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
