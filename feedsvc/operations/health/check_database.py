"""Checks of PostgreSQL and its standbys."""

import asyncio
from importlib.resources import files
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.lineage import OldPrimaryError
from feedsvc.backends.postgres.servers import Host
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Unavailable
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.primary import PrimaryRow
from feedsvc.operations.health.result import CheckResult

_INDEXES: Final = (files("feedsvc.operations.health") / "indexes.sql").read_text()
_LOCKS: Final = (files("feedsvc.operations.health") / "locks.sql").read_text()
_STATISTICS: Final = (files("feedsvc.operations.health") / "statistics.sql").read_text()
_SLOW: Final = 0.25  # seconds
_DEADLINE: Final = 0.7  # seconds
_MOST_NAMED: Final = 5
_LONG_LOCK: Final = 1.0  # seconds
_MOST_LOCKS: Final = 50

SILENCE: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Unavailable)
"""The errors of a query where PostgreSQL is of no use."""


async def primary(parts: HealthContext) -> CheckResult:
    """Check that PostgreSQL answers, in time, and as the primary."""
    try:
        answer = await parts.primary.answer()
    except asyncpg.TooManyConnectionsError:
        what = "PostgreSQL takes no more connections."
        return CheckResult("down", what, repairs=("sessions",))
    except OldPrimaryError as error:
        return CheckResult("down", f"PostgreSQL is not read from: {error}.")
    except SILENCE as error:
        return CheckResult("down", f"PostgreSQL does not answer ({redacted(error)}).")
    version, took = answer.row["version"], round(answer.took * 1e3, 1)
    figures: dict[str, Any] = {"version": version, "answer_ms": took}
    if answer.row["standby"]:
        return CheckResult(
            "down", "database.url leads to a standby: nothing can be written.", figures
        )
    return _of_two(parts, figures) or _of_one(answer, figures)


def _of_two(parts: HealthContext, figures: dict[str, Any]) -> CheckResult | None:
    """The result where an old primary came back."""
    primaries = parts.pools.servers.primaries()
    if len(primaries) < 2:
        return None
    present, *others = map(_on_timeline, primaries)
    figures["primaries"] = [host.name for host in primaries]
    what = f"There are two primaries: {present} is read from, and not {', '.join(others)}."
    return CheckResult("degraded", what, figures)


def _of_one(answer: PrimaryRow, figures: dict[str, Any]) -> CheckResult:
    version, took = figures["version"], figures["answer_ms"]
    if answer.took > _SLOW:
        return CheckResult("degraded", f"PostgreSQL {version} answers, in {took} ms.", figures)
    return CheckResult("ok", f"PostgreSQL {version} answers.", figures)


async def connections(parts: HealthContext) -> CheckResult:
    """Check that as many connections are left as the pools may still open."""
    answer = await _answer(parts)
    if isinstance(answer, CheckResult):
        return answer
    row = answer.row
    free = row["most_connections"] - row["connections"]
    if row["most_own"] >= 0:
        free = min(free, row["most_own"] - row["own"])
    wanted = sum(pool.settings.size - pool.open_connections for pool in parts.pools.all())
    figures = {"free": free, "most": row["most_connections"], "in_use": row["connections"]}
    figures |= {"own": row["own"], "may_still_open": wanted}
    if free <= 0:
        return CheckResult("down", "No connection is left.", figures, ("sessions",))
    if free < wanted:
        what = f"{free} connections are left, and this process may still open {wanted}."
        return CheckResult("degraded", what, figures, ("sessions",))
    return CheckResult("ok", f"{free} connections are left.", figures)


async def transactions(parts: HealthContext) -> CheckResult:
    """Check that no transaction has run for so long that it holds back vacuum, or locks."""
    answer = await _answer(parts)
    if isinstance(answer, CheckResult):
        return answer
    row = answer.row
    ages = {
        "has written and not ended": parts.primary.oldest_writer_age(),
        "was begun": row["longest_seen"],
        "is prepared": row["longest_prepared"],
    }
    known = {how: age for how, age in ages.items() if age is not None}
    if not known:
        return CheckResult("ok", "No transaction is open.", {"oldest_s": 0})
    how, age = max(known.items(), key=lambda item: item[1])
    figures = {"oldest_s": round(age, 1), "oldest_writer": row["oldest_writer"]}
    if age > parts.settings.health.oldest_transaction:
        return CheckResult(
            "degraded", f"A transaction {how} for {age:.0f} s.", figures, ("sessions",)
        )
    return CheckResult("ok", f"The oldest transaction {how} for {age:.1f} s.", figures)


