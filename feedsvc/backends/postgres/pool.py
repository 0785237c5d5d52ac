"""Pools of connections to PostgreSQL, by operation, every step under a deadline."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal, Protocol, TypeAlias
from weakref import WeakSet

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from feedsvc.backends.postgres.admission import (
    ANY,
    Admission,
    Asker,
    PoolExhaustedError,
    Slot,
    retry_after,
)
from feedsvc.backends.postgres.report import PoolFigures
from feedsvc.backends.postgres.servers import Servers, servers_of
from feedsvc.backends.postgres.sessions import Session
from feedsvc.backends.postgres.statistics import PoolStatistics
from feedsvc.core.events import Observers, PoolLease
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Busy, DatabaseUnavailable
from feedsvc.core.process_stats import PoolState
from feedsvc.settings import Database, PoolSettings, Settings
from feedsvc.settings.pools import PoolName

Operation: TypeAlias = PoolName | Literal["write"]
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
AnyConnection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection"
"""Leased, or as the pool has it."""

LeaseOutcome: TypeAlias = Literal["leased", "busy", "failed", "left"]

logger = logging.getLogger(__name__)

_REFUSALS: Final = {
    "own": "Too many of your own requests wait already for a connection of",
    "full": "Too many requests wait already for a connection of",
    "vain": "It would take too long to wait for a connection of",
    "late": "No connection came free in time of",
}
_LONGEST_RETRY: Final = 60  # seconds
_LEAST_TO_CONNECT: Final = 0.25  # seconds, for a request that got its slot at the last moment


async def connect(
    database: Database | Servers, *, application_name: str, timeout: float | None = None
) -> Session:
    """Open a connection outside every pool.

    Raises OldPrimaryError, SessionRefusedError and what asyncpg raises.
    """
    named = {"application_name": application_name}
    return await servers_of(database).connect(named, timeout=timeout)


class Standbys(Protocol):
    """Pools of standbys, as an alternative to a pool of the primary."""

    def choose(self, operation: Operation) -> "Pool | None":
        """A standby's pool for this operation that has room, None if there is none."""


