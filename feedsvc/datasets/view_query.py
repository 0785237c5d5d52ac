"""A view's query, as its rule in the catalog has it (`ev_action` of `pg_rewrite`).

Of the tree, which PostgreSQL writes with each name and text escaped, this reads what decides
whether a row of the view is there: the tables, the columns that conditions name, and where each
column of the view comes from.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_RELATION, _JOIN = "0", "2"  # RTEKind
_INNER: Final = "0"  # JoinType
_ENTRY: Final = re.compile(r":rtekind (\d+)(?: :relid (\d+) )?")
_VAR: Final = re.compile(r"\{VAR :varno (\d+) :varattno (-?\d+) ")
_TARGET: Final = re.compile(
    r":resno (\d+) :resname (?:\\.|\S)+ :ressortgroupref \d+"
    r" :resorigtbl (\d+) :resorigcol (\d+) :resjunk false"
)
_CONDITIONS: Final = re.compile(
    r" :jointree (.*?) :(?:mergeActionList|targetList|override) ", re.DOTALL
)
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINED: Final = re.compile(r"\{JOINEXPR :jointype (\d+) ")
_NOT_PLAIN: Final = (
    ":hasAggs true", ":hasWindowFuncs true", ":hasTargetSRFs true", ":hasDistinctOn true",
    ":cteList (", ":groupClause (", ":groupingSets (", ":havingQual {", ":distinctClause (",
    ":limitOffset {", ":limitCount {", ":setOperations {", ":tablesample {",
)  # fmt: skip
_QUERY: Final = "{QUERY "

SourceColumn = tuple[int, int]
"""A column: its table's oid, and its number there."""


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """A view's tables, conditions and columns.

    `is_plain`: a row of it comes from one row of each of its tables, by conditions on these rows
    alone. `origins` has the places of those of the view's columns, by number, that are a table's
    as they are. `deciding` are the columns that conditions name, None where all may be.
    """

    is_plain: bool
    tables: Sequence[int]
    origins: Mapping[int, SourceColumn]
    deciding: frozenset[SourceColumn] | None

    @classmethod
    def parse(cls, tree: str) -> "ViewQuery":
        """The query of a rule."""
        tables = [int(relid) for kind, relid in _ENTRY.findall(tree) if kind == _RELATION]
        alone = _alone(tree)
        if alone is None:
            return cls(False, tables, {}, None)
        entries = _ENTRY.findall(alone)
        is_plain = (
            not any(word in alone for word in _NOT_PLAIN)
            and all(kind in (_RELATION, _JOIN) for kind, _ in entries)
            and all(kind == _INNER for kind in _JOINED.findall(alone))
            and not any(number <= 0 for _, number in _columns(alone))
        )
        origins = {
            int(number): (int(table), int(column))
            for number, table, column in _TARGET.findall(alone)
            if table != "0"
        }
        return cls(is_plain, tables, origins, _deciding(alone, entries))


def _alone(tree: str) -> str | None:
    """The query with the columns that inner ones name in their place, None where these read tables.

    One that reads none is as `(SELECT current_setting('feedsvc.tenant'))`.
    """
    outer = tree.find(_QUERY)
    while (at := tree.rfind(_QUERY)) > outer:
        end = _end(tree, at)
        inner = tree[at:end]
        if ":rtable <>" not in inner or any(word in inner for word in _NOT_PLAIN):
            return None
        named = " ".join(found[0] for found in _VAR.finditer(inner))
        tree = f"{tree[:at]}{named} {tree[end:]}"
    return tree


def _end(tree: str, at: int) -> int:
    """The place behind the brace that closes the one at this place."""
    depth = 0
    for brace in _BRACE.finditer(tree, at):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return len(tree)


def _deciding(tree: str, entries: Sequence[tuple[str, str]]) -> frozenset[SourceColumn] | None:
    conditions = _CONDITIONS.search(tree)
    if conditions is None:
        return None
    named = set[SourceColumn]()
    for entry, number in _columns(conditions[1]):
        kind, relid = entries[entry - 1]
        if kind != _RELATION:
            return None  # of a join, whose columns are merged
        named.add((int(relid), number))
    return frozenset(named)


def _columns(tree: str) -> list[tuple[int, int]]:
    return [(int(entry), int(number)) for entry, number in _VAR.findall(tree)]
