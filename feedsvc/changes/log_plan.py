"""The triggers that the change log needs, planned from the catalog, and made in a database."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.changes.log_expressions import literal
from feedsvc.changes.log_rules import (
    LogColumn,
    LogFeed,
    LogRule,
    Seeds,
    columns_of,
    feed_of,
    watched_scopes,
)
from feedsvc.changes.log_triggers import LoggedTable
from feedsvc.changes.view_feeds import ViewFeed, view_feed
from feedsvc.datasets.dataset import Declaration, quote_identifier

_INSTALLED: Final = (files("feedsvc.changes") / "log_installed.sql").read_text()
_TABLE_KINDS: Final = ("r", "p")
REMEDY: Final = "run `feedsvc migrate triggers`"
_MAY_INSERT: Final = """
DO $feedsvc$
BEGIN
  IF NOT pg_catalog.has_table_privilege('feedsvc.log', 'INSERT') THEN
    RAISE EXCEPTION 'this login may not write to feedsvc.log, as its triggers would have to'
      USING ERRCODE = 'insufficient_privilege',
        HINT = pg_catalog.format('GRANT INSERT ON feedsvc.log TO %I', current_user);
  END IF;
END
$feedsvc$"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A relation that a dataset reads (`own`), or that its file says to watch."""

    name: str
    declaration: Declaration
    place: tuple[str, str]
    own: bool


@dataclass(slots=True)
class LogPlan:
    """The triggers of the log, and its feeds with their numbers `everyone`. Empty without a log."""

    has_log: bool = False
    tables: dict[tuple[str, str], LoggedTable] = field(default_factory=dict)
    feeds: dict[str, tuple[LogFeed, int]] = field(default_factory=dict)
    used: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    views: dict[str, ViewFeed] = field(default_factory=dict)
    """The feeds of `feeds` whose keys come from tables behind a view."""
    entered: frozenset[int] = frozenset()
    """The numbers of feeds that the database has."""

    def statements(self) -> Iterator[str]:
        """SQL that makes all of it, for the tables' owner."""
        if not self.has_log:
            return
        yield _MAY_INSERT
        for table in self.tables.values():
            yield from table.statements()
        yield from self.feed_statements(self.feeds)

    def feed_statements(self, changed: Sequence[str] | Mapping[str, object]) -> Iterator[str]:
        """SQL that enters the feeds: those that are `changed` are logged from now on."""
        numbers = ", ".join(str(feed.number) for feed, _ in self.feeds.values())
        others = f" WHERE feed NOT IN ({numbers})" if numbers else ""
        yield f"DELETE FROM feedsvc.log_feeds{others}"
        for name in changed:
            feed, everyone = self.feeds[name]
            old = ", ".join(literal(column) for column in feed.old)
            yield (
                "INSERT INTO feedsvc.log_feeds (feed, dataset, everyone, old_columns, since) VALUES"
                f" ({feed.number}, {literal(name)}, '{everyone}'::pg_catalog.int8,"
                f" ARRAY[{old}]::pg_catalog.text[], pg_catalog.pg_current_snapshot())"
                " ON CONFLICT (feed) DO UPDATE SET since = excluded.since"
            )


def log_plan(
    asked: Sequence[Asked], rows: Sequence[asyncpg.Record], seeds: Seeds | None
) -> LogPlan:
    """The plan for what the datasets ask for; `rows` are those of `triggers.sql`."""
    if seeds is None:
        return LogPlan()
    plan = LogPlan(has_log=True, entered=seeds.entered)
    columns = {id(row): columns_of(row["columns"]) for row in rows}
    for row in rows:
        one = asked[row["ordinal"] - 1]
        if one.own and (row["schema"], row["name"]) == one.place and not row["above"]:
            feed = feed_of(one.name, one.declaration, columns[id(row)], row["policy_columns"])
            if one.declaration.key_from:
                mine = [other for other in rows if other["ordinal"] == row["ordinal"]]
                if (view := view_feed(feed, one.declaration, mine, columns)) is not None:
                    plan.views[one.name], feed = view, view.whole
            plan.feeds[one.name] = (feed, seeds.of(feed))
    for row in rows:
        one = asked[row["ordinal"] - 1]
        # A row fires its own table's triggers, whichever of those above it a statement names.
        if row["kind"] in _TABLE_KINDS and not row["above"] and one.name in plan.feeds:
            _add(plan, one, row, columns[id(row)])
    return plan


