"""Repairs of what a worker has: connections, the log's reader, breakers, sessions left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.backends.postgres import pool as pools
from feedsvc.backends.postgres.pool import AnyConnection, Pool, cut, is_lost
from feedsvc.backends.redis.link import RedisAwayError, RedisLink
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import RepairResult

_SESSIONS: Final = (files("feedsvc.operations.health") / "sessions.sql").read_text()
_OURS: Final = "select pid from pg_stat_activity where usename = current_user"
_TERMINATE: Final = "select count(*) from unnest($1::int[]) p (pid) where pg_terminate_backend(pid)"
_PATIENCE: Final = 2.0  # seconds
_TICK: Final = 0.05
# Twice as long as a pool, or PostgreSQL itself, would have let one be.
_MARGIN: Final = 2.0
IDLE_IN_TRANSACTION: Final = 60.0  # seconds; `idle_in_transaction_session_timeout` of `pools`
_SILENCE: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
GRACE: Final = 10.0  # seconds that a cancelled query gets to end


async def connections(parts: HealthContext, dry: bool) -> RepairResult:
    """End the idle connections of every pool, and leased ones without a session in PostgreSQL.

    Idle ones may be dead without a word, behind a firewall that forgot them; they are made anew
    when they are next needed. A leased one is left alone as long as the server has its session.
    """
    # Before the question: what is made after it can't be in its answer.
    given = [c for pool in parts.pools.all() for c in pool.leases.values() if not is_lost(c)]
    leased = {_pid(connection): connection for connection in given}
    try:
        async with _connected(parts) as (connection, there):
            known = {row["pid"] for row in await connection.fetch(_OURS)} if there else None
    except _SILENCE:
        known = None
    # Behind it: a lease may have ended meanwhile, and what was idle may be in use.
    missing = [] if known is None else [c for pid, c in leased.items() if pid not in known]
    lost = [connection for connection in missing if not is_lost(connection)]
    idle = [connection for pool in _pools(parts) for connection in pool.idle()]
    beside = "" if known is not None else "; which of those in use are lost is unknown"
    if not idle and not lost:
        return RepairResult("nothing", f"No connection is idle, and none is lost{beside}.")
    what = f"{len(idle)} idle connections and {len(lost)} lost ones{beside}."
    if dry:
        return RepairResult("would", f"Would end {what}")
    for unused in idle:
        cut(unused)
    for taken in lost:
        cut(taken)
    return RepairResult("done", f"Ended {what}")


async def log_reader(parts: HealthContext, dry: bool) -> RepairResult:
    """Read the change log on a new connection."""
    if not parts.settings.cache.enabled:
        return RepairResult("nothing", "Nothing is cached, so the change log is not read for it.")
    if dry:
        state = "is read" if parts.changes.is_reading else "can't be read"
        what = f"The change log {state}; would end the reader's connection and make another."
        return RepairResult("would", what)
    parts.changes.restart()
    if await _soon(lambda: parts.changes.is_reading):
        return RepairResult("done", "The change log is read on a new connection.")
    return RepairResult("failed", "The change log can't be read yet; its reader goes on trying.")


async def breakers(parts: HealthContext, dry: bool) -> RepairResult:
    """Ask Redis and the standbys at once, without the pause after a fault."""
    if dry:
        return RepairResult("would", "Would ask Redis and every standby at once.")
    found = []
    if parts.link is not None:
        parts.link.retry()
        answers = await _soon_answers(parts.link)
        found.append(f"Redis {'answers' if answers else 'does not answer'}")
    if parts.replicas.all:
        await parts.replicas.look()
        usable = sum(replica.is_usable for replica in parts.replicas.all)
        found.append(f"{usable} of {len(parts.replicas.all)} standbys can be read from")
    if not found:
        return RepairResult("nothing", "There is neither a Redis nor a standby.")
    return RepairResult("done", f"{'; '.join(found)}.")


async def sessions(parts: HealthContext, dry: bool) -> RepairResult:
    """End sessions of the service's login that no living feedsvc can still be using."""
    async with _connected(parts) as (connection, there):
        if not there:
            return RepairResult("refused", "A pooler stands between, whose sessions are its own.")
        rows = await connection.fetch(_SESSIONS, *_left_behind(parts))
        if not rows:
            return RepairResult("nothing", "No session of the service's login is left behind.")
        named = ", ".join(
            f"{row['pid']} ({row['application_name']}, {row['state']} for {row['seconds']:.0f} s)"
            for row in rows
        )
        if dry:
            return RepairResult("would", f"Would end {len(rows)} sessions: {named}.")
        ended = await connection.fetchval(_TERMINATE, [row["pid"] for row in rows])
    return RepairResult("done", f"Ended {ended} sessions: {named}.")


def _pools(parts: HealthContext) -> Iterator[Pool]:
    yield from parts.pools.all()
    for replica in parts.replicas.all:
        yield from replica.pools.values()


@asynccontextmanager
async def _connected(parts: HealthContext) -> AsyncIterator[tuple[asyncpg.Connection, bool]]:
    """A new connection, for those that there are may be the trouble.

    And whether a session's number on it is the server's own: a pooler makes up others.
    """
    name = "feedsvc repair"
    async with asyncio.timeout(_PATIENCE):
        connection = await pools.connect(parts.pools.servers, application_name=name)
    try:
        async with asyncio.timeout(_PATIENCE):
            pid = await connection.fetchval("select pg_backend_pid()")
            yield connection, pid == connection.get_server_pid()
    finally:
        connection.terminate()


def _left_behind(parts: HealthContext) -> tuple[list[str], float, float, float, list[int]]:
    given = list(parts.pools.all())
    leased = [c for pool in given for c in pool.leases.values() if not is_lost(c)]
    ours = [_pid(c) for c in leased] + [_pid(c) for pool in given for c in pool.idle()]
    idle = max(pool.settings.idle_timeout for pool in given)
    query = max(pool.settings.query_timeout for pool in given)
    names = [pool.application_name for pool in given]
    besides = ("probe", "changes", "health", "hosts", "replica", "repair")
    names += [f"feedsvc {what}" for what in besides]
    return names, _MARGIN * idle, _MARGIN * IDLE_IN_TRANSACTION, _MARGIN * query + GRACE, ours


def _pid(connection: AnyConnection) -> int:
    return int(connection.get_server_pid())


async def _soon(condition: Callable[[], bool]) -> bool:
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        if condition():
            return True
        await asyncio.sleep(_TICK)
    return False


async def _soon_answers(link: RedisLink) -> bool:
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        try:
            await link.ping()
        except RedisAwayError:
            await asyncio.sleep(_TICK)
        else:
            return True
    return False
