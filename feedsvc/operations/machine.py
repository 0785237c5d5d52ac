"""Resources that this process and its machine use, as the system reports them."""

import errno
import resource
import time
from pathlib import Path
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


_OPEN_FILES: Final = Path("/proc/self/fd")
_NOTHING: Final = Usage(0.0, 0, None, 0.0, 1, 1)


class Machine:
    """The usage as it was looked up last."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._looked, self._cpu = time.monotonic(), time.process_time()
        self.usage = _NOTHING
        self.look()

    def look(self) -> None:
        """Look up the usage, in about a millisecond. What the system does not report stays.

        A process without a file left to look with uses as many as it may.
        """
        try:
            memory = psutil.virtual_memory()
            self.usage = Usage(
                open_files=self.open_files(),
                cpu_share=self._cpu_share(),
                memory=self._process.memory_info().rss,
                machine_cpu_share=psutil.cpu_percent() / 100,
                machine_memory=memory.total,
                machine_memory_free=memory.available,
            )
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.usage = self.usage._replace(open_files=self.most_open_files)
        except psutil.Error:
            return

    @property
    def most_open_files(self) -> int | None:
        """The limit of open files now, which prlimit(1) can move. None: no limit."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if limit == resource.RLIM_INFINITY else limit

    def open_files(self) -> int:
        """The number of open files and sockets now. Raises OSError and psutil.Error."""
        return _counted_files() or self._process.num_fds()

    def _cpu_share(self) -> float:
        before, self._looked = self._looked, time.monotonic()
        used, self._cpu = self._cpu, time.process_time()
        return (self._cpu - used) / max(self._looked - before, 1e-3)


def _counted_files() -> int:
    """The number of open files by the kernel's own count: Linux 6.2 and later, elsewhere 0.

    To list 5,000 takes 10 to 24 ms, in which no client is served. The kernel's change is called
    "proc: report open files as size in stat() for /proc/pid/fd".
    """
    try:
        return _OPEN_FILES.stat().st_size
    except OSError:
        return 0
