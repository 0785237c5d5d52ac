"""A table's triggers that write the change log, as SQL, and what differs from them in a database.

A plain table has three for each kind of write. One of rows logs while the session has changed few
of them; one of statements, over transition tables, beyond that, when it logs the whole statement.
What decides is PostgreSQL's own count, in the functions of both. The third is of rows, too, and
fires where a session plays a replica's part, as logical replication does, which fires no statement
triggers.
Partitions, and what inherits, have one of rows that fires always: a statement fires the statement
triggers of the table that it names alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg

from feedsvc.changes import log_expressions as sql
from feedsvc.changes import log_functions as functions
from feedsvc.changes.log_rules import LogColumn, LogRule
from feedsvc.datasets.dataset import quote_identifier

FEW_ROWS: Final = 10_000
"""Rows of a table that a session has changed within a transaction, or a second, from which on its
statements are logged as a whole."""
_COUNTS: Final = {"insert": "inserted", "update": "updated", "delete": "deleted"}
_TABLES: Final = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}
_MODES: Final = {
    "D": "disabled",
    "O": "enabled as ORIGIN",
    "A": "enabled as ALWAYS",
    "R": "enabled as REPLICA",
}
"""`tgenabled` of pg_trigger, in words."""
_STATES: Final = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


@dataclass(frozen=True, slots=True)
class LogTrigger:
    """One trigger: its name, its function, its SQL, and `tgenabled` as it must be."""

    name: str
    function: str
    body: str
    settings: str
    event: str
    enabled: str


@dataclass(slots=True)
class LoggedTable:
    """A table whose changes are logged. `in_tree`: it is part of others, or others are part of it.

    `rules` are for its rows; a partition whose rows its parent's triggers log has `emptied` alone,
    those for TRUNCATE.
    """

    schema: str
    name: str
    columns: Mapping[str, LogColumn]
    in_tree: bool
    rules: list[LogRule] = field(default_factory=list)
    emptied: list[LogRule] = field(default_factory=list)

    @property
    def quoted(self) -> str:
        """The table as SQL names it."""
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"

    @property
    def mark(self) -> str:
        """A part of names that no identifier is too long or too odd for."""
        return hashlib.sha256(f"{self.schema}\0{self.name}".encode()).hexdigest()[:16]

    def triggers(self) -> list[LogTrigger]:
        """All triggers of the table."""
        made = [self._truncate()]
        if self.rules:
            for operation in _COUNTS:
                made += self._of(operation)
        # The functions are compared with those in the database, and stand for their triggers' WHEN.
        meant = hashlib.sha256(repr(made).encode()).hexdigest()[:16]
        table = one_line(self.quoted)
        note = f"\n-- Logs changes to {table} ({meant}). Made by `feedsvc migrate triggers`.\n"
        return [replace(trigger, body=note + trigger.body) for trigger in made]

    def statements(self) -> list[str]:
        """SQL that makes functions and triggers, replacing older ones."""
        made: dict[str, None] = {}
        for trigger in self.triggers():
            function = f"feedsvc.{trigger.function}()"
            made[
                f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql "
                f"SECURITY DEFINER {trigger.settings}AS {dollar_quoted(trigger.body)}"
            ] = None
            # A role that may execute it could make a trigger of it, and log what did not change.
            made[f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"] = None
        for trigger in self.triggers():
            name = quote_identifier(trigger.name)
            made[
                f"CREATE OR REPLACE TRIGGER {name} {trigger.event} "
                f"EXECUTE FUNCTION feedsvc.{trigger.function}()"
            ] = None
            made[f"ALTER TABLE {self.quoted} {_STATES[trigger.enabled]} TRIGGER {name}"] = None
        return list(made)

    def _of(self, operation: str) -> list[LogTrigger]:
        count = (
            f"pg_catalog.pg_stat_get_xact_tuples_{_COUNTS[operation]}("
            f"{sql.literal(self.quoted)}::pg_catalog.regclass)"
        )
        changed = self._changed()
        few = f"{count} OPERATOR(pg_catalog.<=) {FEW_ROWS}"
        rows, every = (
            functions.row_body(operation, self.rules, self.columns, conditions)
            for conditions in (
                functions.RowConditions(few, changed), functions.RowConditions("", changed)
            )
        )  # fmt: skip
        many = functions.statement_body(
            operation, self.rules, self.columns, f"{count} OPERATOR(pg_catalog.>) {FEW_ROWS}"
        )
        each_row = f"AFTER {operation.upper()} ON {self.quoted} FOR EACH ROW"
        if self.in_tree:
            return [self._trigger(operation, "", every, each_row, "A")]
        event = (
            f"AFTER {operation.upper()} ON {self.quoted} REFERENCING {_TABLES[operation]} "
            "FOR EACH STATEMENT"
        )
        return [
            self._trigger(operation, "", rows, each_row, "O"),
            self._trigger(operation, "_many", many, event, "O"),
            self._trigger(operation, "_applied", every, each_row, "R"),
        ]

    def _truncate(self) -> LogTrigger:
        event = f"AFTER TRUNCATE ON {self.quoted} FOR EACH STATEMENT"
        return self._trigger("truncate", "", functions.truncate_body(self.emptied), event, "A")

    def _trigger(
        self, operation: str, kind: str, body: str, event: str, enabled: str
    ) -> LogTrigger:
        function = f"logs_{self.mark}_{operation}{kind}"
        needed = operation != "truncate" and sql.needs_settings(self.rules, self.columns)
        settings = f"{sql.SETTINGS} " if needed else ""
        name = f"feedsvc_log_{operation}{kind}_{self.mark}"
        return LogTrigger(name, function, body, settings, event, enabled)

    def _changed(self) -> str:
        """Return whether an update changed what any feed shows of its own rows."""
        shown = {name for rule in self.rules if rule.own for name in rule.feed.published}
        names = [name for name in self.columns if name in shown]
        if len(names) == len(self.columns):
            return "(OLD OPERATOR(pg_catalog.*=) NEW) IS NOT TRUE"
        return f"({sql.unchanged(names, 'OLD', 'NEW', self.columns)}) IS NOT TRUE"

    def fault(self, standing: Sequence[asyncpg.Record]) -> str | None:
        """The fault of the table's triggers among those that stand, or of their copies.

        A partition has a copy of its parent's triggers of rows.
        """
        place = (self.schema, self.name)
        own = {row["trigger"]: row for row in standing if (row["schema"], row["name"]) == place}
        modes = {trigger.name: trigger.enabled for trigger in self.triggers()}
        for trigger in self.triggers():
            row = own.get(trigger.name)
            if row is None:
                return f"{'.'.join(place)} has no trigger {trigger.name}"
            if (row["function"], row["body"]) != (trigger.function, trigger.body):
                return f"the triggers of {'.'.join(place)} are for other columns or datasets"
        for row in standing:
            if row["trigger"] in modes and row["enabled"] != modes[row["trigger"]]:
                where = f"{row['schema']}.{row['name']}"
                is_now = f"is {_MODES[row['enabled']]}, not {_MODES[modes[row['trigger']]]}"
                return f"the trigger {row['trigger']} of {where} {is_now}"
        return None


def dollar_quoted(body: str) -> str:
    """The body between dollar signs that it does not contain."""
    mark = "feedsvc"
    while f"${mark}$" in body:
        mark += "_"
    return f"${mark}${body}${mark}$"


def one_line(text: str) -> str:
    """The text without what would end a comment."""
    return text.replace("\n", " ").replace("\r", " ")
