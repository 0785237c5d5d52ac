"""Notifications of committed writes, received on a connection of their own.

The triggers of `feedsvc migrate` notify in the transaction that writes, and PostgreSQL delivers
what was committed, in the order of the commits. A beat, our own note to ourselves, comes back
behind everything that was sent before it. So a connection that is dead, or behind a pooler that
can't listen, is found out, and after a beat nothing from before it is still on its way.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, Final, NoReturn, Protocol

import asyncpg

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.servers import Servers
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.events import ListenerTurned, Observers
from feedsvc.core.logs import redacted
from feedsvc.settings import Database

logger = logging.getLogger(__name__)

CHANNEL: Final = "feedsvc_changes"
INTERVAL: Final = 1.0
"""Seconds between beats."""
DEADLINE: Final = 1.0
"""Seconds that a beat may take, and the beginning to listen."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LOOK_INTERVAL: Final = 30.0
_LOOK_DEADLINE: Final = 10.0

_BEAT: Final = (files("feedsvc.changes") / "listener.sql").read_text()


class ChangeSubscriber(Protocol):
    """A recipient of changes. No method may wait."""

    def on_connect(self, snapshot: Snapshot) -> None:
        """All changes follow from here on; those that this snapshot sees may have been missed."""
        ...

    def on_change(self, xid: int, items: Sequence[str]) -> None:
        """A committed transaction changed rows with these items of `datasets.tags`."""
        ...

    def on_heartbeat(self, snapshot: Snapshot) -> None:
        """Every change that this snapshot sees was passed on."""
        ...

    def on_disconnect(self) -> None:
        """No change is passed on any more, until `on_connect`."""
        ...


class ChangeListener:
    """Listens for one subscriber. `look` gets the connection at first, and every 30 s again."""

    def __init__(
        self,
        database: Database | Servers,
        subscriber: ChangeSubscriber,
        look: Callable[[asyncpg.Connection], Awaitable[None]],
        observers: Observers | None = None,
    ) -> None:
        self._database = database
        self._subscriber = subscriber
        self._look = look
        self._observers = observers or Observers()
        self._own = f"feedsvc_beat_{uuid.uuid4().hex}"
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()
        self._beats = 0
        self._note: asyncio.Future[None] | None = None
        self._next_look = 0.0
        self._present: asyncpg.Connection | None = None
        self._restarted = asyncio.Event()
        self._has_tried = False

    @property
    def is_beginning(self) -> bool:
        """Whether the first attempt to listen is not over yet."""
        return not self._has_tried

    async def run(self) -> None:
        """Listen until cancelled; after any error, begin anew."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with _connected(self._database) as connection:
                    self._present = connection
                    await self._begin(connection)
                    pause = _FIRST_PAUSE
                    await self._beat_until_it_fails(connection)
            except Exception as error:  # noqa: BLE001 - after any error, begin anew
                logger.warning("changes: not listening, so nothing is cached: %s", redacted(error))
            finally:
                self._has_tried = True
                self._present = None
                self._lost()
            pause = await self._rest(pause)

    async def catch_up(self) -> bool:
        """Wait until all changes that are committed now are passed on; false if not listening."""
        connection = self._connection
        if connection is None:
            return False
        try:
            self._subscriber.on_heartbeat(await self._beat(connection))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def restart(self) -> None:
        """Begin anew on another connection, at once. Until then nothing is passed on."""
        self._lost()
        self._restarted.set()
        if self._present is not None:
            self._present.terminate()

    async def _rest(self, pause: float) -> float:
        """Wait until it is time to begin anew; the next pause, in seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._restarted.wait()
        if not self._restarted.is_set():
            return min(pause * 2, _LONGEST_PAUSE)
        self._restarted.clear()
        return _FIRST_PAUSE

    async def _begin(self, connection: asyncpg.Connection) -> None:
        connection.add_termination_listener(self._lost)
        async with asyncio.timeout(DEADLINE):
            await connection.add_listener(CHANNEL, self._heard)
            await connection.add_listener(self._own, self._came_back)
        await self._look_around(connection)
        # Behind the look, so that nothing is missed that happened before what was looked at.
        self._subscriber.on_connect(await self._beat(connection))
        self._connection = connection
        self._has_tried = True
        self._observers.tell(ListenerTurned(hears=True))
        logger.info("changes: listening")

    async def _beat_until_it_fails(self, connection: asyncpg.Connection) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(INTERVAL)
            if loop.time() >= self._next_look:
                await self._look_around(connection)
            self._subscriber.on_heartbeat(await self._beat(connection))

    async def _look_around(self, connection: asyncpg.Connection) -> None:
        async with self._lock, asyncio.timeout(_LOOK_DEADLINE):
            await self._look(connection)
        self._next_look = asyncio.get_running_loop().time() + _LOOK_INTERVAL

    async def _beat(self, connection: asyncpg.Connection) -> Snapshot:
        """A snapshot of which every change is passed on. Raises what asyncpg raises."""
        async with self._lock, asyncio.timeout(DEADLINE):
            self._beats += 1
            self._note = asyncio.get_running_loop().create_future()
            snapshot: str = await connection.fetchval(_BEAT, self._own, str(self._beats))
            await self._note
            return Snapshot.parse(snapshot)

    def _came_back(self, *notification: Any) -> None:
        # That of a beat which was given up may still come, and says nothing of the present one.
        is_present = notification[-1] == str(self._beats)
        if is_present and self._note is not None and not self._note.done():
            self._note.set_result(None)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        xid, _, items = str(payload).partition(" ")
        if not xid.isdecimal():
            logger.error("changes: a notification is not of feedsvc's triggers")
            return
        self._subscriber.on_change(int(xid), items.split())

    def _lost(self, _connection: object = None) -> None:
        if self._connection is not None:
            self._observers.tell(ListenerTurned(hears=False))
        self._connection = None
        self._subscriber.on_disconnect()


@asynccontextmanager
async def _connected(database: Database | Servers) -> AsyncIterator[asyncpg.Connection]:
    connection = await pool.connect(database, application_name="feedsvc changes")
    try:
        yield connection
    finally:
        connection.terminate()
