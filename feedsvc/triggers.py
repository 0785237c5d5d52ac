"""Statement triggers that tell, in the transaction that writes, what a write changed.

They are made from the datasets file, for the operator's own tables. A notification on
`feedsvc_changes` is the writing transaction's number and then items of `feedsvc.tags`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.datasets import Declaration, declarations, quote_identifier, relation_parts
from feedsvc.tags import Template, all_under

_REACHED: Final = (files("feedsvc") / "triggers.sql").read_text()
_INSTALLED: Final = (files("feedsvc") / "triggers_installed.sql").read_text()
_TABLE_KINDS: Final = ("r", "p")
_MOST_TAGS: Final = 1_000
"""Of one kind in one statement; beyond that it is told of what is above them instead."""
_ITEMS_A_PAYLOAD: Final = 500  # of 14 bytes each; NOTIFY takes fewer than 8,000
_DIGEST: Final = "encode(substring(sha256(convert_to(tag, 'UTF8')) from 1 for 9), 'base64')"
# pg_trigger.tgtype of statement triggers that fire afterwards, and their transition tables.
_TYPES: Final = {"insert": (4, "", "new_rows"), "update": (16, "old_rows", "new_rows"),
                 "delete": (8, "old_rows", ""), "truncate": (32, "", "")}  # fmt: skip
_LOCK_TIMEOUT: Final = "10s"


@dataclass(frozen=True, slots=True)
class _Saying:
    """What a table's changes say to one dataset: of its own rows exactly, else of all under."""

    dataset: str
    templates: tuple[Template, ...]
    own: bool
    tenant: str | None


