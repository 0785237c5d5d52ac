"""How this process and its machine are: looked at on the side, and told once a second."""

import asyncio
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

import psutil

from feedsvc.cache.pages import Pages
from feedsvc.drain import Drain
from feedsvc.observations import Observers, Vitals
from feedsvc.pools import Pools
from feedsvc.readiness import DatabaseProbe
from feedsvc.redis_link import RedisLink
from feedsvc.sampling import Sampling

_WAKE: Final = 0.1  # seconds between looks at whether the event loop is on time
_LAGS: Final = 10  # of them are told together
_LOOK_EVERY: Final = 5.0  # seconds between looks at what costs a millisecond to find out


class Parts(NamedTuple):
    """Whose state is told. `listens` is None where nobody has to listen to PostgreSQL."""

    pools: Pools
    drain: Drain
    pages: Pages
    probe: DatabaseProbe
    link: RedisLink | None
    listens: Callable[[], bool] | None


class _Machine(NamedTuple):
    cpu_share: float
    machine_cpu_share: float
    memory: int
    open_files: int | None
    machine_memory: int
    machine_memory_free: int
    disk: int | None
    disk_free: int | None


class VitalSigns:
    """Tells of them until it is cancelled."""

    def __init__(self, parts: Parts, observers: Observers, sampling: Sampling) -> None:
        self._parts = parts
        self._observers = observers
        self._sampling = sampling
        self._process = psutil.Process()
        self._process.cpu_percent()  # what comes next is since now
        psutil.cpu_percent()
        self._most_open_files = _most_open_files()
        self._machine = self._look()
        self._cpu_seconds = self._cpu()
        self._looked = time.monotonic()

    async def run(self) -> NoReturn:
        """Watches the event loop, and tells: at once, for who is not heard of counts as dead."""
        self._observers.tell(self.now([]))
        while True:
            lags = [await self._next_lag() for _ in range(_LAGS)]
            # Where no file can be opened they can't be found out, and are what they were.
            with suppress(OSError, psutil.Error):
                self._cpu_seconds = self._cpu()
                if time.monotonic() - self._looked >= _LOOK_EVERY:
                    self._looked = time.monotonic()
                    self._machine = self._look()
            self._observers.tell(self.now(lags))

    def now(self, lags: list[float]) -> Vitals:
        """What is to be told."""
        parts, machine = self._parts, self._machine
        memory = parts.pages.memory
        return Vitals(
            at=time.time(),
            lags=lags,
            sampled=self._sampling.weight,
            cpu_seconds=self._cpu_seconds,
            cpu_share=machine.cpu_share,
            memory=machine.memory,
            open_files=machine.open_files,
            most_open_files=self._most_open_files,
            machine_cpu_share=machine.machine_cpu_share,
            machine_memory=machine.machine_memory,
            machine_memory_free=machine.machine_memory_free,
            disk=machine.disk,
            disk_free=machine.disk_free,
            pools=parts.pools.states(),
            running=parts.drain.running_now,
            leaving=parts.drain.begun,
            cached_pages=len(memory),
            cached_bytes=round(memory.currsize),
            evicted_pages=memory.evicted,
            database_answers=parts.probe.fault is None,
            redis_answers=None if parts.link is None else not parts.link.away,
            listener_hears=None if parts.listens is None else parts.listens(),
        )

    async def _next_lag(self) -> float:
        began = time.perf_counter()
        await asyncio.sleep(_WAKE)
        lag = max(0.0, time.perf_counter() - began - _WAKE)
        self._sampling.woke_late(lag, time.monotonic())
        return lag

    def _look(self) -> _Machine:
        memory = psutil.virtual_memory()
        disk = _disk()
        with self._process.oneshot():
            return _Machine(
                cpu_share=self._process.cpu_percent() / 100,
                machine_cpu_share=psutil.cpu_percent() / 100,
                memory=self._process.memory_info().rss,
                open_files=self._open_files(),
                machine_memory=memory.total,
                machine_memory_free=memory.available,
                disk=disk[0],
                disk_free=disk[1],
            )

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _open_files(self) -> int | None:
        try:
            return self._process.num_fds()
        except (OSError, psutil.Error):
            return None  # there is none left to ask with


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