class Pool:
    """A bounded number of connections, with a queue of requests that wait for one.

    `standbys` are read from in its place where that will do.
    """

    def __init__(
        self,
        name: Operation,
        settings: PoolSettings,
        database: Database | Servers,
        observers: Observers | None = None,
        standbys: Standbys | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.servers = servers_of(database)
        database = self.servers.database
        self.observers = observers or Observers()
        self.release_timeout = database.release_timeout
        self.leases: dict[Slot, Connection] = {}
        """Connections in use, by the slot of each."""
        self.statistics = PoolStatistics()
        self._standbys = standbys
        self.application_name = settings.application_name or f"feedsvc {name}"
        self._connect_timeout = database.connect_timeout
        self._places = Admission(
            settings.size, settings.kept_for_small(), settings.most_waiting, share=settings.share
        )
        self._made: WeakSet[Session] = WeakSet()
        # Two transactions of one export could wait for each other in the pooler's own queue.
        self._is_pooled = False
        connect: Any = self._connect  # whose every parameter asyncpg's stubs would have listed
        self._pool: asyncpg.Pool = asyncpg.create_pool(
            database.url.get_secret_value(),
            min_size=0,
            max_size=settings.size,
            max_inactive_connection_lifetime=settings.idle_timeout,
            command_timeout=settings.query_timeout,
            connection_class=Session,
            connect=connect,
        )

    @property
    def pressed(self) -> asyncio.Event:
        """Set while a request waits, as a signal to give back connections that are lent."""
        return self._places.pressed

    async def open(self) -> None:
        """Make the pool usable; connections are opened on first use."""
        await self._pool

    async def close(self, timeout: float) -> None:
        """Close every connection, those in use by force after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    def standby(self) -> "Pool | None":
        """A standby's pool that has room and can be read from instead, None if there is none."""
        return None if self._standbys is None else self._standbys.choose(self.name)

    def failed(self) -> None:
        """Report that a read failed here and goes on elsewhere, as it can from a standby."""

    def state(self) -> PoolState:
        """The number of connections, and of requests that wait for one."""
        opened, idle = self._pool.get_size(), self._pool.get_idle_size()
        return PoolState(self.settings.size, opened, opened - idle, self.waiting)

    @asynccontextmanager
    async def lease(
        self, *, large: bool = False, lent: bool = False, asker: Asker = ANY
    ) -> AsyncIterator[Connection]:
        """Lease a connection while the block runs; `large` for work of unknown length.

        `asker` takes turns with others, and is held to its share. A connection that is `lent` is
        a spare one, to be given back as soon as `pressed` is set.

        Raises Busy if none came free in time or none will, DatabaseUnavailable if none could be
        made in time, and otherwise what asyncpg raises where none could be made.
        """
        borrowed = self._places.borrow() if lent and not self._is_pooled else None
        if lent and borrowed is None:
            raise Busy(f"No connection of the {self.name} pool is to spare.")
        place, connection = await self._acquire(borrowed, asker, large=large)
        self.leases[place] = connection
        try:
            yield connection
        finally:
            try:
                if is_lost(self.leases[place]):
                    self.statistics.add_trouble("lost a connection")
                await self._release(self.leases[place])
            finally:
                del self.leases[place]
                self._places.give_back(place)
                if not lent:
                    self.statistics.add_lease(time.monotonic() - place.since, large=large)

    async def exchange(self, leased: Connection) -> Connection:
        """Another connection in the place of a leased one that is of no more use.

        Raises what `lease` does where none can be made.
        """
        place = next(place for place, each in self.leases.items() if each is leased)
        await self._release(leased)
        self.leases[place] = connection = await self._connected(place)
        self.statistics.add_trouble("lost a connection")
        return connection

    @property
    def in_use(self) -> int:
        """The number of connections in use."""
        return self._places.in_use

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a connection."""
        return self._places.waiting

    @property
    def open_connections(self) -> int:
        """The number of open connections, in use or not."""
        return self._pool.get_size()

    @property
    def spare(self) -> int:
        """The number of connections that could be lent."""
        return 0 if self._is_pooled else self._places.spare

    @property
    def is_shared(self) -> bool:
        """Return whether several exports run."""
        return self._places.is_shared

    def is_free(self, *, large: bool) -> bool:
        """Return whether a lease would not have to wait."""
        return self._places.is_free(large=large)

    def cut(self) -> None:
        """Terminate every connection in use; its user sees a lost connection."""
        for connection in list(self.leases.values()):
            cut(connection)

    def idle(self) -> list[asyncpg.Connection]:
        """The open connections that are not in use."""
        taken = {c.get_server_pid() for c in self.leases.values() if not is_lost(c)}
        live = [connection for connection in self._made if not connection.is_closed()]
        return [connection for connection in live if connection.get_server_pid() not in taken]

    def seen(self) -> PoolFigures:
        """Its statistics and present state."""
        timeouts = {
            "acquire": self.settings.acquire_timeout,
            "connect": self._connect_timeout,
            "query": self.settings.query_timeout,
            "release": self.release_timeout,
            "idle": self.settings.idle_timeout,
        }
        return self.statistics.figures(self.name, timeouts, self._places, self.open_connections)

    async def _acquire(
        self, borrowed: Slot | None, asker: Asker, *, large: bool
    ) -> tuple[Slot, Connection]:
        """Take a slot and its connection, and report the time that it took."""
        began = time.perf_counter()
        outcome: LeaseOutcome = "failed"
        try:
            place = borrowed or await self._place(asker, large=large)
            try:
                connection = await self._connected(place)
            except BaseException:
                self._places.give_back(place)
                raise
        except Busy:
            outcome = "busy"
            raise
        except asyncio.CancelledError:
            outcome = "left"
            raise
        else:
            outcome = "leased"
            return place, connection
        finally:
            self.observers.publish(PoolLease(self.name, outcome, time.perf_counter() - began))

    async def _place(self, asker: Asker, *, large: bool) -> Slot:
        began = time.monotonic()
        try:
            timeout = self.settings.acquire_timeout
            place = await self._places.take(large=large, timeout=timeout, asker=asker)
        except PoolExhaustedError as error:
            self.statistics.add_refusal(error, time.monotonic() - began)
            what = f"{_REFUSALS[error.why]} the {self.name} pool."
            raise Busy(what, retry_after(error.wait, _LONGEST_RETRY)) from None
        self.statistics.add_wait(place.waited)
        return place

    async def _connected(self, place: Slot) -> Connection:
        """A connection for a slot: one that is free or being released, or a new one."""
        left = max(_LEAST_TO_CONNECT, self.settings.acquire_timeout - place.waited)
        try:
            return await self._pool.acquire(timeout=min(left, self._connect_timeout))
        except TimeoutError:
            self.statistics.add_trouble("could not connect")
            raise DatabaseUnavailable("The database did not take a connection in time.") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.statistics.add_trouble("could not connect")
            raise

    async def _connect(self, _url: str, **given: Any) -> Session:
        """A new connection, for asyncpg's pool."""
        given.pop("connection_class")
        settings = {"application_name": self.application_name, **self.settings.session()}
        session = await self.servers.connect(settings, timeout=self._connect_timeout, **given)
        self._made.add(session)
        self._is_pooled = session.is_pooled
        return session

    async def _release(self, connection: Connection) -> None:
        """Give the connection back; terminate it if it no longer answers."""
        try:
            await self._pool.release(connection, timeout=self.release_timeout)
        except (
            TimeoutError,
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # of one that is lost while it answers
        ) as error:
            self.statistics.add_trouble("lost a connection")
            logger.warning("a connection of the %s pool was lost: %s", self.name, redacted(error))


class PoolSet:
    """The pools by name."""

    def __init__(
        self,
        settings: Settings,
        observers: Observers | None = None,
        servers: Servers | None = None,
        standbys: Standbys | None = None,
    ) -> None:
        sizes: Mapping[Operation, PoolSettings] = {
            "read": settings.pools.read,
            "write": settings.pools.write,
            "analytics": settings.pools.analytics,
            "bulk": settings.pools.bulk,
        }
        self.servers = servers or Servers(settings.database)
        self._pools = {
            name: Pool(name, size, self.servers, observers, standbys)
            for name, size in sizes.items()
        }

    def __getitem__(self, name: Operation) -> Pool:
        return self._pools[name]

    def all(self) -> Collection[Pool]:
        return self._pools.values()

    def states(self) -> dict[str, PoolState]:
        """The state of each pool."""
        return {name: pool.state() for name, pool in self._pools.items()}

    async def open(self) -> None:
        """Make all pools usable."""
        for pool in self._pools.values():
            await pool.open()

    async def close(self, timeout: float) -> None:
        """Close all pools within `timeout` seconds."""
        await asyncio.gather(*(pool.close(timeout) for pool in self._pools.values()))


def is_lost(connection: AnyConnection) -> bool:
    """Return whether the connection is closed. asyncpg takes a closed one back by itself, and then
    refuses even this question.
    """
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def cut(connection: AnyConnection) -> None:
    """Terminate a connection at once, in any state."""
    with suppress(asyncpg.InterfaceError):  # lost in the meantime
        connection.terminate()