@dataclass(slots=True)
class Table:
    """A table that gets triggers."""

    schema: str
    name: str
    sayings: list[_Saying] = field(default_factory=list)

    @property
    def quoted(self) -> str:
        """The table as SQL names it."""
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"

    @property
    def function(self) -> str:
        """The function's name, which no identifier is too long or too odd for."""
        named = hashlib.sha256(f"{self.schema}\0{self.name}".encode()).hexdigest()[:16]
        return f"told_{named}"

    def body(self) -> str:
        """The function's source, which `pg_proc.prosrc` holds as it is."""
        roots = sorted({all_under(saying.dataset) for saying in self.sayings})
        branches = []
        for operation, rows in _ROWS.items():
            said = [_items(saying, rows) for saying in self.sayings]
            lines = "\n".join(f"    told := told || array({one});" for one in said)
            branches.append(f"  ELSIF TG_OP = '{operation}' THEN\n{lines}")
        return _BODY.format(
            table=self.quoted.replace("\n", " "),
            roots=", ".join(_literal(root) for root in roots),
            branches="\n".join(branches),
            most=_ITEMS_A_PAYLOAD,
        )

    def statements(self) -> list[str]:
        """What makes the function and its triggers, whatever was there."""
        function = f"feedsvc.{self.function}"
        made = [
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql\n"
            f"SET search_path = pg_catalog, pg_temp AS {_dollar_quoted(self.body())}",
        ]
        for operation, (_, old, new) in _TYPES.items():
            tables = [f"OLD TABLE AS {old}"] * bool(old) + [f"NEW TABLE AS {new}"] * bool(new)
            referencing = f" REFERENCING {' '.join(tables)}" if tables else ""
            made.append(
                f"CREATE OR REPLACE TRIGGER {_trigger(operation)} AFTER {operation.upper()} "
                f"ON {self.quoted}{referencing} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
            # Also where a session plays a replica's part, as a restore does.
            made.append(f"ALTER TABLE {self.quoted} ENABLE ALWAYS TRIGGER {_trigger(operation)}")
        return made


# Where the changed rows stand, by operation; an update's are its old and its new ones.
_ROWS: Final = {
    "INSERT": ("new_rows",),
    "UPDATE": ("old_rows", "new_rows"),
    "DELETE": ("old_rows",),
}
_BODY: Final = """
-- Tells what changes to {table} put out of date. Made by `feedsvc migrate triggers`.
DECLARE
  told text[] := '{{}}';
  payload text;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    told := array[{roots}];
{branches}
  END IF;
  FOR payload IN
    SELECT string_agg(item, ' ')
    FROM (
      SELECT item, (row_number() OVER () - 1) / {most} AS number
      FROM (SELECT DISTINCT unnest(told) AS item) AS every
    ) AS numbered
    GROUP BY number
  LOOP
    PERFORM pg_notify('feedsvc_changes', pg_current_xact_id()::text || ' ' || payload);
  END LOOP;
  RETURN NULL;
END
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The triggers that the datasets call for, and the datasets for which none will do."""

    tables: Mapping[tuple[str, str], Table]
    used: Mapping[str, frozenset[tuple[str, str]]]
    impossible: Mapping[str, str]

    def sql(self) -> str:
        """A script that makes them all, to be read and run by the tables' owner."""
        lines = ["-- What tells feedsvc's cache of changes. Run by the tables' owner; it can be "
                 "run again.", "BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';",
                 "CREATE SCHEMA IF NOT EXISTS feedsvc;"]  # fmt: skip
        for table in self.tables.values():
            lines.append(f"\n-- {table.quoted}")
            lines += [f"{statement};" for statement in table.statements()]
        lines += [f"\n-- {name}: not cached: {why}" for name, why in self.impossible.items()]
        return "\n".join([*lines, "COMMIT;", ""])


async def plan(connection: asyncpg.Connection, declared: Mapping[str, Declaration]) -> Plan:
    """What the datasets call for. Raises what asyncpg raises."""
    wanted = [(n, d, d.relation_parts(), True) for n, d in declared.items() if d.cache]
    wanted += [
        (name, declaration, relation_parts(watched), False)
        for name, declaration in declared.items()
        if declaration.cache
        for watched in declaration.watch
    ]
    rows = await connection.fetch(
        _REACHED, [parts[0] for _, _, parts, _ in wanted], [parts[1] for _, _, parts, _ in wanted]
    )
    tables: dict[tuple[str, str], Table] = {}
    used: dict[str, set[tuple[str, str]]] = {name: set() for name, d in declared.items() if d.cache}
    impossible: dict[str, str] = {}
    for row in rows:
        name, declaration, _, is_relation = wanted[row["ordinal"] - 1]
        place = row["schema"], row["name"]
        if row["kind"] not in _TABLE_KINDS or row["schema"] in ("pg_catalog", "information_schema"):
            impossible[name] = f"nothing can tell of changes to {'.'.join(place)}"
            continue
        saying = _saying(name, declaration, row, own=is_relation and row["is_itself"])
        if isinstance(saying, str):
            impossible[name] = saying
            continue
        table = tables.setdefault(place, Table(*place))
        if saying not in table.sayings:
            table.sayings.append(saying)
        used[name].add(place)
    for name, places in used.items():
        if not places:
            impossible.setdefault(name, "no table is behind it whose changes could be told")
    return Plan(tables, {name: frozenset(places) for name, places in used.items()}, impossible)


async def install(connection: asyncpg.Connection, wanted: Plan) -> list[str]:
    """Makes what is missing and takes away what nobody needs; the tables that it touched.

    Raises what asyncpg raises, among it LockNotAvailableError for a table that is long in use.
    """
    touched = []
    async with connection.transaction():
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
                touched.append(Table(*place).quoted)
    return touched


async def install_for(connection: asyncpg.Connection, file: Path) -> list[str]:
    """Makes those that the datasets of this file call for. Raises DatasetsError, and as above."""
    return await install(connection, await plan(connection, declarations(file)))


async def remove(connection: asyncpg.Connection) -> None:
    """Takes away all triggers of this kind, with their functions."""
    await install(connection, Plan({}, {}, {}))


async def untracked(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration]
) -> dict[str, str]:
    """The datasets that may not be cached, for not every change of theirs is told, and why."""
    wanted = await plan(connection, declared)
    return {**await drifted(connection, wanted), **wanted.impossible}


async def drifted(connection: asyncpg.Connection, wanted: Plan) -> dict[str, str]:
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
            found.setdefault(name, f"{faults[place]}; run `feedsvc migrate triggers`")
    return found


def _saying(
    name: str, declaration: Declaration, row: asyncpg.Record, *, own: bool
) -> _Saying | str:
    """What a table says to a dataset, or why it can't."""
    templates = declaration.templates(name)
    if not own:
        watched = {".".join(relation_parts(w)): tags for w, tags in declaration.watch.items()}
        texts = watched.get(str(row["origin"]), ())
        templates = tuple(map(Template.parse, texts))
    columns = row["columns"]
    for template in templates:
        for column in template.columns:
            if not isinstance(columns, list) or column not in columns:
                return f"{row['origin']} has no column {column!r}, which a tag names"
    return _Saying(name, templates, own, declaration.tenant)


