"""The needs of a statement: for each table what is equal, in a range, searched and in order.

Read from its plan without indexes, in which every condition of a table is in a Filter or a join's
condition, and every order in a Sort: as views, policies and functions have left them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from feedsvc.backends.postgres.advice.deparsed import (
    Comparison,
    commuted,
    comparison,
    conjuncts,
    literals,
    mentions,
    quoted_columns_of,
    row_parts,
    unqualified,
)
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.tables import TableFacts

_JOINED: Final = ("Hash Cond", "Merge Cond", "Join Filter", "Filter")
_RANGES: Final = frozenset({"<", "<=", ">", ">="})
_SEARCHES: Final = frozenset(
    {"@>", "<@", "&&", "@@", "?", "?|", "?&", "@?", "~~", "~~*", "~", "~*", "%", "-|-"}
)
_STATES: Final = frozenset({"IS NULL", "IS NOT NULL", "NOT", "TRUE"})
_DIRECTION: Final = re.compile(r"^(.*?)( DESC)?( NULLS (?:FIRST|LAST))?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OrderKey:
    """A key of an order: an expression of one table, and its direction as SQL, or ''."""

    expression: str
    direction: str


@dataclass(frozen=True, slots=True)
class SearchCondition:
    """A condition that no btree serves: an expression, an operator."""

    expression: str
    operator: str


@dataclass(frozen=True, slots=True)
class TableNeed:
    """The need of a statement of one table. Expressions are without the table's alias."""

    statement: str
    table: str
    equal: tuple[str, ...]
    given: tuple[str, ...]
    """Of these, equal to what no other table has to give first."""
    listed: tuple[str, ...]
    """Equal to one of several."""
    ranges: tuple[tuple[str, ...], ...]
    """A range's expressions: several for a comparison of rows."""
    searches: tuple[SearchCondition, ...]
    order: tuple[OrderKey, ...]
    predicates: tuple[str, ...]
    """Conditions that an index may be limited to: none has a value out of a statement's text,
    unless that is the catalogue's own."""
    needed: frozenset[str] | None
    """The columns that the statement reads; None where they can't be known."""


def table_needs(
    statement: WorkloadStatement, top: Mapping[str, Any], facts: Mapping[str, TableFacts]
) -> Iterator[TableNeed]:
    """The needs of each table in a plan without indexes that facts are known of."""
    nodes = list(_nodes(top, ()))
    for scan, above in nodes:
        if scan["Node Type"] != "Seq Scan":
            continue
        table = facts.get(f"{scan['Schema']}.{scan['Relation Name']}")
        if table is not None and table.takes_indexes:
            yield _ScanReader(statement, table, scan, above, [node for node, _ in nodes]).need()


