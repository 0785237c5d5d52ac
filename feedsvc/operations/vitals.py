"""How this process and its machine are: looked at on the side, and told once a second."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache.pages import Pages
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers, ProcessStats, StandbyState
from feedsvc.operations.audit import AuditLog
from feedsvc.operations.health.health import HealthMonitor
from feedsvc.operations.machine import Machine
from feedsvc.operations.sampling import Sampling

_WAKE: Final = 0.1  # seconds between looks at whether the event loop is on time
_LAGS: Final = 10  # of them are told together
_LOOK_EVERY: Final = 5.0  # seconds between looks at what costs a millisecond to find out


class SampledParts(NamedTuple):
    """Whose state is told. `listens` is None where nobody has to listen to PostgreSQL."""

    pools: PoolSet
    drain: Drain
    pages: Pages
    probe: ReadinessProbe
    link: RedisLink | None
    listens: Callable[[], bool] | None
    health: HealthMonitor
    replicas: Replicas
    audit: AuditLog
    tokens: Tokens


class StatsSampler:
    """Tells of them until it is cancelled."""

    def __init__(self, parts: SampledParts, observers: Observers, sampling: Sampling) -> None:
        self._parts = parts
        self._observers = observers
        self._sampling = sampling
        self._machine = Machine()
        self._looked = time.monotonic()

    async def run(self) -> NoReturn:
        """Watches the event loop, and tells: at once, for who is not heard of counts as dead."""
        self._observers.tell(self.now([]))
        while True:
            lags = [await self._next_lag() for _ in range(_LAGS)]
            if time.monotonic() - self._looked >= _LOOK_EVERY:
                self._looked = time.monotonic()
                self._machine.look()
            self._observers.tell(self.now(lags))

    def now(self, lags: list[float]) -> ProcessStats:
        """What is to be told."""
        parts, memory = self._parts, self._parts.pages.memory
        return ProcessStats(
            at=time.time(),
            lags=lags,
            sampled=self._sampling.weight,
            cpu_seconds=time.process_time(),
            most_open_files=self._machine.most_open_files,
            **self._machine.usage._asdict(),
            pools=parts.pools.states(),
            running=parts.drain.running_now,
            leaving=parts.drain.begun,
            cached_pages=len(memory),
            cached_bytes=round(memory.currsize),
            evicted_pages=memory.evicted,
            database_answers=parts.probe.fault is None,
            redis_answers=None if parts.link is None else not parts.link.away,
            listener_hears=None if parts.listens is None else parts.listens(),
            health=parts.health.states(),
            kept_out=parts.pages.reasons(),
            standbys={r.name: StandbyState(r.is_usable, r.lag) for r in parts.replicas.all},
            audit=parts.audit.state(),
            keys_age=parts.tokens.published.age() if parts.tokens.published else None,
        )

    async def _next_lag(self) -> float:
        began = time.perf_counter()
        await asyncio.sleep(_WAKE)
        lag = max(0.0, time.perf_counter() - began - _WAKE)
        self._sampling.woke_late(lag, time.monotonic())
        return lag
