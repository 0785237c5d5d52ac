"""Rules for the rows of a view whose key comes from tables that are named (`key_from`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.datasets.dataset import Dataset, relation_parts
from feedsvc.datasets.key_sources import MOST_COLUMNS, KeySource, SourceTable, key_sources
from feedsvc.datasets.view_query import ViewQuery
from feedsvc.feeds.feed_rules import is_newer, policy_fault
from feedsvc.feeds.sql.former_view_rows import ViewSight, ViewTable

_RUN: Final = "run `feedsvc migrate triggers`"


@dataclass(frozen=True)
class ViewRules:
    """A row of `view_rules.sql`. `logged` are the feed's `log_feeds.old_columns`."""

    name: str
    text: str
    query: str
    columns: str
    is_invoker: bool
    tables: str
    is_tree: bool
    unlogged: int
    is_volatile: bool
    asks_the_time: bool
    functions: Sequence[str]
    rights: str
    schema: str
    behind: Sequence[int]
    called: Sequence[int]
    called_by: Sequence[str]
    made_by: Sequence[int]
    logged: Sequence[str] = ()

    def fault(self, dataset: Dataset) -> str | None:
        """The reason why no deltas of the feed can be offered."""
        if not dataset.key_from:
            return f"it is a view, and [{dataset.name}.key_from] names no table of its key"
        if (fault := self.source_fault(dataset)) is not None:
            return fault
        if self.unlogged:
            return f"some changes have no trigger: {_RUN}"
        if not self._is_logged_as_declared(dataset):
            return f"its triggers log it as it was declared before: {_RUN}"
        return self.policy_fault(dataset)

    def policy_fault(self, dataset: Dataset) -> str | None:
        """The same, as far as it is the view's text or a policy."""
        return policy_fault(dataset, "the view, or a policy behind it,", self)

    def source_fault(self, dataset: Dataset) -> str | None:
        """The same, as far as it is what `key_from` says."""
        sources = {source.table: source for source in self._sources(dataset)}
        for relation in dataset.key_from:
            place, name = f"[{dataset.name}.key_from]", ".".join(relation_parts(relation))
            source = sources.get(name)
            if source is None:
                return f"{place} names {relation}, which is no table that the view names"
            known = self._named(name)
            for column in dataset.key:
                own = source.names.get(column.name)
                if own is None:
                    return f"{place} does not say what {column.name!r} is called in {relation}"
                if own not in known:
                    return f"{place}: {relation} has no column {own!r}"
                if known[own]["kind"] != column.kind:
                    return f"{place}: {own!r} of {relation} is of another type than the view's key"
        return None

    @property
    def doubt(self) -> str | None:
        """The reason why former rows can't be decided on; None where they can, or some can."""
        names = [table["bare"] for table in self._tables]
        widest = max((len(part["columns"]) for part in self._parts), default=0)
        doubts = {
            "the view is no plain SELECT of tables and inner joins": not self._parsed.is_plain,
            "the view or a policy calls a volatile function": self.is_volatile,
            "two tables of the view have one name": len(set(names)) < len(names),
            f"its conditions name more than {MOST_COLUMNS} columns": widest > MOST_COLUMNS,
        }
        for table in self._tables:
            name = table["table"]
            doubts[f"a policy of {name} names the row as a whole"] = table["is_undecided"]
            doubts[f"{name} is read in more than one place"] = table["places"] != 1
            doubts[f"{name} is no table"] = not table["is_table"]
        return next((why for why, is_so in doubts.items() if is_so), None)

    @property
    def half_doubt(self) -> str | None:
        """The reason why some former rows can't be decided on."""
        if len(self._tables) == 1 or all(table["can_be_read"] for table in self._tables):
            return None
        return (
            "the view joins tables that the service's login can't read as they are: give the view"
            " `security_invoker`, and the login SELECT on its tables"
        )

    def watched(self, dataset: Dataset) -> list[str]:
        """The view's tables that its key does not come from, and of which `watch` says nothing."""
        named = {".".join(relation_parts(r)) for r in (*dataset.key_from, *dataset.watched)}
        return sorted(table["table"] for table in self._tables if table["table"] not in named)

    def depends_on_others(self, dataset: Dataset) -> bool:
        """Return whether tables that its key does not come from decide on the feed's rows."""
        return len(self.behind) > 1 + len(dataset.key_from) or bool(dataset.watched)

    @property
    def is_undecided(self) -> bool:
        """Return whether former rows can't be decided on."""
        return self.doubt is not None

    @property
    def may_doubt(self) -> bool:
        """Return whether there may be former rows that can't be decided on: those of joins."""
        return self.is_undecided or len(self._tables) > 1

    def sight(self, dataset: Dataset) -> ViewSight:
        """The rules for former rows, where there are any."""
        logged = {part["table"]: part for part in self._parts}
        return ViewSight(
            dataset,
            self.text,
            tuple(
                ViewTable(
                    quoted=table["quoted"],
                    printed=table["printed"],
                    bare=table["bare"],
                    policy=table["policy"],
                    types={c["name"]: c["type"] for c in table["columns"].values()},
                    key=logged.get(table["table"], {}).get("key"),
                    logged=logged.get(table["table"], {}).get("columns", ()),
                    can_be_read=table["can_be_read"],
                )
                for table in sorted(self._tables, key=self._place)
            ),
        )

    def is_newer_than(self, snapshot: Snapshot, present: Snapshot) -> bool:
        """Return whether anything that the feed is made of was made behind the snapshot."""
        return is_newer(self.made_by, snapshot, present)

    @cached_property
    def _parsed(self) -> ViewQuery:
        return ViewQuery.parse(self.query)

    @cached_property
    def _tables(self) -> list[dict[str, Any]]:
        tables: list[dict[str, Any]] = json.loads(self.tables)
        return tables

    @cached_property
    def _parts(self) -> list[dict[str, Any]]:
        """The tables of the key as the log has them, in the order of their places in it."""
        try:
            return [dict(json.loads(text)) for text in self.logged]
        except ValueError:
            return []  # the former columns of a feed that was declared otherwise

    def _place(self, table: Mapping[str, Any]) -> int:
        """The table's place in the log, behind all that have one where it has none."""
        names = [part["table"] for part in self._parts]
        return names.index(table["table"]) if table["table"] in names else len(names)

    def _named(self, table: str) -> dict[str, dict[str, Any]]:
        found = next(t["columns"] for t in self._tables if t["table"] == table)
        return {column["name"]: column for column in found.values()}

    def _sources(self, dataset: Dataset) -> list[KeySource]:
        held_to = [c.name for c in (dataset.tenant, dataset.client) if c is not None]
        return key_sources(
            dataset.key_from,
            held_to,
            self._parsed,
            {int(number): name for number, name in json.loads(self.columns).items()},
            [
                SourceTable(
                    t["oid"], t["table"], {int(n): c["name"] for n, c in t["columns"].items()}
                )
                for t in self._tables
                if t["is_table"]
            ],
        )

    def _is_logged_as_declared(self, dataset: Dataset) -> bool:
        """Return whether the triggers log the same keys, and what decides on a row."""
        names = [column.name for column in dataset.key]
        kept = {part["table"]: part for part in self._parts}
        sources = self._sources(dataset)
        if kept.keys() != {source.table for source in sources}:
            return False
        tenant = "" if dataset.tenant is None else dataset.tenant.name
        policies = {table["table"]: table["policy_columns"] for table in self._tables}
        for source in sources:
            part = kept[source.table]
            deciding = {*(source.deciding or ()), *policies[source.table]}
            if tuple(part["key"]) != source.key(names) or not deciding <= {*part["columns"]}:
                return False
            if part["tenant"] not in (None, source.names.get(tenant)):
                return False
        return True
