"""Connections to PostgreSQL, by operation, each under a deadline."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal, TypeAlias
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
from feedsvc.backends.postgres.report import PoolFigures, texts
from feedsvc.backends.postgres.servers import Servers, servers_of
from feedsvc.backends.postgres.sessions import Session
from feedsvc.backends.postgres.window import Durations, Window
from feedsvc.core.events import Observers, PoolLease, PoolState
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Busy, DatabaseUnavailable
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
_LEAST_TO_CONNECT: Final = 0.25  # seconds, for whoever got a place at the last moment


async def connect(
    database: Database | Servers, *, application_name: str, timeout: float | None = None
) -> Session:
    """A connection of its own, outside every pool.

    Raises OldPrimaryError, SessionRefusedError and what asyncpg raises.
    """
    named = {"application_name": application_name}
    return await servers_of(database).connect(named, timeout=timeout)


class Pool:
    """A bounded number of connections, and who waits for one."""

    def __init__(
        self,
        name: Operation,
        settings: PoolSettings,
        database: Database,
        observers: Observers | None = None,
        servers: Servers | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.servers = servers or Servers(database)
        self.observers = observers or Observers()
        self.release_timeout = database.release_timeout
        self.leases: dict[Slot, Connection] = {}
        """Who has a connection just now."""
        self.standby: Callable[[], Pool | None] = _none
        """A standby's pool for what may be read there, where there is one that has room."""
        self.failed: Callable[[], None] = _nobody_minds
        """To be told by whoever could not read here and will read elsewhere."""
        self.application_name = settings.application_name or f"feedsvc {name}"
        self.troubles: dict[str, float] = {}
        """What went wrong, each with when it last did, by the monotonic clock."""
        self._connect_timeout = database.connect_timeout
        self._places = Admission(
            settings.size, settings.kept_for_small(), settings.most_waiting, share=settings.share
        )
        self._made: WeakSet[Session] = WeakSet()
        self._waits = Durations()
        self._held = {False: Durations(), True: Durations()}
        self._refused: Window[str] = Window(60, 60.0)
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
        """Set while somebody waits, so that whoever could do without a connection gives it up."""
        return self._places.pressed

    async def open(self) -> None:
        """Makes the pool usable; connections are made when they are first needed."""
        await self._pool

    async def close(self, timeout: float) -> None:
        """Closes every connection, those in use by force after so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    def state(self) -> PoolState:
        """How many connections there are, and who waits for one."""
        opened, idle = self._pool.get_size(), self._pool.get_idle_size()
        return PoolState(self.settings.size, opened, opened - idle, self.waiting)

    @asynccontextmanager
    async def lease(
        self, *, large: bool = False, lent: bool = False, asker: Asker = ANY
    ) -> AsyncIterator[Connection]:
        """A connection for as long as the block runs; `large` where nobody knows how long that is.

        `asker` takes turns with others, and is held to its share. One that is `lent` is to spare,
        and to be given back as soon as `pressed` is set.

        Raises Busy if none came free in time or none will, DatabaseUnavailable if none could be
        made in time, and otherwise what asyncpg raises where none could be made.
        """
        borrowed = self._places.borrow() if lent else None
        if lent and borrowed is None:
            raise Busy(f"No connection of the {self.name} pool is to spare.")
        place, connection = await self._acquire(borrowed, asker, large=large)
        self.leases[place] = connection
        try:
            yield connection
        finally:
            try:
                if is_lost(connection):
                    self._note("lost a connection")
                await self._release(connection)
            finally:
                del self.leases[place]
                self._places.give_back(place)
                if not lent:
                    self._held[large].add(time.monotonic() - place.since)

    @property
    def in_use(self) -> int:
        """How many connections somebody has."""
        return self._places.in_use

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._places.waiting

    @property
    def open_connections(self) -> int:
        """How many there are, in use or not."""
        return self._pool.get_size()

    @property
    def spare(self) -> int:
        """How many connections could be lent just now."""
        return self._places.spare

    @property
    def is_shared(self) -> bool:
        """Whether several exports are under way."""
        return self._places.is_shared

    def is_free(self, *, large: bool) -> bool:
        """Whether a lease would not have to wait."""
        return self._places.is_free(large=large)

    def cut(self) -> None:
        """Ends every connection at once; whoever has one meets a lost connection."""
        for connection in list(self.leases.values()):
            cut(connection)

    def idle(self) -> list[asyncpg.Connection]:
        """The connections that nobody has."""
        taken = {c.get_server_pid() for c in self.leases.values() if not is_lost(c)}
        live = [connection for connection in self._made if not connection.is_closed()]
        return [connection for connection in live if connection.get_server_pid() not in taken]

    def seen(self) -> PoolFigures:
        """What was seen of it lately, and how it is now."""
        places = self._places
        return PoolFigures(
            name=self.name,
            size=places.size,
            reserve=places.size - places.most_large,
            most_waiting=self.settings.most_waiting,
            timeouts={
                "acquire": self.settings.acquire_timeout,
                "connect": self._connect_timeout,
                "query": self.settings.query_timeout,
                "release": self.release_timeout,
                "idle": self.settings.idle_timeout,
            },
            open=self.open_connections,
            in_use=places.in_use,
            in_use_by_exports=places.in_large_use,
            waiting=places.waiting,
            waits=texts(self._waits.counts()),
            small=texts(self._held[False].counts()),
            large=texts(self._held[True].counts()),
            refused=texts(self._refused.total()),
            demand=texts(places.demand.seconds()),
        )

    async def _acquire(
        self, borrowed: Slot | None, asker: Asker, *, large: bool
    ) -> tuple[Slot, Connection]:
        """A place, and a connection to go with it; tells how long that took."""
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
            self.observers.tell(PoolLease(self.name, outcome, time.perf_counter() - began))

    async def _place(self, asker: Asker, *, large: bool) -> Slot:
        began = time.monotonic()
        try:
            timeout = self.settings.acquire_timeout
            place = await self._places.take(large=large, timeout=timeout, asker=asker)
        except PoolExhaustedError as error:
            self._refused.add(error.why)
            self._note("refused somebody")
            self._waits.add(time.monotonic() - began)
            what = f"{_REFUSALS[error.why]} the {self.name} pool."
            raise Busy(what, retry_after(error.wait, _LONGEST_RETRY)) from None
        self._waits.add(place.waited)
        return place

    async def _connected(self, place: Slot) -> Connection:
        """A connection for whoever has a place; one is free, or on its way back, or to be made."""
        left = max(_LEAST_TO_CONNECT, self.settings.acquire_timeout - place.waited)
        try:
            return await self._pool.acquire(timeout=min(left, self._connect_timeout))
        except TimeoutError:
            self._note("could not connect")
            raise DatabaseUnavailable("The database did not take a connection in time.") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._note("could not connect")
            raise

    async def _connect(self, _url: str, **given: Any) -> Session:
        """A new connection, for asyncpg's pool."""
        given.pop("connection_class")
        settings = {
            "application_name": self.application_name,
            "lock_timeout": f"{max(1, round(self.settings.longest_lock() * 1e3))}ms",
        }
        session = await self.servers.connect(settings, timeout=self._connect_timeout, **given)
        self._made.add(session)
        return session

    def _note(self, trouble: str) -> None:
        self.troubles[trouble] = time.monotonic()

    async def _release(self, connection: Connection) -> None:
        """Gives the connection back; one that does not answer any more is thrown away."""
        try:
            await self._pool.release(connection, timeout=self.release_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._note("lost a connection")
            logger.warning("a connection of the %s pool was lost: %s", self.name, redacted(error))


class PoolSet:
    """Every pool by its name."""

    def __init__(
        self,
        settings: Settings,
        observers: Observers | None = None,
        servers: Servers | None = None,
    ) -> None:
        sizes: Mapping[Operation, PoolSettings] = {
            "read": settings.pools.read,
            "write": settings.pools.write,
            "analytics": settings.pools.analytics,
            "bulk": settings.pools.bulk,
        }
        self.servers = servers or Servers(settings.database)
        self._pools = {
            name: Pool(name, size, settings.database, observers, self.servers)
            for name, size in sizes.items()
        }

    def __getitem__(self, name: Operation) -> Pool:
        return self._pools[name]

    def all(self) -> Collection[Pool]:
        """Every one."""
        return self._pools.values()

    def states(self) -> dict[str, PoolState]:
        """How each of them is."""
        return {name: pool.state() for name, pool in self._pools.items()}

    async def open(self) -> None:
        """Makes all of them usable."""
        for pool in self._pools.values():
            await pool.open()

    async def close(self, timeout: float) -> None:
        """Closes all of them within so many seconds."""
        await asyncio.gather(*(pool.close(timeout) for pool in self._pools.values()))


def _none() -> None:
    """There is no standby."""


def _nobody_minds() -> None:
    """There is nowhere else to read."""


def is_lost(connection: Connection) -> bool:
    """Whether nothing can be asked on it. asyncpg takes such a one back by itself, and then
    refuses even this question.
    """
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def is_over_unix_socket(connection: AnyConnection) -> bool:
    """Whether PostgreSQL is spoken to over a Unix socket, whose buffers are small and stay so."""
    address = getattr(connection, "_addr", None)  # which asyncpg tells to query loggers alone
    return isinstance(address, str)


def cut(connection: AnyConnection) -> None:
    """Ends a connection at once, in whichever state it is."""
    with suppress(asyncpg.InterfaceError):  # lost in the meantime
        connection.terminate()
