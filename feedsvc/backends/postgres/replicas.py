"""Standbys that exports may be read from, and how far each is behind.

Twice a second the primary is asked how far its log is, and then each standby how far it has
replayed it. A standby has all that was committed when the primary was last where it is now; that
moment, by our own clock, bounds how old its rows are. No clock of another machine is asked, and
where the primary does not answer nothing is known, and no standby is used.

What is read from a standby has no place in the cache: there `pg_current_snapshot` knows nothing of
the transactions that were running (PostgreSQL keeps those of a standby elsewhere), so a page would
seem to have seen what it lacks.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from feedsvc.backends.postgres.login import login_findings
from feedsvc.backends.postgres.pool import Operation, Pool
from feedsvc.backends.postgres.probe import ProbeConnection
from feedsvc.backends.postgres.report import report
from feedsvc.backends.postgres.servers import Servers
from feedsvc.core.events import Observers
from feedsvc.core.logs import redacted
from feedsvc.settings import Database, PoolSettings, Settings

logger = logging.getLogger(__name__)

StandbyCondition: TypeAlias = Literal["unknown", "serves", "lags", "away", "unfit"]

_INTERVAL: Final = 0.5  # seconds
_DEADLINE: Final = 1.0  # seconds
_SILENCES: Final = 2  # unanswered questions after which nothing on the way will be answered
_NEVER: Final = -float("inf")

_POSITION: Final = (files("feedsvc.backends.postgres") / "replica_position.sql").read_text()


class LogPosition(NamedTuple):
    """At this time, by our clock, the primary had made its log durable up to here."""

    at: float
    position: int


class DatabaseIdentity(NamedTuple):
    """The cluster, the database in it, and the cluster's life."""

    cluster: int
    database: int
    timeline: int


class UnfitError(Exception):
    """The server may not be read from, whatever it holds."""


class Replica:
    """One standby. `name` is its host and port; `fault` is why it is not read from."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        observers: Observers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        database = settings.database.model_copy(
            update={"url": type(settings.database.url)(url), "replicas": ()}
        )
        sizes: Mapping[Operation, PoolSettings] = {
            "read": settings.pools.read,
            "analytics": settings.pools.analytics,
            "bulk": settings.pools.bulk,
        }
        parts = urlsplit(url)
        self.name = f"{parts.hostname}:{parts.port or 5432}"
        self.state: StandbyCondition = "unknown"
        self.fault: str | None = "it has not answered yet"
        self.lag: float | None = None
        """Seconds behind the primary at the last answer."""
        self.pools = {
            name: _StandbyPool(self, name, given, database, observers)
            for name, given in sizes.items()
        }
        self._bound = settings.database.replica_lag
        self._clock = clock
        self._inquiry = ProbeConnection(database, "feedsvc replica", _DEADLINE, _refuse_unbound)
        self._up_to_date_at = _NEVER
        self._silences = 0

    @property
    def is_usable(self) -> bool:
        """Return whether all that it shows is younger than the bound."""
        return self.state == "serves" and self._clock() - self._up_to_date_at <= self._bound

    def lose(self) -> None:
        """Stop reading from it, after a read that failed, until it has answered again."""
        self._become("away", "a read from it failed")

    async def look(self, primary: DatabaseIdentity | None, past: Sequence[LogPosition]) -> None:
        """Ask once for its position in the log. Raises nothing but CancelledError."""
        try:
            row = await self._inquiry.ask(_POSITION)
        except UnfitError as error:
            self._become("unfit", str(error))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._become("away", f"it does not answer ({type(error).__name__})")
            self._silences += 1
            if self._silences == _SILENCES:
                self._cut()
        else:
            self._silences = 0
            self._judge(row, primary, past)

    def close(self) -> None:
        """Close the connection for these questions."""
        self._inquiry.close()

    def figures(self) -> dict[str, Any]:
        """Its state and lag in milliseconds, as a JSON object."""
        return {
            "name": self.name,
            "state": self.state if self.state != "serves" or self.is_usable else "lags",
            "lag_ms": None if self.lag is None else round(self.lag * 1e3),
            "fault": self.fault,
            "pools": report([pool.seen() for pool in self.pools.values()]),
        }

    def _judge(
        self, row: asyncpg.Record, primary: DatabaseIdentity | None, past: Sequence[LogPosition]
    ) -> None:
        here = _identity(row)
        if not row["standby"]:
            self._become("unfit", "it is no standby")
        elif primary is None:
            self._become("away", "the primary does not answer, so its lag is unknown")
        elif here[:2] != primary[:2]:
            self._become("unfit", "it is no standby of this database")
        elif here.timeline != primary.timeline:
            self._become("away", "it is not on the primary's timeline yet")
        else:
            self._measure(row["position"], past)

    def _measure(self, position: int, past: Sequence[LogPosition]) -> None:
        reached = (entry.at for entry in reversed(past) if entry.position <= position)
        self._up_to_date_at = next(reached, _NEVER)
        self.lag = past[-1].at - self._up_to_date_at
        if self.lag > self._bound:
            if self._up_to_date_at == _NEVER:
                self.lag = None
            behind = f"{self._bound:g} s" if self.lag is None else f"{self.lag:.1f} s"
            self._become("lags", f"it is more than {behind} behind")
        else:
            self._become("serves", None)

    def _become(self, state: StandbyCondition, fault: str | None) -> None:
        if state != self.state:
            log = logger.info if state == "serves" else logger.warning
            log("replica %s: %s", self.name, fault or "serves")
            if state == "unfit":
                self._cut()
        if state not in {"serves", "lags"}:
            self.lag, self._up_to_date_at = None, _NEVER
        self.state, self.fault = state, fault

    def _cut(self) -> None:
        """Terminate its connections; reads on them go on elsewhere."""
        for pool in self.pools.values():
            pool.cut()


class _StandbyPool(Pool):
    """A standby's pool, which takes the standby out of use when a read fails."""

    def __init__(
        self,
        replica: Replica,
        name: Operation,
        settings: PoolSettings,
        database: Database,
        observers: Observers | None,
    ) -> None:
        super().__init__(name, settings, database, observers)
        self._replica = replica

    def failed(self) -> None:
        self._replica.lose()


