"""A table's triggers as SQL: what makes them, and the function that works out what to tell."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from feedsvc.datasets.dataset import quote_identifier
from feedsvc.datasets.tags import Template, all_under

_MOST_TAGS: Final = 1_000
"""Of one kind in one statement; beyond that the items above them are sent instead."""
_ITEMS_A_PAYLOAD: Final = 500  # of 14 bytes each; NOTIFY takes fewer than 8,000
_DIGEST: Final = "encode(substring(sha256(convert_to(tag, 'UTF8')) from 1 for 9), 'base64')"
# pg_trigger.tgtype of statement triggers that fire afterwards, and their transition tables.
TYPES: Final = {"insert": (4, "", "new_rows"), "update": (16, "old_rows", "new_rows"),
                "delete": (8, "old_rows", ""), "truncate": (32, "", "")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TagRule:
    """The items of a table's changes for one dataset: of its own rows exactly, else all under."""

    dataset: str
    templates: tuple[Template, ...]
    own: bool
    tenant: str | None


@dataclass(slots=True)
class TriggeredTable:
    """A table that gets triggers."""

    schema: str
    name: str
    rules: list[TagRule] = field(default_factory=list)

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
        roots = sorted({all_under(rule.dataset) for rule in self.rules})
        branches = []
        for operation, rows in _ROWS.items():
            said = [_items(rule, rows) for rule in self.rules]
            lines = "\n".join(f"    told := told || array({one});" for one in said)
            branches.append(f"  ELSIF TG_OP = '{operation}' THEN\n{lines}")
        return _BODY.format(
            table=one_line(self.quoted),
            roots=", ".join(_literal(root) for root in roots),
            branches="\n".join(branches),
            most=_ITEMS_A_PAYLOAD,
        )

    def statements(self) -> list[str]:
        """SQL that makes the function and its triggers, replacing older ones."""
        function = f"feedsvc.{self.function}"
        made = [
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql\n"
            f"SET search_path = pg_catalog, pg_temp AS {_dollar_quoted(self.body())}",
        ]
        for operation, (_, old, new) in TYPES.items():
            tables = [f"OLD TABLE AS {old}"] * bool(old) + [f"NEW TABLE AS {new}"] * bool(new)
            referencing = f" REFERENCING {' '.join(tables)}" if tables else ""
            made.append(
                f"CREATE OR REPLACE TRIGGER {trigger_name(operation)} AFTER {operation.upper()} "
                f"ON {self.quoted}{referencing} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
            # Also where a session plays a replica's part, as a restore does.
            made.append(
                f"ALTER TABLE {self.quoted} ENABLE ALWAYS TRIGGER {trigger_name(operation)}"
            )
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


def _items(rule: TagRule, rows: Sequence[str]) -> str:
    """SQL for the items to be sent, of the rows of these transition tables."""
    root = _literal(all_under(rule.dataset))
    if not rule.templates:
        some = " OR ".join(f"EXISTS (SELECT FROM {table})" for table in rows)
        return f"SELECT {root} WHERE {some}"
    if not rule.own:
        tags = _tags(rule.templates, rows)
        # A row that fills in no tag may show in any caller's rows.
        none = f"coalesce({', '.join(map(_filled, rule.templates))}) IS NULL"
        some = " OR ".join(f"EXISTS (SELECT FROM {r} AS changed WHERE {none})" for r in rows)
        return (
            f"WITH tags AS MATERIALIZED ({tags} LIMIT {_MOST_TAGS + 1}) "
            f"SELECT '*' || {_DIGEST} FROM tags "
            f"WHERE (SELECT count(*) FROM tags) <= {_MOST_TAGS} "
            f"UNION ALL SELECT {root} WHERE (SELECT count(*) FROM tags) > {_MOST_TAGS} OR {some}"
        )
    tenant = {rule.tenant} if rule.tenant else set()
    whole = [t for t in rule.templates if not t.columns]
    wide = [t for t in rule.templates if t.columns and set(t.columns) <= tenant]
    narrow = [t for t in rule.templates if not set(t.columns) <= tenant]
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


def one_line(text: str) -> str:
    """The text without what would end a comment."""
    return text.replace("\n", " ").replace("\r", " ")


def _dollar_quoted(body: str) -> str:
    mark = "feedsvc"
    while f"${mark}$" in body:
        mark += "_"
    return f"${mark}${body}${mark}$"


def trigger_name(operation: str) -> str:
    """The name of a table's trigger for this kind of write."""
    return f"feedsvc_told_{operation}"