@dataclass(slots=True)
class _ScanReader:
    statement: WorkloadStatement
    table: TableFacts
    scan: Mapping[str, Any]
    above: Sequence[Mapping[str, Any]]
    nodes: Sequence[Mapping[str, Any]]

    def need(self) -> TableNeed:
        """The table's need."""
        equal: list[str] = []
        given: list[str] = []
        listed: list[str] = []
        ranges: list[tuple[str, ...]] = []
        searches: list[SearchCondition] = []
        predicates: list[str] = []
        for text, found in self._comparisons():
            if self._is_limit(found):
                predicates.append(unqualified(text, self.alias))
            parts = row_parts(found.left)
            keys = tuple(self._key(each) for each in parts or [found.left])
            if found.operator == "=" and parts is None:
                equal.append(keys[0])
                if not self._is_joined(found.right):
                    given.append(keys[0])
            elif found.operator == "= ANY":
                listed.append(keys[0])
            elif found.operator in _RANGES:
                ranges.append(keys)
            elif found.operator in _SEARCHES:
                searches.append(SearchCondition(keys[0], found.operator))
        predicates += self._filled([*equal, *(key for keys in ranges for key in keys)])
        return TableNeed(
            self.statement.name,
            self.table.name,
            tuple(dict.fromkeys(equal)),
            tuple(dict.fromkeys(given)),
            tuple(dict.fromkeys(listed)),
            tuple(dict.fromkeys(ranges)),
            tuple(dict.fromkeys(searches)),
            self._order(),
            tuple(dict.fromkeys(predicates)),
            self._needed(),
        )

    @property
    def alias(self) -> str:
        """The table's name in this plan."""
        alias: str = self.scan["Alias"]
        return alias

    def _comparisons(self) -> Iterator[tuple[str, Comparison]]:
        """Comparisons with something that isn't the table's own, the table's side to the left."""
        for node in self.nodes:
            for name in _JOINED:
                for text in conjuncts(node.get(name, "")):
                    found = comparison(text) if text and mentions(text, self.alias) else None
                    if found is None:
                        continue
                    if not mentions(found.left, self.alias):
                        found = commuted(found)
                    if (
                        found is not None
                        and not mentions(found.right, self.alias)
                        and self._is_own(found.left)
                    ):
                        yield text, found

    def _is_own(self, text: str) -> bool:
        """Return whether it has columns of this table alone, and no value from outside."""
        plain = re.sub(r"'(?:[^']|'')*'", "", text)
        if "$" in plain or "InitPlan" in plain or "SubPlan" in plain:
            return False
        return not self._is_joined(text) and self._may_show(text)

    def _is_joined(self, text: str) -> bool:
        """Return whether it has columns of another table."""
        others = {node["Alias"] for node in self.nodes if "Alias" in node} - {self.alias}
        return any(mentions(text, other) for other in others)

    def _may_show(self, text: str) -> bool:
        """Return whether its constants are code: the catalogue's, a view's, a policy's."""
        if self.statement.source == "catalogue":
            return True
        return not any(each in self.statement.sql for each in literals(text))

    def _is_limit(self, found: Comparison) -> bool:
        if found.operator in _STATES:
            return True
        is_comparison = found.operator in {"=", "= ANY"} or found.operator in _RANGES
        constant = re.sub(r"'(?:[^']|'')*'(?:::[\w \[\]\".]+)?", "1", found.right)
        return (
            is_comparison
            and re.fullmatch(r"\(?-?[\d.]+(?:::[\w \[\]\".]+)?\)?", constant) is not None
            and self._may_show(found.right)
        )

    def _filled(self, keys: Sequence[str]) -> Iterator[str]:
        """IS NOT NULL of columns that mostly are, which a strict comparison implies."""
        for key in keys:
            column = self.table.columns.get(key)
            if column is not None and (column.null_fraction or 0) > 0.5:
                yield f"{key} IS NOT NULL"

    def _key(self, text: str) -> str:
        """An expression as an index has it: without a cast that changes nothing."""
        key = unqualified(text, self.alias)
        while key.startswith("(") and key.endswith(")") and key[1:-1] in self.table.columns:
            key = key[1:-1]
        name, _, cast = key.partition(")::")
        column = self.table.columns.get(name.removeprefix("("))
        if column is not None and cast and name.startswith("("):
            same = column.type == cast and column.is_domain
            if same or (column.type, cast) == ("character varying", "text"):
                return name.removeprefix("(")
        return key

    def _order(self) -> tuple[OrderKey, ...]:
        for node in reversed(self.above):
            if node["Node Type"] != "Sort":
                continue
            keys = [_DIRECTION.match(key) for key in node["Sort Key"]]
            found = [
                OrderKey(self._key(_stripped(key[1])), f"{key[2] or ''}{key[3] or ''}".strip())
                for key in keys
                if key is not None and mentions(key[1], self.alias) and self._is_own(key[1])
            ]
            return tuple(found) if len(found) == len(keys) else ()
        return ()

    def _needed(self) -> frozenset[str] | None:
        own = " ".join(self.scan.get("Filter", "").split("\n"))
        names = quoted_columns_of(own, self.alias)
        readers = [node for node in self.nodes if node is not self.scan] or [self.scan]
        for node in readers:
            for value in node.values():
                if isinstance(value, str):
                    names |= quoted_columns_of(value, self.alias)
                elif isinstance(value, list) and value and isinstance(value[0], str):
                    names |= self._in_output(value)
        return frozenset(names) if names <= self.table.columns.keys() else None

    def _in_output(self, output: Sequence[str]) -> set[str]:
        """Columns in a list of expressions, which have no prefix where there is one table."""
        tables = {node["Alias"] for node in self.nodes if "Alias" in node}
        names: set[str] = set()
        for each in output:
            names |= quoted_columns_of(each, self.alias)
            if len(tables) == 1:
                plain = re.sub(r"'(?:[^']|'')*'|::[\w ]+", "", each)
                words = re.findall(r'"(?:[^"]|"")*"|[\w$]+', plain)
                names |= {word for word in words if word in self.table.columns}
        return names


def _stripped(text: str) -> str:
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def _nodes(
    node: Mapping[str, Any], above: tuple[Mapping[str, Any], ...]
) -> Iterator[tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]]:
    yield node, above
    for child in node.get("Plans", ()):
        yield from _nodes(child, (*above, node))
