"""Statement triggers that tell, in the transaction that writes, what a write changed.

They are made from the datasets file, for the operator's own tables. A notification on
`feedsvc_changes` is the writing transaction's number and then items of `feedsvc.datasets.tags`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import asyncpg

from feedsvc.changes.log_plan import Asked, LogPlan, install_log, log_plan
from feedsvc.changes.log_rules import Seeds
from feedsvc.changes.trigger_sql import TYPES, TagRule, TriggeredTable, one_line, trigger_name
from feedsvc.datasets.dataset import Declaration, declarations, quote_identifier, relation_parts
from feedsvc.datasets.resolution import resolved
from feedsvc.datasets.tags import Template, text_of

_REACHED: Final = (files("feedsvc.changes") / "triggers.sql").read_text()
_INSTALLED: Final = (files("feedsvc.changes") / "triggers_installed.sql").read_text()
_TABLE_KINDS: Final = ("r", "p")
_LOCK_TIMEOUT: Final = "10s"
_MODES: Final = {
    "D": "is not enabled",
    "O": "is not enabled as ALWAYS, but as ORIGIN, which tells nothing of replicated writes",
    "R": "is not enabled as ALWAYS, but as REPLICA, which tells of replicated writes alone",
}
"""The fault of a trigger, by pg_trigger's `tgenabled`."""
REMEDY: Final = "run `feedsvc migrate triggers`"


@dataclass(frozen=True, slots=True)
class TriggerPlan:
    """The triggers that the datasets call for, and the datasets for which none will do."""

    tables: Mapping[tuple[str, str], TriggeredTable]
    used: Mapping[str, frozenset[tuple[str, str]]]
    impossible: Mapping[str, str]
    state: str = ""
    """A digest of the policies, the views, the parts and the triggers as they are."""
    log: LogPlan = field(default_factory=LogPlan)
    """The triggers that write the change log."""

    def sql(self) -> str:
        """A script that makes them all, to be read and run by the tables' owner."""
        lines = ["-- Triggers that report changes to the cache, for the tables' owner to run. "
                 "It can be run again.", "BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';",
                 "CREATE SCHEMA IF NOT EXISTS feedsvc;"]  # fmt: skip
        for table in self.tables.values():
            lines.append(f"\n-- {one_line(table.quoted)}")
            lines += [f"{statement};" for statement in table.statements()]
        lines += [f"{statement};" for statement in self.log.statements()]
        lines += [f"\n-- {n}: not cached: {one_line(why)}" for n, why in self.impossible.items()]
        return "\n".join([*lines, "COMMIT;", ""])


async def plan(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration], *, log: bool = False
) -> TriggerPlan:
    """The triggers that the datasets need. Raises what asyncpg raises.

    Those of the change log only with `log`: as long as nothing reads it, no writer pays for it.
    """
    complete, _ = await resolved(connection, declared)
    asked = [Asked(name, d, d.relation_parts(), own=True) for name, d in complete.items()]
    asked += [
        Asked(name, declaration, relation_parts(watched), own=False)
        for name, declaration in complete.items()
        for watched in declaration.watch
    ]
    schemas, names = ([one.place[part] for one in asked] for part in (0, 1))
    rows = await connection.fetch(_REACHED, schemas, names)
    tables: dict[tuple[str, str], TriggeredTable] = {}
    used: dict[str, set[tuple[str, str]]] = {n: set() for n, d in complete.items() if d.cache}
    impossible = {
        name: f"there is no {d.relation}, or it has no key"
        for name, d in declared.items()
        if d.cache and name not in complete
    }
    for row in rows:
        one, place = asked[row["ordinal"] - 1], (row["schema"], row["name"])
        if one.name not in used:
            continue
        why = _impossible(one, row)
        if why is not None:
            impossible[one.name] = why
        elif row["kind"] in _TABLE_KINDS:
            rule = _tag_rule(one, row)
            table = tables.setdefault(place, TriggeredTable(*place))
            if rule not in table.rules:
                table.rules.append(rule)
            used[one.name].add(place)
    found = {row["ordinal"] for row in rows}
    for ordinal, one in enumerate(asked, 1):
        if ordinal not in found and one.name in used:
            impossible.setdefault(one.name, f"there is no {'.'.join(one.place)}")
    for name, places in used.items():
        if not places:
            impossible.setdefault(name, "no table is behind it whose changes could be told")
    state = hashlib.sha256(repr(sorted({row["state"] for row in rows})).encode()).hexdigest()
    logged = log_plan(asked, rows, await Seeds.read(connection)) if log else LogPlan()
    return TriggerPlan(
        tables, {n: frozenset(places) for n, places in used.items()}, impossible, state, logged
    )