def _items(saying: _Saying, rows: Sequence[str]) -> str:
    """SQL that gives the items to be told, for the rows of these transition tables."""
    root = _literal(all_under(saying.dataset))
    if not saying.templates:
        some = " OR ".join(f"EXISTS (SELECT FROM {table})" for table in rows)
        return f"SELECT {root} WHERE {some}"
    if not saying.own:
        tags = _tags(saying.templates, rows)
        return (
            f"WITH tags AS MATERIALIZED ({tags} LIMIT {_MOST_TAGS + 1}) "
            f"SELECT '*' || {_DIGEST} FROM tags "
            f"WHERE (SELECT count(*) FROM tags) <= {_MOST_TAGS} "
            f"UNION ALL SELECT {root} WHERE (SELECT count(*) FROM tags) > {_MOST_TAGS}"
        )
    tenant = {saying.tenant} if saying.tenant else set()
    whole = [t for t in saying.templates if not t.columns]
    wide = [t for t in saying.templates if t.columns and set(t.columns) <= tenant]
    narrow = [t for t in saying.templates if not set(t.columns) <= tenant]
    nothing = "SELECT NULL::text AS tag WHERE false"
    bound = f" LIMIT {_MOST_TAGS + 1}"
    return (
        f"WITH whole AS MATERIALIZED ({_tags(whole, rows)}), "
        f"wide AS MATERIALIZED ({_tags(wide, rows) + bound if wide else nothing}), "
        f"narrow AS MATERIALIZED ({_tags(narrow, rows) + bound if narrow else nothing}), "
        f"counts AS MATERIALIZED (SELECT (SELECT count(*) FROM wide) > {_MOST_TAGS} AS wides, "
        f"(SELECT count(*) FROM narrow) > {_MOST_TAGS} AS narrows) "
        f"SELECT '=' || {_DIGEST} FROM whole "
        f"UNION ALL SELECT '=' || {_DIGEST} FROM wide, counts WHERE NOT wides "
        f"UNION ALL SELECT '=' || {_DIGEST} FROM narrow, counts WHERE NOT narrows "
        f"UNION ALL SELECT '*' || {_DIGEST} FROM wide, counts WHERE narrows AND NOT wides "
        f"UNION ALL SELECT {root} FROM counts WHERE " + ("wides" if wide else "narrows")
    )


def _tags(templates: Iterable[Template], rows: Sequence[str]) -> str:
    """SQL that gives the distinct tags of the rows."""
    given = [_filled(template) for template in templates]
    every = " UNION ALL ".join(
        f"SELECT filled.tag FROM {table} AS changed, "
        f"LATERAL (VALUES {', '.join(f'({tag})' for tag in given)}) AS filled (tag) "
        "WHERE filled.tag IS NOT NULL"
        for table in rows
    )
    return f"SELECT DISTINCT tag FROM ({every}) AS tags"


def _filled(template: Template) -> str:
    parts = []
    for text, column in template.parts():
        parts += [_literal(text)] if text else []
        parts += [f"changed.{quote_identifier(column)}::text"] if column is not None else []
    return " || ".join(parts)


def _literal(text: str) -> str:
    """The text as an SQL literal (PostgreSQL's documentation, section 4.1.2)."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"


def _dollar_quoted(body: str) -> str:
    mark = "feedsvc"
    while f"${mark}$" in body:
        mark += "_"
    return f"${mark}${body}${mark}$"


def _trigger(operation: str) -> str:
    return f"feedsvc_told_{operation}"


async def _standing(
    connection: asyncpg.Connection,
) -> dict[tuple[str, str], list[asyncpg.Record]]:
    standing: dict[tuple[str, str], list[asyncpg.Record]] = {}
    for row in await connection.fetch(_INSTALLED):
        standing.setdefault((row["schema"], row["name"]), []).append(row)
    return standing


def _fault(table: Table, rows: Sequence[asyncpg.Record]) -> str | None:
    """What is wrong with the table's triggers."""
    found = {row["trigger"]: row for row in rows}
    for operation, (type_, old, new) in _TYPES.items():
        row = found.get(_trigger(operation))
        if row is None:
            return f"{table.schema}.{table.name} has no trigger that tells of {operation}"
        if row["enabled"] != "A":
            return f"the trigger {row['trigger']} of {table.schema}.{table.name} is not enabled"
        expected = (type_, old, new, table.function, table.body())
        names = ("type", "old_rows", "new_rows", "function", "body")
        if tuple(row[name] for name in names) != expected:
            return f"the triggers of {table.schema}.{table.name} are for other tags"
    return None
