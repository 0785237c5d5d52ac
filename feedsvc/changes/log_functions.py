"""The bodies of the functions that log a table's changes: by operation, of rows and of statements.

An update of one row costs its writer what PostgreSQL takes to call the function and to run one
INSERT (docs/decisions/0152): so there is one for all feeds, and all else is known beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from feedsvc.changes.log_expressions import (
    Columns,
    both_tags,
    hashed_scope,
    image,
    no_old,
    no_old_of_one,
    number,
    old,
    old_of_one,
    scope,
    tag,
    tags,
    token,
    unchanged,
)
from feedsvc.changes.log_rules import LogRule

MOST_KEYS: Final = 100_000
"""Of one statement; of more rows nothing but their scopes is logged."""
MOST_TAGGED: Final = 1_000
"""Rows of one statement whose narrow tags are logged; and scopes of one that are told apart."""
_KEYS_A_ROW: Final = 64

_COLUMNS: Final = "xid, scope, feed, slot, op, key, tags, old"
_XID: Final = "pg_catalog.pg_current_xact_id()"
_SLOT: Final = "feedsvc.log_slot()"
_NOTHING: Final = "NULL::pg_catalog.text"
_N: Final = "feedsvc_n"
_ROW: Final = '"feedsvc: row"'  # a whole row, so no column may have the name
_OR: Final = "OPERATOR(pg_catalog.||)"


@dataclass(frozen=True, slots=True)
class RowConditions:
    """The conditions for logging a row at all, and for logging an updated one for its feeds."""

    few: str = ""
    changed: str = ""


def row_body(
    operation: str, rules: Sequence[LogRule], columns: Columns, conditions: RowConditions
) -> str:
    """The body for one row of `insert`, `update` or `delete`."""
    own, behind = [r for r in rules if r.own], [r for r in rules if not r.own]
    body = _rows(operation, own, columns) if own else ""
    tests = [conditions.few, conditions.changed if own and operation == "update" else ""]
    if behind:
        # What shows of a row behind a view is not known, so all of its changes count.
        body = _if(tests[1], body) + _rows(operation, behind, columns)
        tests = tests[:1]
    body = _if(" AND ".join(f"({test})" for test in tests if test), body)
    return f"BEGIN\n{body}  RETURN NULL;\nEND\n"


def _if(condition: str, body: str) -> str:
    return f"  IF {condition} THEN\n{body}  END IF;\n" if condition else body


def _rows(operation: str, rules: Sequence[LogRule], columns: Columns) -> str:
    row = "OLD" if operation == "delete" else "NEW"
    values = []
    for rule in rules:
        op = _op(rule, "g" if operation == "delete" else "u")
        if not rule.own:
            values += _behind_values(rule, row)
        elif operation == "update":
            rest = (token(rule.feed, row, columns), both_tags(rule.feed, columns, "OLD", "NEW"),
                    _old_in_place(rule, columns))  # fmt: skip
            values.append(_values(rule, op, scope(rule, row, columns), rest))
        else:
            values.append(_own_values(rule, row, op, columns))
    body = f"  {_insert(values)}"
    return body + _moved(rules, columns) if operation == "update" else body


def _op(rule: LogRule, op: str) -> str:
    """The operation; where the table can't fill in narrow tags, the one for pages with any."""
    return "m" if rule.feed.is_wide else op


def _old_in_place(rule: LogRule, columns: Columns) -> str:
    """The former row's columns if it was in this scope and had this key; else it was elsewhere."""
    former = old_of_one(rule.feed, "OLD")
    if not rule.feed.old:
        return former
    same = unchanged(_place(rule), "OLD", "NEW", columns)
    return f"CASE WHEN {same} THEN {former} ELSE {no_old_of_one(rule.feed)} END"