def _add(plan: LogPlan, one: Asked, row: asyncpg.Record, columns: Mapping[str, LogColumn]) -> None:
    place = (row["schema"], row["name"])
    feed, everyone = plan.feeds[one.name]
    own = one.own and row["is_itself"] and set(feed.key) <= columns.keys()
    scopes = () if own else watched_scopes(one.name, one.declaration, row["origin"], columns)
    rules = [LogRule(feed, everyone, own, scopes)]
    if one.own and one.name in plan.views and row["origin"] in plan.views[one.name].parts:
        keyed = LogRule(plan.views[one.name].parts[row["origin"]], everyone, own=True)
        # What is read in a second place may change the view's rows of any key.
        rules = [keyed, *rules] if row["places"] != 1 else [keyed]
    table = plan.tables.setdefault(place, LoggedTable(*place, columns, row["in_tree"]))
    is_copied = row["is_partition"] and ".".join(place) != row["origin"]
    for kept in (table.emptied,) if is_copied else (table.emptied, table.rules):
        kept.extend(rule for rule in rules if rule not in kept)
    plan.used.setdefault(one.name, set()).add(place)


async def install_log(connection: asyncpg.Connection, plan: LogPlan) -> list[str]:
    """Make what is missing and drop what is not needed, in a transaction; the tables that changed.

    Raises what asyncpg raises.
    """
    standing = await connection.fetch(_INSTALLED)
    changed = [p for p, table in plan.tables.items() if table.fault(standing) is not None]
    if changed:
        await connection.execute(_MAY_INSERT)
    touched = []
    for place in changed:
        for statement in plan.tables[place].statements():
            await connection.execute(statement)
        touched.append(plan.tables[place].quoted)
    touched += await _drop_others(connection, plan)
    if await connection.fetchval("SELECT to_regclass('feedsvc.log_feeds') IS NOT NULL"):
        entered = {
            row["feed"] for row in await connection.fetch("SELECT feed FROM feedsvc.log_feeds")
        }
        again = [
            name for name, (feed, _) in plan.feeds.items()
            if feed.number not in entered or plan.used.get(name, set()) & set(changed)
        ]  # fmt: skip
        # Behind the triggers, which wait for all who write without them: the snapshot sees those.
        for statement in plan.feed_statements(again):
            await connection.execute(statement)
    return touched


async def _drop_others(connection: asyncpg.Connection, plan: LogPlan) -> list[str]:
    """Drop the triggers that are not planned, with their functions; the tables they were of."""
    wanted = {t.name for table in plan.tables.values() for t in table.triggers()}
    kept = {t.function for table in plan.tables.values() for t in table.triggers()}
    touched: dict[str, None] = {}
    for row in await connection.fetch(_INSTALLED):
        place = (row["schema"], row["name"])
        if row["is_copy"] or (row["trigger"] in wanted and place in plan.tables):
            continue
        quoted = ".".join(map(quote_identifier, place))
        name = quote_identifier(row["trigger"])
        await connection.execute(f"DROP TRIGGER IF EXISTS {name} ON {quoted}")
        touched[quoted] = None
    for row in await connection.fetch(
        "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname = 'feedsvc' AND p.proname LIKE 'logs\\_%'"
    ):
        if row["proname"] not in kept:
            await connection.execute(f"DROP FUNCTION feedsvc.{quote_identifier(row['proname'])}()")
    return list(touched)


async def log_drift(connection: asyncpg.Connection, plan: LogPlan) -> dict[str, str]:
    """The datasets whose changes are not all logged, and why."""
    standing = await connection.fetch(_INSTALLED)
    faults = {p: fault for p, table in plan.tables.items() if (fault := table.fault(standing))}
    found: dict[str, str] = {}
    for name, places in plan.used.items():
        for place in sorted(places & faults.keys()):
            found.setdefault(name, f"{faults[place]}; {REMEDY}")
    for name, (feed, _) in plan.feeds.items():
        if feed.number not in plan.entered:
            found.setdefault(name, f"its triggers log it as it was declared before; {REMEDY}")
    return found
