"""A session of PostgreSQL: made with the service's settings, and read back whether it has them.

Behind a pooler settings of a session are not to be relied on: a transaction may be run on another
server connection than the last, where another client's settings stand. There each transaction gets
its settings itself (`PooledSession`).
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.asyncpg_internals import PortalNames, TransactionBound, fault
from feedsvc.backends.postgres.lineage import Origin
from feedsvc.settings.sections import Pooler

SETTINGS: Final[Mapping[str, str]] = {
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

_GREETING: Final = (files("feedsvc.backends.postgres") / "session.sql").read_text()
_WHICH: Final = "select pg_backend_pid()"
_UNNAMED: Final = ""
_LOST: Final = "a pooler keeps settings from PostgreSQL even within a transaction"
NOT_KEPT: Final = (
    "a pooler hands out another session for each transaction, so that no setting lasts: set"
    ' database.pooler to "transaction", let it pool sessions, or name PostgreSQL itself'
)
_TRIES: Final = 20
_CONNECTIONS: Final = 3  # of one session at most, each lost in its greeting but the last
# One for all: PgBouncer asks PostgreSQL for another name wherever a client's differs from the last
# client's, which is a round trip. Each transaction brings its own.
_POOLED_NAME: Final = {"application_name": "feedsvc"}
SPLIT: Final = (
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.ProtocolViolationError,
    asyncpg.QueryCanceledError,
)
"""Errors where parts of a question reached different server connections, or others' settings."""


class SessionRefusedError(ConnectionError):
    """The session can't be as the service needs it; the message names what to change."""


class Session(PortalNames):
    """A connection that knows its server. `restoring` is SQL behind a reset, where that is needed.

    asyncpg's own reset leaves a `SET ROLE` standing; this one does not.
    """

    origin: Origin | None = None
    started = 0.0
    """The time at which the server was started, by its own clock."""
    restoring = ""
    is_pooled = False
    """True if a pooler may give each transaction another server connection."""

    def get_reset_query(self) -> str:
        return self._own_reset() + self.restoring

    def _own_reset(self) -> str:
        return "RESET ROLE; RESET SESSION AUTHORIZATION;\n" + super().get_reset_query()


_READING: Final = "RESET ALL;SET LOCAL role TO DEFAULT;"
"""Undone by the rollback: others get back what they had set. No other SQL reaches settings without
a definition, as policies may ask for."""
_FOREIGN: Final = (
    "statement_timeout", "role", "search_path", "synchronous_commit", "transform_null_equals",
    "lc_monetary", "lc_numeric", "lc_time", "array_nulls", "backslash_quote",
    "standard_conforming_strings", "quote_all_identifiers", "default_text_search_config",
    "xmlbinary", "xmloption",
)  # fmt: skip
"""Settings that others may leave behind, and that are as the login has them where it writes."""
_TRANSACTION_TIMEOUT_SINCE: Final = 17
_COPY: Final = "; COPY (SELECT pg_catalog.row_to_json(r.*)::text FROM ({}) AS r) TO STDOUT;"