def _moved(rules: Sequence[LogRule], columns: Columns) -> str:
    """The former row's, where its key or its scope was another."""
    names = dict.fromkeys(name for rule in rules for name in _place(rule))
    if not names:
        return ""
    values = []
    for rule in rules:
        if rule.own:
            values.append(_own_values(rule, "OLD", _op(rule, "g"), columns))
        elif rule.scopes:
            values += _behind_values(rule, "OLD")
    same = unchanged(tuple(names), "OLD", "NEW", columns)
    return f"  IF ({same}) IS NOT TRUE THEN\n    {_insert(values)}  END IF;\n"


def _place(rule: LogRule) -> tuple[str, ...]:
    """The columns that the log rows' scope and key are made of."""
    if not rule.own:
        return tuple(column for template, _ in rule.scopes for column in template.columns)
    return (*rule.feed.key, *((rule.feed.tenant,) if rule.feed.tenant else ()))


def _insert(values: Sequence[str]) -> str:
    return f"INSERT INTO feedsvc.log ({_COLUMNS}) VALUES\n    " + ",\n    ".join(values) + ";\n"


def _own_values(rule: LogRule, row: str, op: str, columns: Columns) -> str:
    former = old_of_one(rule.feed, row) if row == "OLD" else no_old_of_one(rule.feed)
    rest = (token(rule.feed, row, columns), tags(rule.feed.narrow, row), former)
    return _values(rule, op, scope(rule, row, columns), rest)


def _behind_values(rule: LogRule, row: str) -> list[str]:
    found = _behind(rule, row)
    return [_values(rule, "w", where, (_NOTHING, tagged, _NOTHING)) for where, tagged in found]


def _behind(rule: LogRule, row: str) -> list[tuple[str, str]]:
    """Scope and tags of each template that a row behind the feed fills in."""
    everyone, none = number(rule.everyone), "NULL::pg_catalog.bytea"
    if not rule.scopes:
        return [(everyone, none)]
    made = []
    for template, is_tenant in rule.scopes:
        if is_tenant:
            (name,) = template.columns
            text = f'{row}."{name.replace(chr(34), chr(34) * 2)}"::pg_catalog.text'
            # A row that fills in nothing may show in any caller's rows.
            made.append((f"COALESCE({hashed_scope(text, rule.everyone)}, {everyone})", none))
        else:
            made.append((everyone, tag(template, row)))
    return made


def _values(rule: LogRule, op: str, where: str, rest: tuple[str, str, str]) -> str:
    """A row of the log; the rest are key, tags and the former row's columns."""
    given = (_XID, where, str(rule.feed.number), _SLOT, f"'{op}'", *rest)
    return f"({', '.join(given)})"


def statement_body(
    operation: str, rules: Sequence[LogRule], columns: Columns, condition: str
) -> str:
    """The body for a statement of many rows, as the condition says, from its transition tables.

    The condition stands here and not in the trigger's WHEN, which PostgreSQL parses, plans and
    compiles for each statement: 22,000 instructions, where the call costs 8,000.
    """
    table = "old_rows" if operation == "delete" else "new_rows"
    packed, beyond = [], []
    for rule in rules:
        if not rule.own:
            rows = (table,) if operation != "update" else ("old_rows", "new_rows")
            packed.append(_behind_many(rule, rows))
            beyond.append(_behind_many(rule, rows))
            continue
        packed.append(_pairs(rule, columns) if operation == "update" else
                      _pack(rule, _keyed(rule, table, operation, columns), operation))  # fmt: skip
        beyond.append(_overflow(rule, operation, table, columns))
    return (
        "#variable_conflict use_variable\n"
        f"DECLARE\n  {_N} pg_catalog.int8;\n"
        f"BEGIN\n  IF {condition} THEN\n"
        f"  {_N} := (SELECT pg_catalog.count(*) FROM {table});\n"
        f"  IF {_N} OPERATOR(pg_catalog.>) {MOST_KEYS} THEN\n{''.join(beyond)}"
        f"  ELSE\n{''.join(packed)}  END IF;\n  END IF;\n  RETURN NULL;\nEND\n"
    )


