"""Room on file systems, looked up in threads, since one that hangs never answers."""

import asyncio
import os
from pathlib import Path
from typing import NamedTuple


class Room(NamedTuple):
    """Bytes, and the number of files that can be added (None: the file system does not count)."""

    size: int
    free: int
    files_free: int | None


class Disks:
    """The file systems of these paths."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._looking: dict[Path, asyncio.Future[Room]] = {}

    async def room(self, path: Path) -> Room:
        """The room left. Raises OSError. At most one thread looks at a path."""
        looking = self._looking.get(path)
        if looking is None:
            looking = asyncio.ensure_future(asyncio.to_thread(_room, path))
            looking.add_done_callback(lambda done: self._done(path, done))
            self._looking[path] = looking
        return await asyncio.shield(looking)

    def _done(self, path: Path, done: "asyncio.Future[Room]") -> None:
        del self._looking[path]
        if not done.cancelled():
            done.exception()  # those that waited have it


def _room(path: Path) -> Room:
    found = os.statvfs(path)
    return Room(
        size=found.f_blocks * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        files_free=found.f_favail if found.f_files else None,
    )
