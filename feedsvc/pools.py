"""Connections to PostgreSQL, by operation, each under a deadline."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from feedsvc.datasets import PoolName
from feedsvc.errors import Busy
from feedsvc.faults import told
from feedsvc.observations import Observers, PoolLease, PoolState
from feedsvc.settings import Database, PoolSettings, Settings

Operation: TypeAlias = PoolName | Literal["write"]
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

Outcome: TypeAlias = Literal["leased", "busy", "failed", "left"]

logger = logging.getLogger(__name__)

SESSION: Final[Mapping[str, str]] = {
    # What a value's text depends on. Clients rely on it, so no role's or database's own default
    # may change it.
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # A plan made for one tenant can be ruinous for the next: each is planned with its values.
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    # If the service itself is gone, neither its queries nor its sessions may stay.
    "client_connection_check_interval": "1s",
    "idle_in_transaction_session_timeout": "60s",
    "default_transaction_read_only": "on",
    "row_security": "on",
}
"""The settings of every session."""


class _Connection(asyncpg.Connection):
    """asyncpg's reset leaves a `SET ROLE` standing; ours does not."""

    def get_reset_query(self) -> str:
        return "RESET ROLE; RESET SESSION AUTHORIZATION;\n" + super().get_reset_query()


async def connect(
    database: Database, *, application_name: str, timeout: float | None = None
) -> asyncpg.Connection:
    """A connection of its own, outside every pool. Raises what asyncpg raises."""
    return await asyncpg.connect(
        database.url.get_secret_value(),
        timeout=timeout or database.connect_timeout,
        server_settings={**SESSION, "application_name": application_name},
    )


class Pool:
    """A bounded number of connections, and who waits for one."""

    def __init__(
        self,
        name: Operation,
        settings: PoolSettings,
        database: Database,
        observers: Observers | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.observers = observers or Observers()
        self.release_timeout = database.release_timeout
        self._waiting = 0
        self.pressed = asyncio.Event()
        """Set while somebody waits, so that whoever could do without a connection gives it up."""
        self._pool: asyncpg.Pool = asyncpg.create_pool(
            database.url.get_secret_value(),
            min_size=0,
            max_size=settings.size,
            max_inactive_connection_lifetime=300.0,
            timeout=database.connect_timeout,
            command_timeout=settings.query_timeout,
            connection_class=_Connection,
            server_settings={**SESSION, "application_name": f"feedsvc {name}"},
        )

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
        return PoolState(self.settings.size, opened, opened - idle, self._waiting)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """A connection for as long as the block runs.

        Raises Busy if none came free in time, and what asyncpg raises if none could be made.
        """
        connection = await self._acquire()
        try:
            yield connection
        finally:
            await self._release(connection)

    async def _acquire(self) -> Connection:
        if self._pool.get_idle_size() or self._pool.get_size() < self.settings.size:
            return await self._acquire_in_time()
        self._waiting += 1
        self.pressed.set()
        try:
            return await self._acquire_in_time()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.pressed.clear()

    async def _acquire_in_time(self) -> Connection:
        began = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            connection = await self._pool.acquire(timeout=self.settings.acquire_timeout)
        except TimeoutError:
            outcome = "busy"
            raise Busy(f"No connection of the {self.name} pool came free in time.", 2) from None
        except asyncio.CancelledError:
            outcome = "left"
            raise
        else:
            outcome = "leased"
            return connection
        finally:
            self.observers.tell(PoolLease(self.name, outcome, time.perf_counter() - began))

    async def _release(self, connection: Connection) -> None:
        """Gives the connection back; one that does not answer any more is thrown away."""
        try:
            await self._pool.release(connection, timeout=self.release_timeout)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.warning("a connection of the %s pool was lost: %s", self.name, told(error))


class Pools:
    """Every pool by its name."""

    def __init__(self, settings: Settings, observers: Observers | None = None) -> None:
        sizes: Mapping[Operation, PoolSettings] = {
            "read": settings.pools.read,
            "bulk": settings.pools.bulk,
            "analytics": settings.pools.analytics,
            "write": settings.pools.write,
        }
        self._pools = {
            name: Pool(name, size, settings.database, observers) for name, size in sizes.items()
        }

    def __getitem__(self, name: Operation) -> Pool:
        return self._pools[name]

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
