"""A statement for its most frequent caller: the largest tenant, a pattern that begins with text.

Without values the planner takes an average: of forty tenants each has a fortieth, though one may
have half of the rows and the most of the calls. So the parameter that most statements compare with
the same column is replaced by this column's most frequent value, as the statistics have it. It is
in the text that is planned, and in nothing that is given out.

`LIKE` with a parameter is planned as if any pattern might come, for which no btree does anything. A
pattern that begins with ten letters stands for those that begin with some.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.deparsed import comparison, conjuncts, unqualified
from feedsvc.backends.postgres.advice.model import WorkloadStatement

_SQL: Final = (Path(__file__).parent / "most_common.sql").read_text(encoding="utf-8")
_SKEWED: Final = 0.02  # of all rows
_SHARED: Final = 0.5  # of a table's statements that compare
_PARAMETER: Final = re.compile(r"\$(\d+)")
_IS_PARAMETER: Final = re.compile(r"\$(\d+)(?:::[\w ]+)?")
_PREFIX: Final = "abcdefghij%"
_PARTS: Final = re.compile(r"'(?:[^']|'')*'|\$\d+")
LARGEST: Final = " for the largest"


async def for_the_largest(
    connection: asyncpg.Connection,
    statements: Sequence[WorkloadStatement],
    bare: Mapping[str, Mapping[str, Any]],
) -> AsyncIterator[WorkloadStatement]:
    """The statements that have such parameters, with values, under names of their own."""
    compared = {each.name: list(_compared(bare[each.name])) for each in statements}
    tables = Counter({(table, name) for name, found in compared.items() for table, _, _ in found})
    total = Counter(table for table, _ in tables)
    shared = Counter({
        (table, column): len({name for name, found in compared.items()
                              if (table, column) in {(t, c) for t, c, _ in found}})
        for found in compared.values() for table, column, _ in found
    })  # fmt: skip
    values: dict[tuple[str, str], str | None] = {}
    for statement in statements:
        given = dict.fromkeys(_patterns(bare[statement.name]), _PREFIX)
        for table, column, number in compared[statement.name]:
            if shared[table, column] < max(_SHARED * total[table], 2):
                continue
            if (table, column) not in values:
                row = await connection.fetchrow(_SQL, table, column)
                values[table, column] = None
                if row is not None and row["part"] >= _SKEWED:
                    values[table, column] = row["value"]
            value = values[table, column]
            if value is not None:
                given[number] = value
                break
        if given:
            sql = _with_values(statement.sql, given)
            yield replace(statement, name=f"{statement.name}{LARGEST}", sql=sql)


def _patterns(node: Mapping[str, Any]) -> Iterator[int]:
    """Numbers of the parameters that are a LIKE's pattern."""
    for text in conjuncts(node.get("Filter", "")) if node["Node Type"] == "Seq Scan" else ():
        sides = comparison(text)
        if sides is not None and sides.operator == "~~":
            found = _IS_PARAMETER.fullmatch(sides.right)
            if found is not None:
                yield int(found[1])
    for child in node.get("Plans", ()):
        yield from _patterns(child)


def _compared(node: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Table, column and number of each parameter that a scan compares a column with."""
    found = []
    for text in conjuncts(node.get("Filter", "")) if node["Node Type"] == "Seq Scan" else ():
        sides = comparison(text)
        number = None if sides is None else _IS_PARAMETER.fullmatch(sides.right)
        if sides is not None and number is not None and sides.operator == "=":
            column = unqualified(sides.left, node["Alias"])
            table = f"{node['Schema']}.{node['Relation Name']}"
            found.append((table, column, int(number[1])))
    for child in node.get("Plans", ()):
        found += _compared(child)
    return found


def _with_values(sql: str, values: Mapping[int, str]) -> str:
    """The statement with literals for some of its parameters, the others numbered anew."""
    numbers = sorted({int(each) for each in _PARAMETER.findall(sql)} - values.keys())
    new = {old: f"${place}" for place, old in enumerate(numbers, 1)}
    new |= {number: _literal(value) for number, value in values.items()}
    return _PARTS.sub(
        lambda found: found[0] if found[0].startswith("'") else new[int(found[0][1:])], sql
    )


def _literal(value: str) -> str:
    literal = "'" + value.replace("'", "''") + "'"
    return f"E{literal}".replace("\\", "\\\\") if "\\" in literal else literal