def _keyed(rule: LogRule, table: str, operation: str, columns: Columns) -> str:
    """Scope, place in the statement, operation, key, tags and former row of each row."""
    former = old(rule.feed, "r") if operation == "delete" else no_old(rule.feed)
    op = "g" if operation == "delete" else "u"
    return (
        f"SELECT {scope(rule, 'r', columns)} AS s, pg_catalog.row_number() OVER () AS i, "
        f"'{op}' AS o, {token(rule.feed, 'r', columns)} AS k, {_few(rule, 'r')} AS g, "
        f"{former} AS p FROM {table} AS r"
    )


def _few(rule: LogRule, row: str) -> str:
    if not rule.feed.narrow:
        return "NULL::pg_catalog.bytea"
    few = f"{_N} OPERATOR(pg_catalog.<=) {MOST_TAGGED}"
    return f"CASE WHEN {few} THEN {tags(rule.feed.narrow, row)} END"


def _pairs(rule: LogRule, columns: Columns) -> str:
    """Updated rows, each with its former one: they stand in the transition tables in one order.

    A FULL JOIN is a hash or a merge join, whatever the plan was made for. Whole rows are joined,
    and what is logged is made of those alone that differ in what is shown. Rows that don't belong
    together are told with both of their keys.
    """
    before, now = "(p.a)", "(p.b)"

    def side(table: str) -> str:
        return f"SELECT pg_catalog.row_number() OVER () AS i, {_ROW} AS r FROM {table} AS {_ROW}"

    def either(make: Callable[[str], str]) -> str:
        return f"CASE WHEN p.o OPERATOR(pg_catalog.=) 'u' THEN {make(now)} ELSE {make(before)} END"

    shown = ((before, now) if set(columns) <= set(rule.feed.published)
             else tuple(image(rule.feed.published, row) for row in (before, now)))  # fmt: skip
    is_same = unchanged(_place(rule), before, now, columns)
    paired = (
        f"SELECT COALESCE(a.i, b.i) AS i, a.r AS a, b.r AS b, a.i IS NOT NULL AS had, "
        f"b.i IS NOT NULL AS has FROM ({side('old_rows')}) AS a "
        f"FULL JOIN ({side('new_rows')}) AS b ON a.i OPERATOR(pg_catalog.=) b.i"
    )
    ops = (
        f"CASE WHEN NOT p.had OR p.has AND {is_same} THEN '{{u}}'::pg_catalog._text "
        "WHEN p.has THEN '{u,g}' ELSE '{g}' END"
    )
    changed = (
        f"SELECT p.i, p.a, p.b, p.had, p.has, pg_catalog.unnest({ops}) AS o FROM ({paired}) AS p "
        f"WHERE ({shown[0]} OPERATOR(pg_catalog.*=) {shown[1]}) IS NOT TRUE"
    )
    tagged = "NULL::pg_catalog.bytea"
    if rule.feed.narrow:
        here = both_tags(rule.feed, columns, before, now)
        gone = tags(rule.feed.narrow, before)
        each = f"CASE WHEN p.o OPERATOR(pg_catalog.=) 'u' THEN {here} ELSE {gone} END"
        tagged = f"CASE WHEN {_N} OPERATOR(pg_catalog.<=) {MOST_TAGGED} THEN {each} END"
    # As of a single row: the former columns stand where the row was.
    former = _NOTHING
    if rule.feed.old:
        stayed = f"p.o OPERATOR(pg_catalog.=) 'g' OR p.had AND p.has AND {is_same}"
        former = f"CASE WHEN {stayed} THEN {old(rule.feed, before)} ELSE {no_old(rule.feed)} END"
    keyed = (
        f"SELECT {either(lambda row: scope(rule, row, columns))} AS s, p.i, p.o, "
        f"{either(lambda row: token(rule.feed, row, columns))} AS k, {tagged} AS g, "
        f"{former} AS p FROM ({changed}) AS p"
    )
    return _pack(rule, keyed, "update")