async def replicas(parts: HealthContext) -> CheckResult:
    """Check that every standby can be read from."""
    everyone = parts.replicas.all
    if not everyone:
        return CheckResult("ok", "No standbys are set up.")
    figures = {r.name: {"state": r.state, "lag_ms": _ms(r.lag)} for r in everyone}
    out = [replica for replica in everyone if not replica.is_usable]
    if not out:
        return CheckResult("ok", f"All {len(everyone)} standbys are read from.", figures)
    named = "; ".join(f"{r.name}: {r.fault or 'no answer lately'}" for r in out)
    return CheckResult("degraded", f"The primary stands in, for {named}.", figures, ("breakers",))


async def locks(parts: HealthContext) -> CheckResult:
    """Check that no session of the service waits for another session's lock."""
    try:
        rows = [dict(row) for row in await _fetched(parts, _LOCKS)]
    except SILENCE:
        return _not_known()
    held_up = [row for row in rows if row["seconds"] >= _LONG_LOCK]
    for row in rows:
        row["seconds"] = round(row["seconds"], 1)
    figures = {"waits": rows[:_MOST_LOCKS]}
    if not held_up:
        return CheckResult("ok", "No request waits for a lock.", figures)
    named = "; ".join(
        f"session {row['waiting']} waits for session {row['blocking']}"
        f" ({row['relation'] or 'a transaction'}, {row['wanted']} against"
        f" {row['held'] or 'what is ahead of it'}) for {row['seconds']:.1f} s"
        for row in held_up[:_MOST_NAMED]
    )
    return CheckResult("degraded", f"Locks hold up requests: {named}.", figures)


async def indexes(parts: HealthContext) -> CheckResult:
    """Check that no index of a table that is read is invalid."""
    try:
        rows = await _fetched(parts, _INDEXES)
    except SILENCE:
        return _not_known()
    broken = [row["name"] for row in rows if not row["at_work"]]
    at_work = len(rows) - len(broken)
    figures = {"invalid": broken, "being_built": at_work}
    if broken:
        what = f"{len(broken)} indexes are invalid: {_named(broken)}."
        return CheckResult("degraded", what, figures, ("indexes",))
    if at_work:
        return CheckResult("ok", f"{at_work} indexes are being built.", figures)
    return CheckResult("ok", "Every index is valid.", figures)


async def statistics(parts: HealthContext) -> CheckResult:
    """Check the age of the planner's statistics of the tables that are read."""
    try:
        rows = await _fetched(parts, _STATISTICS)
    except SILENCE:
        return _not_known()
    names = [row["name"] for row in rows]
    if names:
        what = f"The planner knows too little of {len(names)} tables: {_named(names)}."
        return CheckResult("degraded", what, {"tables": names}, ("statistics",))
    return CheckResult("ok", "The planner's statistics are fresh enough.", {"tables": []})


async def clock(parts: HealthContext) -> CheckResult:
    """Check that this machine's clock agrees with PostgreSQL's, and was not set just now."""
    bound, stepped = parts.settings.health.clock_offset, parts.clock.stepped()
    step = {"stepped_s": round(stepped, 3)}
    if stepped:
        what = f"This machine's clock was set by {stepped:+.1f} s within the last minute."
        return CheckResult("degraded", what, step)
    try:
        answer = await parts.primary.answer()
    except SILENCE:
        return _not_known()
    # PostgreSQL looked at its clock at some moment of the question's way.
    offset = answer.row["clock"] - (answer.asked + answer.took / 2)
    figures = {**step, "offset_s": round(offset, 3), "uncertain_s": round(answer.took / 2, 3)}
    apart = abs(offset) - answer.took / 2
    if apart > bound:
        far = apart > 60 * bound
        what = f"This machine's clock and PostgreSQL's are {abs(offset):.1f} s apart."
        return CheckResult("down" if far else "degraded", what, figures)
    return CheckResult("ok", "This machine's clock and PostgreSQL's agree.", figures)


def _on_timeline(host: Host) -> str:
    timeline = None if host.origin is None else host.origin.timeline
    return f"{host.name} (timeline {timeline})"


async def _answer(parts: HealthContext) -> PrimaryRow | CheckResult:
    try:
        return await parts.primary.answer()
    except SILENCE:
        return _not_known()


async def _fetched(parts: HealthContext, sql: str) -> list[asyncpg.Record]:
    """The rows of a slow query, on a connection that others need as well."""
    async with asyncio.timeout(_DEADLINE), parts.pools["write"].lease() as connection:
        return await connection.fetch(sql)


def _not_known() -> CheckResult:
    return CheckResult("degraded", "Unknown: PostgreSQL does not answer.")


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e3)
