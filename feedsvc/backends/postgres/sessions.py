"""A session of PostgreSQL: made with the service's settings, and read back whether it has them.

A pooler may swallow settings that stand in the startup packet (PgBouncer's
`ignore_startup_parameters`), or refuse them. They are set by SQL then, also when a pooled
connection is reset. Where even that does not last, the session is refused.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.asyncpg_internals import PortalNames
from feedsvc.backends.postgres.lineage import Origin

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
POOLED_BY_TRANSACTION: Final = (
    "a pooler hands out another session for each transaction (PgBouncer's pool_mode = transaction"
    " or statement), so that no setting lasts: let it pool sessions, or name PostgreSQL itself"
)


class SessionRefusedError(ConnectionError):
    """The session can't be as the service needs it; the message names what to change."""


class Session(PortalNames):
    """A connection that knows its server. `restoring` is SQL behind a reset, where that is needed.

    asyncpg's own reset leaves a `SET ROLE` standing; this one does not.
    """

    origin: Origin | None = None
    started = 0.0
    """When the server was started, by its own clock."""
    restoring = ""

    def get_reset_query(self) -> str:
        return self._own_reset() + self.restoring

    def _own_reset(self) -> str:
        return "RESET ROLE; RESET SESSION AUTHORIZATION;\n" + super().get_reset_query()


async def open_session(url: str, settings: Mapping[str, str], **given: Any) -> Session:
    """A session on the server of this URL, greeted. Raises SessionRefusedError and asyncpg's own.

    `given` is for `asyncpg.connect`.
    """
    given = {**given, "connection_class": Session}
    session: Session
    try:
        session = await asyncpg.connect(url, server_settings=dict(settings), **given)
    except asyncpg.ProtocolViolationError:
        # PgBouncer's answer to a parameter that it does not know.
        name = {"application_name": settings["application_name"]}
        session = await asyncpg.connect(url, server_settings=name, **given)
    try:
        await _greet(session, settings)
    except BaseException:
        session.terminate()
        raise
    return session


async def _greet(session: Session, settings: Mapping[str, str]) -> None:
    """Note the session's server, and apply its settings."""
    asked = [*settings], [*settings.values()]
    try:
        row = await session.fetchrow(_GREETING, *asked)
        if row is not None and row["lacking"]:
            session.restoring = "\n" + "".join(
                f"SET {name} TO '{settings[name]}';" for name in row["lacking"]
            )
            row = await session.fetchrow(_GREETING, *asked)
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError):
        raise SessionRefusedError(POOLED_BY_TRANSACTION) from None
    if row is None or row["lacking"]:
        raise SessionRefusedError(POOLED_BY_TRANSACTION)
    timeline = row["timeline_id"]
    session.origin = Origin(
        row["cluster"], row["database"], None if timeline is None else int(timeline, 16)
    )
    session.started = row["started"]


def origin_of(connection: object) -> Origin | None:
    """Which server's and database's connection it is, also where a pool has wrapped it."""
    origin = getattr(connection, "origin", None)
    return origin if isinstance(origin, Origin) else None