class PooledSession(TransactionBound, Session):
    """A connection to a pooler, of which nothing is to be relied on beyond a transaction.

    Every statement is run in a transaction, which begins with the service's settings, in one round
    trip. They end with it, so that the pooler's other clients find nothing of them. No statement
    has a name: names of several clients would clash on one server connection.
    """

    is_pooled = True  # asyncpg makes isinstance() true of every connection
    _reading = _writing = ""
    _only_reads = False

    def prepare_beginnings(self, settings: Mapping[str, str]) -> None:
        """Note the SQL behind each BEGIN."""
        own = {**settings, "client_encoding": "UTF8"}
        self._reading = _READING + _set_locally(own)
        foreign = [*_FOREIGN]
        if self.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
            foreign.append("transaction_timeout")
        reset = "".join(f"SET LOCAL {name} TO DEFAULT;" for name in foreign if name not in own)
        self._writing = reset + _set_locally(own)

    def get_reset_query(self) -> str:
        """No SQL: a reset would reach a server connection that others use."""
        return ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """See `asyncpg.Connection.execute`. A transaction that only reads is always rolled back."""
        if query.startswith("BEGIN"):
            return await self._begin(query, timeout)
        if query == "COMMIT;" and self._only_reads:
            query = "ROLLBACK;"
        if self.is_in_transaction():
            return await super().execute(query, *args, timeout=timeout)
        async with self.alone():
            return await super().execute(query, *args, timeout=timeout)

    async def rows_at_once(
        self, query: str, lock: str, *, timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a query without parameters, as JSON has them, in one round trip.

        Nothing is prepared, and the settings are in the same message. `lock` is a statement in
        front: COPY takes its snapshot before its own locks. Raises what asyncpg raises.
        """
        begin = _begun("BEGIN READ ONLY") + self._reading
        script = begin + lock + _COPY.format(query) + "ROLLBACK;"
        for left in reversed(range(_TRIES)):
            try:
                made = await self._copied(script, timeout)
                break
            except asyncpg.QueryCanceledError:
                if not left:
                    raise
            finally:
                await self._leave(timeout)
        # In COPY's text format a backslash is two, and JSON has no other character that it escapes.
        return [json.loads(line.replace(b"\\\\", b"\\")) for line in made.splitlines()]

    async def _begin(self, query: str, timeout: float | None) -> str:
        """Begin; again where another client's `statement_timeout` was over before it was reset."""
        begin, _, more = query.partition(";")
        self._only_reads = "READ ONLY" in begin
        query = _begun(begin) + (self._reading if self._only_reads else self._writing) + more
        for _ in range(_TRIES - 1):
            try:
                return await super().execute(query, timeout=timeout)
            except asyncpg.QueryCanceledError:
                if more.strip():
                    raise  # it may be of what follows
                await self._leave(timeout)
        return await super().execute(query, timeout=timeout)

    async def _leave(self, timeout: float | None) -> None:
        """Leave a transaction that failed, if there is one.

        The other client's `statement_timeout` counts in it again, for ROLLBACK, too.
        """
        for left in reversed(range(_TRIES)):
            if not self.is_in_transaction() or self.is_closed():
                return
            try:
                await super().execute("ROLLBACK;", timeout=timeout)
            except asyncpg.QueryCanceledError:
                if not left:
                    raise


def _begun(begin: str) -> str:
    """A BEGIN that depends on no default of the session."""
    if "ISOLATION LEVEL" not in begin:
        begin += " ISOLATION LEVEL READ COMMITTED"
    return f"{begin};" if "READ ONLY" in begin or "READ WRITE" in begin else f"{begin} READ ONLY;"


def _set_locally(settings: Mapping[str, str]) -> str:
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "".join(f"SET LOCAL {name} TO '{value}';" for name, value in quoted.items())


async def open_session(
    url: str, settings: Mapping[str, str], pooler: Pooler = "auto", **given: Any
) -> Session:
    """A session on the server of this URL, greeted. Raises SessionRefusedError and asyncpg's own.

    `given` is for `asyncpg.connect`. Where the connection is lost in the greeting, as where a
    pooler parts with a client because its own SET fails, another one is made, twice at most.
    """
    for _ in range(_CONNECTIONS - 1):
        with suppress(asyncpg.ConnectionDoesNotExistError):
            return await _open(url, settings, pooler, given)
    return await _open(url, settings, pooler, given)


async def _open(
    url: str, settings: Mapping[str, str], pooler: Pooler, given: Mapping[str, Any]
) -> Session:
    if pooler != "transaction":
        session = await _open_direct(url, settings, pooler, given)
        if session is not None:
            return session
    if (lacking := fault()) is not None:  # and a statement might be sent without the settings
        raise SessionRefusedError(lacking)
    given = {**given, "connection_class": PooledSession, "statement_cache_size": 0}
    pooled: PooledSession = await asyncpg.connect(url, server_settings=_POOLED_NAME, **given)
    async with _cut_on_error(pooled):
        pooled.prepare_beginnings(settings)
        row = await _greet(pooled, settings)
        if row["lacking"]:
            raise SessionRefusedError(_LOST)
    return pooled


async def _open_direct(
    url: str, settings: Mapping[str, str], pooler: Pooler, given: Mapping[str, Any]
) -> Session | None:
    """A session whose settings last; None where a pooler stands between and may give it another."""
    given = {**given, "connection_class": Session}
    session: Session
    try:
        session = await asyncpg.connect(url, server_settings=dict(settings), **given)
    except asyncpg.ProtocolViolationError:
        # PgBouncer's answer to a parameter that it does not know.
        if pooler == "auto":
            return None
        name = {"application_name": settings["application_name"]}
        session = await asyncpg.connect(url, server_settings=name, **given)
    async with _cut_on_error(session):
        try:
            row = await _greet(session, settings, always=pooler == "session")
        except SPLIT:
            if pooler == "session":
                raise
            session.terminate()
            return None
        if row["pooled"] and pooler == "auto":
            await session.close(timeout=1.0)
            return None
        if row["lacking"]:
            session.restoring = "\n" + "".join(
                f"SET {name} TO '{settings[name]}';" for name in row["lacking"]
            )
            if (await _greet(session, settings, always=True))["lacking"]:
                raise SessionRefusedError(NOT_KEPT)
    return session


@asynccontextmanager
async def _cut_on_error(session: Session) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        session.terminate()
        raise


async def _greet(
    session: Session, settings: Mapping[str, str], *, always: bool = False
) -> asyncpg.Record:
    """Note whose session it is, and see to it that it has its settings; the answer to that.

    Behind a pooler they are set for good only if `always`. In one transaction, and without a name,
    for a pooler may stand between that is not known of yet.
    """
    asked = [*settings], [*settings.values()], session.get_server_pid(), always
    async with session.transaction():
        statement = await session.prepare(_GREETING, name=_UNNAMED)
        row = await statement.fetchrow(*asked)
    if row is None:
        raise SessionRefusedError("PostgreSQL did not answer the first question")
    timeline = row["timeline_id"]
    session.origin = Origin(
        row["cluster"], row["database"], None if timeline is None else int(timeline, 16)
    )
    session.started = row["started"]
    return row


def is_pooled(connection: object) -> bool:
    """Return whether nothing of this session is to be relied on beyond a transaction."""
    return getattr(connection, "is_pooled", False) is True


async def is_direct(session: asyncpg.Connection) -> bool:
    """Return whether no pooler stands between: PostgreSQL knows the session by the same number."""
    try:
        return bool(await session.fetchval(_WHICH) == session.get_server_pid())
    except SPLIT:
        return False


async def is_pooled_by_transaction(session: asyncpg.Connection, other: asyncpg.Connection) -> bool:
    """Return whether two sessions, open at the same time, were seen to share one of PostgreSQL's.

    Where a pooler gave them different ones, its mode is not known for sure.
    """
    try:
        first = await session.fetchval(_WHICH)
        for _ in range(_TRIES):  # others may have taken the server connection in between
            if await other.fetchval(_WHICH) == first or await session.fetchval(_WHICH) != first:
                return True
    except SPLIT:
        return True
    return False


def origin_of(connection: object) -> Origin | None:
    """The server and database of a connection, also where a pool has wrapped it."""
    origin = getattr(connection, "origin", None)
    return origin if isinstance(origin, Origin) else None