async def install(connection: asyncpg.Connection, wanted: TriggerPlan) -> list[str]:
    """Make missing triggers and drop those that are not needed; the tables that changed.

    Raises what asyncpg raises, among it LockNotAvailableError for a table that is long in use.
    """
    touched = []
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        await connection.execute("SET LOCAL client_min_messages = warning")
        standing = await _standing(connection)
        if wanted.tables:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS feedsvc")
        for place, table in wanted.tables.items():
            if _fault(table, standing.get(place, [])) is not None:
                for statement in table.statements():
                    await connection.execute(statement)
                touched.append(table.quoted)
        for place, rows in standing.items():
            if place not in wanted.tables:
                await connection.execute(
                    f"DROP FUNCTION feedsvc.{quote_identifier(rows[0]['function'])} CASCADE"
                )
                touched.append(TriggeredTable(*place).quoted)
        touched += await install_log(connection, wanted.log)
    return list(dict.fromkeys(touched))


async def install_for(connection: asyncpg.Connection, file: Path) -> list[str]:
    """Make those that the datasets of this file need. Raises DatasetsError, and as above."""
    return await install(connection, await plan(connection, declarations(file)))


async def remove(connection: asyncpg.Connection) -> None:
    """Drop all triggers of this kind, with their functions."""
    await install(connection, TriggerPlan({}, {}, {}))


async def untracked(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration]
) -> dict[str, str]:
    """The datasets that may not be cached, for not every change is reported, and why."""
    return await untold(connection, await plan(connection, declared))


async def untold(connection: asyncpg.Connection, wanted: TriggerPlan) -> dict[str, str]:
    """The same for what is planned already."""
    return {**await drifted(connection, wanted), **wanted.impossible}


async def drifted(connection: asyncpg.Connection, wanted: TriggerPlan) -> dict[str, str]:
    """The datasets whose triggers are not as planned, and in what."""
    standing = await _standing(connection)
    faults = {
        place: fault
        for place, table in wanted.tables.items()
        if (fault := _fault(table, standing.get(place, []))) is not None
    }
    found: dict[str, str] = {}
    for name, places in wanted.used.items():
        for place in sorted(places & faults.keys()):
            found.setdefault(name, f"{faults[place]}; {REMEDY}")
    return found


def _impossible(asked: Asked, row: asyncpg.Record) -> str | None:
    """The reason why not every change of the relations can be reported."""
    place = f"{row['schema']}.{row['name']}"
    if row["kind"] == "function":
        # An empty one is the operator's word that no function reads a table.
        if "watch" in asked.declaration.model_fields_set:
            return None
        return (
            f"{place}() may read what nobody tells of: say in [{asked.name}.watch] which tables "
            "it reads, where it reads none leave that empty, or declare the function IMMUTABLE"
        )
    is_system = row["schema"] in ("pg_catalog", "information_schema")
    if row["kind"] not in (*_TABLE_KINDS, "v") or is_system:
        return f"nothing can tell of changes to {place}"
    if asked.own and row["is_itself"] and not row["above"] and row["kind"] in _TABLE_KINDS:
        columns = json.loads(row["columns"])
        for template in asked.declaration.templates(asked.name):
            for column in template.columns:
                if column not in columns:
                    return f"{row['origin']} has no column {column!r}, which a tag names"
    return None


def _tag_rule(asked: Asked, row: asyncpg.Record) -> TagRule:
    """The rule of a table for a dataset: where it can't fill in the tags, all has changed."""
    declaration, columns = asked.declaration, json.loads(row["columns"])
    own = asked.own and row["is_itself"]
    if own:
        templates = declaration.templates(asked.name)
        fits = all(column in columns for t in templates for column in t.columns)
    else:
        watched = {".".join(relation_parts(w)): tags for w, tags in declaration.watch.items()}
        templates = tuple(map(Template.parse, watched.get(str(row["origin"]), ())))
        fits = all(_has_one_text(columns.get(c)) for t in templates for c in t.columns)
    if not fits:
        return TagRule(asked.name, (), own=False, tenant=declaration.tenant)
    return TagRule(asked.name, templates, own, declaration.tenant)


def _has_one_text(column: Mapping[str, Any] | None) -> bool:
    """Whether a value is written in the dataset's own column as it is written in this one."""
    return (
        column is not None
        and column["one_text"]
        and text_of(column["kind"], column["category"]) is not None
    )


async def _standing(
    connection: asyncpg.Connection,
) -> dict[tuple[str, str], list[asyncpg.Record]]:
    standing: dict[tuple[str, str], list[asyncpg.Record]] = {}
    for row in await connection.fetch(_INSTALLED):
        standing.setdefault((row["schema"], row["name"]), []).append(row)
    return standing


def _fault(table: TriggeredTable, rows: Sequence[asyncpg.Record]) -> str | None:
    """The faults of the table's triggers."""
    found = {row["trigger"]: row for row in rows}
    for operation, (type_, old, new) in TYPES.items():
        row = found.get(trigger_name(operation))
        if row is None:
            return f"{table.schema}.{table.name} has no trigger that tells of {operation}"
        if row["enabled"] != "A":
            named = f"the trigger {row['trigger']} of {table.schema}.{table.name}"
            return f"{named} {_MODES.get(row['enabled'], _MODES['D'])}"
        expected = (type_, old, new, table.function, table.body())
        names = ("type", "old_rows", "new_rows", "function", "body")
        if tuple(row[name] for name in names) != expected:
            return f"the triggers of {table.schema}.{table.name} are for other tags"
    return None
