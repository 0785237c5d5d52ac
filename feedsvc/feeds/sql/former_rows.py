"""Former rows as SQL: which of them a caller could see, by the policies' own text.

A policy's deparsed text names its table's columns bare or by the table's name, so a record of the
columns that it names, under that name, takes the table's place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple

import orjson

from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Column, Dataset, quote_identifier
from feedsvc.feeds.sql.quoting import literal
from feedsvc.feeds.sql.statement import Statement

_VISIBLE: Final = """
SELECT DISTINCT {rows}.{place}::int FROM unnest($1::text[], $2::text[], $3::text[])
    AS {rows} ({place}, {known}, {former})
CROSS JOIN LATERAL json_to_record(json_build_object({pairs})) AS {name} ({columns})
WHERE ({policy}){held}
"""


class FormerRow(NamedTuple):
    """A row as the log has it: its key, and the JSON array of its other columns that are known."""

    place: int
    key: Sequence[str]
    columns: str


@dataclass(frozen=True, slots=True)
class Sight:
    """The conditions under which a row of a table can be seen.

    `name` is the table's own, `policy` SQL over its columns, `old_columns` are those that
    `FormerRow.columns` has, and `types` has the types of these and of the key and the tenant.
    """

    dataset: Dataset
    name: str
    policy: str
    old_columns: Sequence[str]
    types: Mapping[str, str]

    def visible(self, former: Iterable[FormerRow], principal: Principal) -> Statement:
        """SQL for the places of those rows that the caller could see."""
        rows = list(former)
        known = [*self._scoped(), *(column.name for column in self.dataset.key)]
        taken = {*self.dataset.all_columns, self.name}
        free = (name for n in count() if (name := f"o{n}") not in taken)
        names = dict(zip(("rows", "place", "known", "former"), free, strict=False))
        pairs = [
            f"{literal(column)}, {names['rows']}.{names['known']}::json -> {at}"
            for at, column in enumerate(known)
        ]
        pairs += [
            f"{literal(column)}, {names['rows']}.{names['former']}::json -> {at}"
            for at, column in enumerate(self.old_columns)
        ]
        columns = (
            f"{quote_identifier(column)} {self.types[column]}"
            for column in (*known, *self.old_columns)
        )
        values: list[str | list[str]] = [
            [str(row.place) for row in rows],
            [self._known(row, principal) for row in rows],
            [row.columns for row in rows],
        ]
        sql = _VISIBLE.format(
            **names,
            pairs=", ".join(pairs),
            name=quote_identifier(self.name),
            columns=", ".join(columns),
            policy=self.policy,
            held=held(self.dataset, quote_identifier(self.name), principal, values),
        )
        return Statement(sql, tuple(values))

    def _scoped(self) -> list[str]:
        """The tenant's column, where the log's scope is the tenant's and not everyone's."""
        tenant, key = self.dataset.tenant, [column.name for column in self.dataset.key]
        is_known = tenant is None or tenant.name in (*self.old_columns, *key)
        return [] if tenant is None or is_known else [tenant.name]

    def _known(self, row: FormerRow, principal: Principal) -> str:
        held = [principal.tenant] if self._scoped() else []
        return orjson.dumps([*held, *row.key]).decode()


def held(
    dataset: Dataset, relation: str, principal: Principal, values: list[str | list[str]]
) -> str:
    """The second lock, as it is beside row-level security: conditions behind others.

    `relation` is quoted; what is compared is added to the values.
    """
    pairs: list[tuple[Column | None, str]] = []
    if dataset.tenant is not None:
        pairs.append((dataset.tenant, principal.tenant))
    if principal.client is not None and not dataset.shared_with_clients:
        pairs.append((dataset.client, principal.client))
    conditions = ""
    for column, value in pairs:
        if column is None:
            return " AND false"
        values.append(value)
        place = f"{relation}.{quote_identifier(column.name)}"
        conditions += f" AND {place} = ${len(values)}::text::{column.base}"
    return conditions
