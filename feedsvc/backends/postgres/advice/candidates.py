"""Candidates for indexes, from what statements need of tables.

Columns of equality come first, the ones that most statements share in front, then a range or an
order, then included columns. Which of them are worth anything is for the planner to say.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from feedsvc.backends.postgres.advice.designs import IndexDesign, Method
from feedsvc.backends.postgres.advice.needs import OrderKey, SearchCondition, TableNeed
from feedsvc.backends.postgres.advice.tables import TableFacts
from feedsvc.backends.postgres.index_proof.existing import ExistingIndex

MOST_OF_A_TABLE: Final = 60
_MOST_KEYS: Final = 6
_MOST_INCLUDED: Final = 3
_WIDEST_INCLUDED: Final = 32  # bytes: an index is read faster than its table as long as it is small
_IN_ORDER: Final = 0.95  # of rows and time: so much correlation has a table that is only added to
_FEW_CHANGED: Final = 0.05
_RARE: Final = 0.05  # of rows
_LARGE: Final = 8 << 20  # bytes
_TRIGRAMS: Final = frozenset({"~~", "~~*", "~", "~*", "%"})
_PATTERN: Final = "~~"
BY_BYTES: Final = "text_pattern_ops"  # in which a pattern's beginning is a range
_KEYS_OF_JSON: Final = frozenset({"?", "?|", "?&"})


def candidates(
    needs: Iterable[TableNeed],
    facts: Mapping[str, TableFacts],
    existing: Sequence[ExistingIndex],
    *,
    trigrams: str | None,
) -> list[IndexDesign]:
    """At most 60 designs for each table, without repetition.

    `trigrams` is the operator class of pg_trgm with its schema, None where it is not installed.
    """
    by_table: dict[str, list[TableNeed]] = {}
    for need in needs:
        by_table.setdefault(need.table, []).append(need)
    found: list[IndexDesign] = []
    for name, theirs in by_table.items():
        own = [index for index in existing if index.table == name]
        of_table = _Candidates(facts[name], theirs, trigrams, own)
        found += islice(dict.fromkeys(of_table.all()), MOST_OF_A_TABLE)
    return found


class _Candidates:
    """The candidates of one table."""

    def __init__(
        self,
        table: TableFacts,
        needs: Sequence[TableNeed],
        trigrams: str | None,
        existing: Sequence[ExistingIndex],
    ) -> None:
        self._table = table
        self._needs = needs
        self._trigrams = trigrams
        self._by_time = {_columns(each)[0] for each in existing if each.method == "brin"}
        self._there = [_columns(each) for each in existing]
        self._shared = Counter(key for need in needs for key in {*need.equal, *need.listed})

    def all(self) -> Iterator[IndexDesign]:
        """Every design, the plain ones of all needs first."""
        for need in self._needs:
            for search in need.searches:
                yield from self._searching(search)
        for need in self._needs:
            for keys in self._key_lists(need):
                yield from self._btree(keys)
            yield from self._in_order_of_time(need)
        for need in self._needs:
            yield from self._limited(need)
        for need in self._needs:
            yield from self._covering(need)

    def _key_lists(self, need: TableNeed, without: Iterable[str] = ()) -> Iterator[list[str]]:
        """Lists of keys for a btree, the longest first."""
        equal = [each for each in need.equal if each not in set(without)]
        equal.sort(key=lambda each: -self._shared[each])
        order = [key for key in need.order if key.expression not in equal]
        ordered = _directed(order)
        for front in self._fronts(equal, need):
            if ordered:
                yield [*map(_key, front), *ordered]
            for keys in need.ranges:
                tail = [key for key in keys if key not in front]
                if not front and self._has_brin(keys[0]):
                    continue
                if [key.expression for key in order[: len(tail)]] != tail:
                    yield [*map(_key, front), *map(_key, tail)]
            for each in need.listed:
                yield [*map(_key, front), _key(each)]
                yield [*map(_key, front), _key(each), *ordered]
            for search in need.searches:
                if search.operator == _PATTERN:
                    yield [*map(_key, front), f"{_key(search.expression)} {BY_BYTES}"]
            yield [_key(each) for each in front]

    def _fronts(self, equal: list[str], need: TableNeed) -> Iterator[list[str]]:
        """The columns of equality, in orders that other statements begin with too."""
        yield equal
        given = [each for each in equal if each in need.given]
        if 0 < len(given) < len(equal):  # where the join begins with this table
            yield given
        for other in self._needs:
            first = [each for each in other.equal if each in equal]
            if other is not need and first and len(first) < len(equal):
                first.sort(key=lambda each: -self._shared[each])
                yield [*first, *(each for each in equal if each not in first)]
        if len(equal) > 2:  # the planner finds one condition of a join where two are guessed wrong
            yield equal[:2]

    def _btree(
        self, keys: Sequence[str], predicate: str = "", included: Sequence[str] = ()
    ) -> Iterator[IndexDesign]:
        keys = list(dict.fromkeys(keys))[:_MOST_KEYS]
        if keys:
            yield self._design("btree", tuple(keys), tuple(included), predicate)

    def _limited(self, need: TableNeed) -> Iterator[IndexDesign]:
        """Of the rows alone that a condition without a parameter leaves."""
        limits = list(need.predicates)
        if len(limits) > 1:
            limits.append(" AND ".join(f"({each})" for each in limits))
        for limit in limits:
            fixed = [key for key in need.equal if limit.startswith((f"({key} ", f"{key} = "))]
            lists = list(self._key_lists(need, without=fixed))
            for keys in lists or [[_key(limit.split(" IS ")[0])]]:
                yield from self._btree(keys, limit)

    def _covering(self, need: TableNeed) -> Iterator[IndexDesign]:
        """With the columns that are read besides, where those are a small part of the table.

        Not beside an index of the same keys: it would do nothing but spare visits to the table.
        """
        if need.needed is None or len(need.needed) * 2 > len(self._table.columns):
            return
        for keys in self._key_lists(need):
            more = sorted(need.needed - {key.split(" ")[0] for key in keys})
            width = sum(self._table.columns[each].width for each in more)
            is_there = any(each[: len(keys)] == keys for each in self._there)
            if not is_there and 0 < len(more) <= _MOST_INCLUDED and width <= _WIDEST_INCLUDED:
                yield from self._btree(keys, included=more)

    def _in_order_of_time(self, need: TableNeed) -> Iterator[IndexDesign]:
        """BRIN for a range without an equality, on a table whose rows lie in its order."""
        for keys in need.ranges:
            if need.equal or len(keys) > 1 or keys[0] in self._by_time:
                continue
            if self._has_brin(keys[0]):
                pages = 8 if self._table.bytes < 1 << 30 else 32
                yield self._design("brin", keys, options=f"pages_per_range = {pages}")

    def _has_brin(self, key: str) -> bool:
        """Return whether BRIN serves a range: one is there, or the table is large and in order.

        A few KiB do then what a btree would of a size that grows with the table.
        """
        column = self._table.columns.get(key)
        is_in_order = (
            column is not None
            and column.category in {"D", "N"}
            and abs(column.correlation or 0) >= _IN_ORDER
            and self._table.changed <= _FEW_CHANGED * self._table.rows
        )
        return key in self._by_time or (is_in_order and self._table.bytes >= _LARGE)

    def _searching(self, search: SearchCondition) -> Iterator[IndexDesign]:
        column = self._table.columns.get(search.expression)
        kind = None if column is None else column.type
        key = _key(search.expression)
        if search.operator == "@@":
            yield self._design("gin", (key,))
        elif search.operator in _TRIGRAMS:
            if self._trigrams is not None:
                yield self._design("gin", (f"{key} {self._trigrams}",))
        elif kind == "jsonb":
            if search.operator in _KEYS_OF_JSON:
                yield self._design("gin", (key,))
            elif search.operator in {"@>", "@?", "@@"}:
                yield self._design("gin", (f"{key} jsonb_path_ops",))
        elif column is not None and column.category == "A" and search.operator != "-|-":
            # As for a parameter's elements the planner has one frequency for all, a rare one.
            if (column.least_element or 0) < _RARE:
                yield self._design("gin", (key,))
        elif column is not None and column.category == "R":
            yield self._design("gist", (key,))

    def _design(
        self,
        method: Method,
        keys: tuple[str, ...],
        included: tuple[str, ...] = (),
        predicate: str = "",
        options: str = "",
    ) -> IndexDesign:
        table = self._table
        return IndexDesign(table.name, table.quoted, method, keys, included, predicate, options)


def _directed(order: Sequence[OrderKey]) -> list[str]:
    """Keys of an order; an index is read either way, so all that descend may as well ascend."""
    if (
        all(key.direction in {"", "DESC"} for key in order)
        and len({key.direction for key in order}) == 1
    ):
        return [_key(key.expression) for key in order]
    return [f"{_key(key.expression)} {key.direction}".strip() for key in order]


def _key(expression: str) -> str:
    plain = expression.replace("_", "").replace("$", "")
    is_column = plain.isalnum() or (expression.startswith('"') and expression.endswith('"'))
    return expression if is_column else f"({expression})"


def _columns(index: ExistingIndex) -> list[str]:
    """The keys of an existing index, without operators and order."""
    return [" ".join(key.split(" ")[:-3]) for key in index.keys]
