"""The state of this process and its machine, sampled once a second."""

import asyncio
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, Protocol

from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers
from feedsvc.core.process_stats import FollowedState, ProcessStats, StandbyState
from feedsvc.operations.audit import AuditLog
from feedsvc.operations.health.disks import Room
from feedsvc.operations.health.health import HealthMonitor
from feedsvc.operations.sampling import Sampling

_EVERY: Final = 1.0  # seconds
_LOOK_EVERY: Final = 5.0  # seconds between looks at what costs a millisecond to find out
_DISK_PATIENCE: Final = 0.1  # seconds; a file system that hangs must not silence the worker


class Subscribers(Protocol):
    """The subscribers of this worker."""

    @property
    def count(self) -> int:
        """Their present number."""
        ...

    @property
    def most(self) -> int:
        """The number that there may be."""
        ...

    @property
    def catching_up(self) -> int:
        """Those that lack events which are not kept."""
        ...


class SampledParts(NamedTuple):
    """The parts whose state is sampled; the rest of them is health's context."""

    health: HealthMonitor
    drain: Drain
    probe: ReadinessProbe
    audit: AuditLog
    subscribers: Subscribers


class StatsSampler:
    """Reports ProcessStats to observers."""

    def __init__(self, parts: SampledParts, observers: Observers, sampling: Sampling) -> None:
        self._parts = parts
        self._context = parts.health.parts
        self._observers = observers
        self._sampling = sampling
        self._folder = Path(tempfile.gettempdir())
        self._disk: Room | None = None
        self._sampled = 0.0
        self._context.loop.on_wake = sampling.woke_late

    async def run(self) -> NoReturn:
        """Sample until cancelled: at once, since a worker without a sample counts as dead."""
        looked = time.monotonic()
        await self._look_at_disk()
        while True:
            self._observers.publish(self.now(self._context.loop.since(self._sampled)))
            self._sampled = time.monotonic()
            await asyncio.sleep(_EVERY)
            if time.monotonic() - looked >= _LOOK_EVERY:
                looked = time.monotonic()
                self._context.machine.look()
                await self._look_at_disk()

    def now(self, lags: list[float]) -> ProcessStats:
        """The state at this moment, with these lags of the event loop."""
        parts, context, pages = self._parts, self._context, self._context.pages
        published = context.tokens.published
        return ProcessStats(
            at=time.time(),
            lags=lags,
            sampled=self._sampling.weight,
            cpu_seconds=time.process_time(),
            most_open_files=context.machine.most_open_files,
            **context.machine.usage._asdict(),
            disk=None if self._disk is None else self._disk.size,
            disk_free=None if self._disk is None else self._disk.free,
            pools=context.pools.states(),
            running=parts.drain.running_now,
            leaving=parts.drain.begun,
            cached_pages=len(pages.memory),
            cached_bytes=pages.memory.size,
            evicted_pages=pages.memory.evicted,
            database_answers=parts.probe.fault is None,
            redis_answers=None if context.link is None else not context.link.away,
            log_reads=pages.is_followed if context.settings.cache.enabled else None,
            health=parts.health.states(),
            kept_out=pages.coverage.reasons(),
            standbys={r.name: StandbyState(r.is_usable, r.lag) for r in context.replicas.all},
            audit=parts.audit.state(),
            keys_age=published.age() if published else None,
            log=context.log.last,
            live=self._live(),
            views=context.views.states(),
        )

    def _live(self) -> FollowedState:
        subscribers, tail = self._parts.subscribers, self._context.tail
        cohorts = tail.cohorts
        return FollowedState(
            subscribers=subscribers.count,
            most=subscribers.most,
            catching_up=subscribers.catching_up,
            cohorts=len(cohorts),
            kept_bytes=sum(cohort.broadcast.kept_bytes for cohort in cohorts),
            failing=tail.failing_for,
            looked=tail.looked_ago,
        )

    async def _look_at_disk(self) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DISK_PATIENCE):
                self._disk = await self._context.disks.room(self._folder)