def _pack(rule: LogRule, keyed: str, operation: str) -> str:
    """One row of the log for up to so many keys of a scope."""
    few = f"{_N} OPERATOR(pg_catalog.<=) {MOST_TAGGED}"
    op = "keyed.o" if not rule.feed.narrow else f"CASE WHEN {few} THEN keyed.o ELSE 'm' END"
    if rule.feed.is_wide:
        op = "'m'"
    former = _NOTHING
    if rule.feed.old and (operation != "insert" or rule.feed.place is not None):
        listed = "pg_catalog.string_agg(COALESCE(keyed.p, 'null'), ',')"
        former = f"'[' {_OR} {listed} {_OR} ']'"
    tagged = "NULL::pg_catalog.bytea"
    if rule.feed.narrow:
        tagged = "pg_catalog.string_agg(keyed.g, ''::pg_catalog.bytea)"
    keys = "pg_catalog.string_agg(keyed.k, ' ')"
    feed, kind = str(rule.feed.number), f'({op})::pg_catalog."char"'
    given = (_XID, "keyed.s", feed, _SLOT, kind, keys, tagged, former)
    return (
        f"    INSERT INTO feedsvc.log ({_COLUMNS})\n    SELECT {', '.join(given)}\n"
        f"    FROM ({keyed}) AS keyed\n"
        f"    GROUP BY keyed.s, keyed.o, keyed.i OPERATOR(pg_catalog./) {_KEYS_A_ROW};\n"
    )


def _overflow(rule: LogRule, operation: str, table: str, columns: Columns) -> str:
    tables = ("old_rows", "new_rows") if operation == "update" else (table,)
    found = " UNION ALL ".join(
        f"SELECT {scope(rule, 'r', columns)} AS s, NULL::pg_catalog.bytea AS g FROM {one} AS r"
        for one in tables
    )
    return _scopes(rule, found, "o")


def _behind_many(rule: LogRule, tables: Sequence[str]) -> str:
    found = [
        f"SELECT {where} AS s, {tagged} AS g FROM {table} AS r"
        for table in tables
        for where, tagged in _behind(rule, "r")
    ]
    return _scopes(rule, " UNION ALL ".join(found), "w")


def _scopes(rule: LogRule, found: str, op: str) -> str:
    """A row for each scope and tag, or one for all readers where there are too many."""
    feed, everyone = rule.feed.number, number(rule.everyone)
    rest = f"{feed}, {_SLOT}, '{op}'::pg_catalog.\"char\", {_NOTHING}"
    return (
        f"    INSERT INTO feedsvc.log ({_COLUMNS})\n"
        f"    WITH found AS MATERIALIZED (SELECT DISTINCT every.s, every.g FROM ({found}) AS every "
        f"LIMIT {MOST_TAGGED + 1}),\n"
        "    counted AS MATERIALIZED (SELECT pg_catalog.count(*) AS n FROM found)\n"
        f"    SELECT {_XID}, found.s, {rest}, found.g, {_NOTHING} FROM found, counted "
        f"WHERE counted.n OPERATOR(pg_catalog.<=) {MOST_TAGGED}\n"
        f"    UNION ALL SELECT {_XID}, {everyone}, {rest}, NULL, {_NOTHING} FROM counted "
        f"WHERE counted.n OPERATOR(pg_catalog.>) {MOST_TAGGED};\n"
    )


def truncate_body(rules: Sequence[LogRule]) -> str:
    """The body for TRUNCATE."""
    rest = (_NOTHING, "NULL::pg_catalog.bytea", _NOTHING)
    values = [_values(r, "t" if r.own else "w", number(r.everyone), rest) for r in rules]
    return f"BEGIN\n  {_insert(values)}  RETURN NULL;\nEND\n"
