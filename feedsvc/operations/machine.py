"""What this process and its machine use, as the system tells it."""

import errno
import resource
import shutil
import tempfile
import time
from typing import Final, NamedTuple

import psutil


class Usage(NamedTuple):
    """Sizes are bytes, shares of one CPU for the process and of all of them for the machine."""

    cpu_share: float
    memory: int
    open_files: int | None
    machine_cpu_share: float
    machine_memory: int
    machine_memory_free: int
    disk: int | None
    disk_free: int | None


_NOTHING: Final = Usage(0.0, 0, None, 0.0, 1, 1, None, None)


class Machine:
    """Looks when it is asked to. `usage` is what it saw last."""

    def __init__(self) -> None:
        self.most_open_files = _most_open_files()
        self._process = psutil.Process()
        self._looked, self._cpu = time.monotonic(), time.process_time()
        self.usage = _NOTHING
        self.look()

    def look(self) -> None:
        """Looks anew, a millisecond's work. What can't be seen stays as it was.

        Who has no file left to look with knows that much.
        """
        try:
            self.usage = self._seen()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.usage = self.usage._replace(open_files=self.most_open_files)
        except psutil.Error:
            return

    def _seen(self) -> Usage:
        memory, (disk, disk_free) = psutil.virtual_memory(), _disk()
        return Usage(
            cpu_share=self._cpu_share(),
            memory=self._process.memory_info().rss,
            open_files=self._process.num_fds(),
            machine_cpu_share=psutil.cpu_percent() / 100,
            machine_memory=memory.total,
            machine_memory_free=memory.available,
            disk=disk,
            disk_free=disk_free,
        )

    def _cpu_share(self) -> float:
        before, self._looked = self._looked, time.monotonic()
        used, self._cpu = self._cpu, time.process_time()
        return (self._cpu - used) / max(self._looked - before, 1e-3)


def _most_open_files() -> int | None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == resource.RLIM_INFINITY else most


def _disk() -> tuple[int | None, int | None]:
    """Size of, and room on, the file system that temporary files are on."""
    try:
        usage = shutil.disk_usage(tempfile.gettempdir())
    except OSError:
        return None, None
    return usage.total, usage.free
