"""The triggers of the operator's tables that write the change log, from the datasets file."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.changes.log_plan import Asked, LogPlan, install_log, log_drift, log_plan
from feedsvc.changes.log_rules import Seeds
from feedsvc.changes.log_triggers import one_line
from feedsvc.changes.refreshes import RefreshPlan, install_refreshes, refresh_plan
from feedsvc.datasets.dataset import Declaration, declarations, relation_parts
from feedsvc.datasets.resolution import resolved

_REACHED: Final = (files("feedsvc.changes") / "triggers.sql").read_text()
_REMOVE_NOTIFYING: Final = (files("feedsvc.changes") / "remove_notifying.sql").read_text()
_NOTIFYING: Final = (
    "SELECT EXISTS (SELECT FROM pg_proc WHERE proname LIKE 'told\\_%'"
    " AND pronamespace = to_regnamespace('feedsvc'))"
)
_END_LISTENERS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'feedsvc changes' AND datname = current_database()"
)
_TABLE_KINDS: Final = ("r", "p")
_LOCK_TIMEOUT: Final = "10s"
NO_LOG: Final = "this database has no change log; run `feedsvc migrate up`"


class NoLogError(Exception):
    """The database has no change log yet; the message says what to run."""


@dataclass(frozen=True, slots=True)
class TriggerPlan:
    """The triggers that the datasets call for, and the cached datasets for which none will do."""

    log: LogPlan = field(default_factory=LogPlan)
    refreshes: RefreshPlan = field(default_factory=RefreshPlan)
    impossible: Mapping[str, str] = field(default_factory=dict)
    cached: frozenset[str] = frozenset()
    state: str = ""
    """A digest of the policies, the views, the parts and the triggers as they are."""

    def sql(self) -> str:
        """A script that makes them all, to be read and run by the tables' owner."""
        lines = ["-- Triggers that write the change log, for the tables' owner to run. "
                 "It can be run again.", "BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';",
                 _REMOVE_NOTIFYING]  # fmt: skip
        lines += [f"{statement};" for statement in self.log.statements()]
        lines += [f"{statement};" for statement in self.refreshes.statements()]
        lines += [f"\n-- {n}: not cached: {one_line(why)}" for n, why in self.impossible.items()]
        return "\n".join([*lines, "COMMIT;", ""])


async def plan(connection: asyncpg.Connection, declared: Mapping[str, Declaration]) -> TriggerPlan:
    """The triggers that the datasets need. Raises what asyncpg raises."""
    complete, _ = await resolved(connection, declared)
    asked = [Asked(name, d, d.relation_parts(), own=True) for name, d in complete.items()]
    asked += [
        Asked(name, declaration, relation_parts(watched), own=False)
        for name, declaration in complete.items()
        for watched in declaration.watch
    ]
    schemas, names = ([one.place[part] for one in asked] for part in (0, 1))
    rows = await connection.fetch(_REACHED, schemas, names)
    seeds = await Seeds.read(connection)
    log = log_plan(asked, rows, seeds)
    impossible = {
        name: f"there is no {d.relation}, or it has no key"
        for name, d in declared.items()
        if name not in complete
    }
    for row in rows:
        one = asked[row["ordinal"] - 1]
        why = _impossible(one, row)
        if why is not None:
            impossible[one.name] = why
    found = {row["ordinal"] for row in rows}
    for ordinal, one in enumerate(asked, 1):
        if ordinal not in found:
            impossible.setdefault(one.name, f"there is no {'.'.join(one.place)}")
    for name, declaration in complete.items():
        if log.has_log and not log.used.get(name) and not declaration.refreshed:
            impossible.setdefault(name, "no table is behind it whose changes could be logged")
    cached = frozenset(name for name, d in declared.items() if d.cache)
    refreshes = await refresh_plan(connection, complete)
    state = (
        sorted({row["state"] for row in rows}),
        None if seeds is None else seeds.state,
        refreshes.state,
    )
    return TriggerPlan(
        log,
        refreshes,
        {name: why for name, why in impossible.items() if name in cached},
        cached,
        hashlib.sha256(repr(state).encode()).hexdigest(),
    )


async def install(connection: asyncpg.Connection, wanted: TriggerPlan) -> list[str]:
    """Make missing triggers and drop those that are not needed; the tables that changed.

    Raises what asyncpg raises, among it LockNotAvailableError for a table that is long in use.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        await connection.execute("SET LOCAL client_min_messages = warning")
        touched = await install_log(connection, wanted.log)
        touched += await install_refreshes(connection, wanted.refreshes)
        notified = await connection.fetchval(_NOTIFYING)
        await connection.execute(_REMOVE_NOTIFYING)
    if notified:
        # Workers of 0.1 notice at once, and not within half a minute, that nothing notifies them.
        with suppress(asyncpg.InsufficientPrivilegeError):
            await connection.execute(_END_LISTENERS)
    return list(dict.fromkeys(touched))


async def install_for(connection: asyncpg.Connection, file: Path) -> list[str]:
    """Make those that the datasets of this file need.

    Raises DatasetsError, NoLogError, and as above.
    """
    wanted = await plan(connection, declarations(file))
    if not wanted.log.has_log:
        raise NoLogError(NO_LOG)
    return await install(connection, wanted)


async def remove(connection: asyncpg.Connection) -> None:
    """Drop all triggers of this kind, with their functions."""
    await install(connection, TriggerPlan())


async def untracked(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration]
) -> dict[str, str]:
    """The datasets that may not be cached, for not every change is logged, and why."""
    return await unlogged(connection, await plan(connection, declared))


async def unlogged(connection: asyncpg.Connection, wanted: TriggerPlan) -> dict[str, str]:
    """The same for what is planned already."""
    return {**await drifted(connection, wanted), **wanted.impossible}


async def drifted(connection: asyncpg.Connection, wanted: TriggerPlan) -> dict[str, str]:
    """The cached datasets whose triggers are not as planned, and in what."""
    if not wanted.log.has_log:
        return dict.fromkeys(sorted(wanted.cached - wanted.impossible.keys()), NO_LOG)
    found = {**wanted.refreshes.drift(), **await log_drift(connection, wanted.log)}
    return {name: why for name, why in found.items() if name in wanted.cached}


def _impossible(asked: Asked, row: asyncpg.Record) -> str | None:
    """The reason why not every change of the relations can be logged."""
    place = f"{row['schema']}.{row['name']}"
    if row["kind"] == "function":
        # An empty one is the operator's word that no function reads a table.
        if "watch" in asked.declaration.model_fields_set:
            return None
        return (
            f"{place}() may read what no trigger logs: say in [{asked.name}.watch] which tables "
            "it reads, where it reads none leave that empty, or declare the function IMMUTABLE"
        )
    if row["kind"] == "m" and place in map(".".join, asked.declaration.refreshed_parts()):
        return None  # its refresh is logged, by feedsvc.refresh
    is_system = row["schema"] in ("pg_catalog", "information_schema")
    if row["kind"] not in (*_TABLE_KINDS, "v") or is_system:
        return f"no trigger can log changes to {place}"
    if asked.own and row["is_itself"] and not row["above"] and row["kind"] in _TABLE_KINDS:
        columns = json.loads(row["columns"])
        for template in asked.declaration.templates(asked.name):
            for column in template.columns:
                if column not in columns:
                    return f"{row['origin']} has no column {column!r}, which a tag names"
    return None
