"""The servers that `database.url` names: which of them is the primary, and which was one.

Each of several hosts is asked once a second for its identity. The primary of the highest timeline
that was seen is read from. What is connected to one of a lower timeline is cut, and no connection
to it is made: neither here nor by a pool, the listener or a check, for all of them connect through
this.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs, urlencode, urlsplit
from weakref import WeakSet

import asyncpg

from feedsvc.backends.postgres.lineage import Lineage, OldPrimaryError, Origin
from feedsvc.backends.postgres.sessions import (
    SETTINGS,
    Session,
    SessionRefusedError,
    open_session,
    origin_of,
)
from feedsvc.core.logs import redacted
from feedsvc.settings import Database
from feedsvc.settings.sections import Pooler

logger = logging.getLogger(__name__)

_INTERVAL: Final = 1.0  # seconds
_DEADLINE: Final = 1.0  # seconds
_REMEMBERED: Final = 5.0  # seconds for which a look counts
_FAULTS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_IS_STANDBY: Final = "select pg_is_in_recovery()"


class Host:
    """One server of the URL, and how it was when it was last looked at."""

    def __init__(self, url: str, pooler: Pooler = "auto") -> None:
        self.url = url
        self._pooler: Pooler = pooler
        parts = urlsplit(url)
        self.name = f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else "the server"
        self.origin: Origin | None = None
        self.started = 0.0
        self._seen_at = -float("inf")
        self._session: Session | None = None

    @property
    def is_primary(self) -> bool:
        """Return whether it was one lately."""
        lately = time.monotonic() - self._seen_at <= _REMEMBERED
        return lately and self.origin is not None and self.origin.timeline is not None

    @property
    def _was_standby(self) -> bool:
        return self.origin is not None and self.origin.timeline is None

    async def connect(self, settings: Mapping[str, str], **given: Any) -> Session:
        """A session on it. See `open_session`."""
        session = await open_session(self.url, settings, self._pooler, **given)
        if session.is_pooled and self._pooler == "auto":
            self._pooler = "transaction"
            logger.info("host %s: a pooler; each transaction brings its settings", self.name)
        return session

    async def look(self) -> None:
        """Ask for its identity. Raises nothing but a cancellation."""
        try:
            async with asyncio.timeout(_DEADLINE):
                if self._session is None or self._session.is_closed():
                    settings = {**SETTINGS, "application_name": "feedsvc hosts"}
                    self._session = await self.connect(settings)
                elif await self._session.fetchval(_IS_STANDBY) is not self._was_standby:
                    self.close()  # it was promoted: the next look tells to which timeline
                    return
                self.origin, self.started = self._session.origin, self._session.started
                self._seen_at = time.monotonic()
        except _FAULTS as error:
            logger.debug("host %s: %s", self.name, redacted(error))
            self.origin = None
            self.close()

    def close(self) -> None:
        """End the connection for these questions."""
        session, self._session = self._session, None
        if session is not None:
            session.terminate()


class Servers:
    """Those of one URL. `folder` is shared by the workers of a service."""

    def __init__(self, database: Database, folder: Path | None = None) -> None:
        self.database = database
        self.lineage = Lineage(folder)
        url = database.url.get_secret_value()
        self.hosts = [Host(each, database.pooler) for each in each_host(url)]
        self._timeout = database.connect_timeout
        self._sessions: WeakSet[Session] = WeakSet()
        self._has_looked = False
        self._last: Host | None = None
        self._attributes: Mapping[str, Any] = {}
        if len(self.hosts) > 1 and "target_session_attrs" not in parse_qs(urlsplit(url).query):
            self._attributes = {"target_session_attrs": "primary"}

    @property
    def are_several(self) -> bool:
        """Return whether they have to be looked at."""
        return len(self.hosts) > 1

    async def connect(
        self, settings: Mapping[str, str], *, timeout: float | None = None, **given: Any
    ) -> Session:
        """A session on the primary, with these settings beside the common ones; `given`: asyncpg's.

        Raises OldPrimaryError, SessionRefusedError and what asyncpg raises.
        """
        self.lineage.catch_up()
        async with asyncio.timeout(timeout or self._timeout):
            if self.are_several and not self._has_looked:
                await self._look_once()
            faults: list[Exception] = []
            for host in sorted(self.hosts, key=self._rank):
                try:
                    session = await self._on(host, {**SETTINGS, **settings}, **given)
                except (*_FAULTS, ValueError) as error:
                    faults.append(error)
                else:
                    self._last = host
                    return session
        raise _worst(faults)

    def check(self, connection: object, timeline: int | None) -> Origin | None:
        """The life that a transaction on this connection is in. Raises OldPrimaryError."""
        made = origin_of(connection)
        if made is None:
            return None
        present = made._replace(timeline=timeline)
        self._note(present)
        return present

    async def run(self) -> NoReturn:
        """Check all of them until cancelled."""
        try:
            while True:
                await asyncio.sleep(_INTERVAL)
                await self.look()
        finally:
            for host in self.hosts:
                host.close()

    async def look(self) -> None:
        """Ask each of them for its identity, and cut connections to an old primary."""
        await asyncio.gather(*(host.look() for host in self.hosts))
        self._has_looked = True
        self.lineage.catch_up()
        for host in self.primaries():
            try:
                self._note(host.origin)
            except OldPrimaryError as error:
                logger.warning("host %s: %s", host.name, error)
        self._cut()

    async def _look_once(self) -> None:
        try:
            await self.look()
        finally:
            for host in self.hosts:
                host.close()

    def primaries(self) -> list[Host]:
        """The hosts that are primaries, the newest first; a server with two names counts once."""
        found = {(host.origin, host.started): host for host in self.hosts if host.is_primary}
        return sorted(found.values(), key=self._rank)

    async def _on(self, host: Host, settings: Mapping[str, str], **given: Any) -> Session:
        session = await host.connect(settings, **{**self._attributes, **given})
        try:
            self._note(session.origin)
        except OldPrimaryError:
            session.terminate()
            raise
        self._sessions.add(session)
        return session

    def _note(self, origin: Origin | None) -> None:
        if origin is not None and self.lineage.check(origin):
            self._cut()

    def _cut(self) -> None:
        for session in list(self._sessions):
            if session.origin is not None and self.lineage.is_past(session.origin):
                session.terminate()

    def _rank(self, host: Host) -> tuple[int, bool]:
        """The order of attempts: a primary that is not past, one not known, one that is past."""
        if not host.is_primary or host.origin is None:
            kind = 1
        else:
            kind = 2 if self.lineage.is_past(host.origin) else 0
        return kind, host is not self._last


def servers_of(database: "Database | Servers") -> Servers:
    """The known lineage of the servers, or a new one."""
    return database if isinstance(database, Servers) else Servers(database)


def each_host(url: str) -> list[str]:
    """A URL for each of the hosts that a URL names."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," in hosts:
        return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]
    asked = parse_qs(parts.query)
    named = asked.get("host", [""])[-1].split(",")
    ports = asked.get("port", [""])[-1].split(",")
    if len(named) == 1:
        return [url]
    return [
        parts._replace(
            query=urlencode(
                {**asked, "host": [name], "port": [ports[n if len(ports) > 1 else 0] or "5432"]},
                doseq=True,
            )
        ).geturl()
        for n, name in enumerate(named)
    ]


def _worst(faults: list[Exception]) -> Exception:
    """The most telling reason: that a server is there and may not be read from."""
    telling = (OldPrimaryError, SessionRefusedError)
    return next((fault for fault in faults if isinstance(fault, telling)), faults[-1])
