"""SQL expressions over a changed row: its scope, its token, its tags, and whether it has changed.

They run with the rights of the triggers' owner under the writer's `search_path`, so every function,
operator and type is named with its schema. `row` is NEW, OLD or an alias.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from feedsvc.changes.log_hash import NO_TENANT
from feedsvc.changes.log_rules import LogColumn, LogFeed, LogRule
from feedsvc.datasets.dataset import quote_identifier
from feedsvc.datasets.tags import Template

Columns = Mapping[str, LogColumn]

_C: Final = 'COLLATE pg_catalog."C"'
_OR: Final = "OPERATOR(pg_catalog.||)"
_UNRESERVED: Final = "'^[A-Za-z0-9._~-]*$'"
# Types whose text is unreserved and depends on no setting.
_PLAIN: Final = frozenset({"int2", "int4", "int8", "oid", "uuid", "bool", "numeric"})
_TEXTS: Final = frozenset({"text", "varchar"})
# Types of which two values that are equal are the same in each of their forms.
_EXACT: Final = frozenset(
    {"int2", "int4", "int8", "oid", "uuid", "bool", "date", "time", "timestamp", "timestamptz"}
    | {"text", "varchar", "bytea"}
)
_SETTINGS_FREE: Final = _PLAIN | _TEXTS | {"date", "timestamp", "timestamptz", "time"}

SETTINGS: Final = (
    "SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' "
    "SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'"
)
"""The settings of a feed's sessions, for functions whose texts depend on them."""


def literal(text: str) -> str:
    """The text as an SQL literal (PostgreSQL's documentation, section 4.1.2)."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"


def number(value: int) -> str:
    """The number as a bigint."""
    return f"'{value}'::pg_catalog.int8"


def needs_settings(rules: Iterable[LogRule], columns: Columns) -> bool:
    """Return whether a text that is logged depends on the writer's settings."""
    return any(
        (columns[name].kind not in safe and columns[name].category != "E")
        for rule in rules
        if rule.own
        for names, safe in ((rule.feed.key, _PLAIN | _TEXTS), (rule.feed.old, _SETTINGS_FREE))
        for name in names
    )


def scope(rule: LogRule, row: str, columns: Columns) -> str:
    """The scope of a row of the feed's own table."""
    if rule.feed.tenant is None:
        return number(rule.everyone)
    tenant = columns[rule.feed.tenant]
    hashed = hashed_scope(_text(row, tenant.name), rule.everyone)
    return f"COALESCE({hashed}, {NO_TENANT})" if tenant.nullable else hashed


def hashed_scope(text: str, seed: int) -> str:
    """The scope of the tenant whose text it is."""
    return f"pg_catalog.hashtextextended(({text}) {_C}, {number(seed)})"


def token(feed: LogFeed, row: str, columns: Columns) -> str:
    """The row's key as in `after`."""
    parts = []
    for name in feed.key:
        part = _token_part(row, columns[name])
        parts.append(f"COALESCE({part}, '')" if columns[name].nullable else part)
    return f" {_OR} ',' {_OR} ".join(parts)


def _token_part(row: str, column: LogColumn) -> str:
    text = _text(row, column.name)
    if column.kind in _PLAIN:
        return text
    if column.kind not in _TEXTS and column.category != "E":
        # As `feeds.sql.json_projection.scalar_text`, under SETTINGS.
        value = f"{row}.{quote_identifier(column.name)}"
        is_json = column.kind == "jsonb"
        text = text if is_json else f"(pg_catalog.to_json({value}) OPERATOR(pg_catalog.#>>) '{{}}')"
    plain = f"(({text}) {_C}) OPERATOR(pg_catalog.~) {_UNRESERVED}"
    return f"CASE WHEN {plain} THEN {text} ELSE feedsvc.log_quoted({text}) END"


def tags(templates: Sequence[Template], row: str) -> str:
    """Four bytes for each narrow tag that the row fills in."""
    if not templates:
        return "NULL::pg_catalog.bytea"
    made = [tag(template, row) for template in templates]
    if len(made) == 1:
        return made[0]
    return f" {_OR} ".join(f"COALESCE({one}, ''::pg_catalog.bytea)" for one in made)


def tag(template: Template, row: str) -> str:
    """The four bytes of one tag, NULL where a column is."""
    return f"pg_catalog.int4send(pg_catalog.hashtext(({filled(template, row)}) {_C}))"


def filled(template: Template, row: str) -> str:
    """The tag's text, NULL where a column is."""
    parts = []
    for text, column in template.parts():
        parts += [f"{literal(text)}::pg_catalog.text"] if text else []
        parts += [_text(row, column)] if column is not None else []
    return f" {_OR} ".join(parts)


def both_tags(feed: LogFeed, columns: Columns, before: str, now: str) -> str:
    """Those of an updated row, the former one's where they may be others."""
    new = tags(feed.narrow, now)
    known = {*feed.key, feed.tenant}
    changing = [t for t in feed.narrow if not set(t.columns) <= known]
    if not changing:
        return new
    names = {name for template in changing for name in template.columns}
    same = unchanged(sorted(names), before, now, columns)
    former = f"COALESCE({tags(changing, before)}, ''::pg_catalog.bytea)"
    none = "''::pg_catalog.bytea"
    return f"COALESCE({new}, {none}) {_OR} CASE WHEN {same} THEN {none} ELSE {former} END"


def old(feed: LogFeed, row: str) -> str:
    """The former row's columns that tell who could see it, as a JSON array."""
    if not feed.old:
        return "NULL::pg_catalog.text"
    values = [f"{row}.{quote_identifier(name)}" for name in feed.old]
    place = [] if feed.place is None else [str(feed.place)]
    return f"pg_catalog.json_build_array({', '.join([*place, *values])})::pg_catalog.text"


def no_old(feed: LogFeed) -> str:
    """The same where there was no former row: of a view's table its place alone."""
    return "NULL::pg_catalog.text" if feed.place is None else literal(f"[{feed.place}]")


def old_of_one(feed: LogFeed, row: str) -> str:
    """The same as the log has it of one key."""
    return f"'[' {_OR} {old(feed, row)} {_OR} ']'" if feed.old else old(feed, row)


def no_old_of_one(feed: LogFeed) -> str:
    """The same where there was no former row."""
    return no_old(feed) if feed.place is None else literal(f"[[{feed.place}]]")


def unchanged(names: Sequence[str], one: str, other: str, columns: Columns) -> str:
    """SQL that is true where both rows have these columns alike, to the byte; NULL may mean no."""
    tests, images = [], []
    for name in names:
        a, b = (f"{row}.{quote_identifier(name)}" for row in (one, other))
        column = columns[name]
        is_exact = column.kind in _EXACT or column.category == "E"
        if not (is_exact and column.one_text):
            images.append(name)
            continue
        same = f"{a} OPERATOR(pg_catalog.=) {b}"
        tests.append(f"({same} OR {a} IS NULL AND {b} IS NULL)" if column.nullable else same)
    if images:
        pair = [image(images, row) for row in (one, other)]
        tests.append(f"{pair[0]} OPERATOR(pg_catalog.*=) {pair[1]}")
    return " AND ".join(tests) or "true"


def image(names: Sequence[str], row: str) -> str:
    """These columns as a record, to be compared to the byte."""
    values = ", ".join(f"{row}.{quote_identifier(name)}" for name in names)
    return f"ROW({values})::pg_catalog.record"


def _text(row: str, name: str) -> str:
    return f"{row}.{quote_identifier(name)}::pg_catalog.text"