class Replicas:
    """The standbys of the settings, monitored in the background."""

    def __init__(
        self,
        settings: Settings,
        observers: Observers | None = None,
        clock: Callable[[], float] = time.monotonic,
        servers: Servers | None = None,
    ) -> None:
        self.all = [
            Replica(url.get_secret_value(), settings, observers, clock)
            for url in settings.database.replicas
        ]
        self._clock = clock
        self._primary = ProbeConnection(servers or settings.database, "feedsvc replica", _DEADLINE)
        remembered = 4 * settings.database.replica_lag / _INTERVAL
        self._past: deque[LogPosition] = deque(maxlen=max(16, round(remembered)))
        self._identity: DatabaseIdentity | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Make their pools usable."""
        for replica in self.all:
            for pool in replica.pools.values():
                await pool.open()

    async def close(self, timeout: float) -> None:
        """Close every connection within `timeout` seconds."""
        self._primary.close()
        for replica in self.all:
            replica.close()
        pools = [pool for replica in self.all for pool in replica.pools.values()]
        await asyncio.gather(*(pool.close(timeout) for pool in pools))

    async def run(self) -> None:
        """Ask all of them for their position every half second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Ask the primary for its position, and then all standbys at once."""
        async with self._lock:
            await self._look()

    async def _look(self) -> None:
        # Before the question: what was committed by now is durable before where the answer points,
        # but for transactions that chose not to wait for that.
        at = self._clock()
        try:
            row = await self._primary.ask(_POSITION)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.debug("replicas: the primary does not answer: %s", redacted(error))
            identity = None
        else:
            identity = None if row["standby"] else _identity(row)
        if identity != self._identity:
            self._past.clear()
            self._identity = identity
        if identity is not None:
            self._past.append(LogPosition(at, row["position"]))
        await asyncio.gather(*(replica.look(identity, self._past) for replica in self.all))

    def choose(self, operation: Operation) -> Pool | None:
        """The least used pool of a standby that has room, None if none is fit for the operation."""
        pools = [replica.pools.get(operation) for replica in self.all if replica.is_usable]
        free = [pool for pool in pools if pool is not None and pool.is_free(large=True)]
        return min(free, key=lambda pool: pool.in_use, default=None)


def _identity(row: asyncpg.Record) -> DatabaseIdentity:
    return DatabaseIdentity(row["cluster"], row["database"], row["timeline_id"])


async def _refuse_unbound(connection: asyncpg.Connection) -> None:
    """Raise UnfitError for a login that row-level security does not bind."""
    for finding in await login_findings(connection):
        raise UnfitError(finding.what)
