"""Proposals that need no trial: tables to be analyzed, and those of the views for upkeep."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.deparsed import quoted
from feedsvc.backends.postgres.advice.model import Proposal, StatementAdvice

NOT_SET_UP: Final = (
    "Indexes that others cover are not looked for: run `feedsvc migrate up` with an owner's login."
)
_SQL: Final = (Path(__file__).parent / "upkeep.sql").read_text(encoding="utf-8")
_LARGE: Final = 1 << 20  # bytes of a table
_BY_STATISTICS: Final = frozenset({"missing-statistics", "old-statistics"})


def analyses(read: Iterable[StatementAdvice]) -> list[Proposal]:
    """An ANALYZE for each table whose statistics are missing or old, by the findings of plans."""
    helped: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for each in read:
        for finding in each.findings:
            if finding.code in _BY_STATISTICS and finding.relation is not None:
                reasons[finding.relation] = finding.sentence
                helped.setdefault(finding.relation, []).append(each.statement.name)
    return [
        Proposal(
            "analyze", f"ANALYZE {'.'.join(map(quoted, relation.split('.', 1)))}", "unproven",
            {}, {}, None, None, tuple(dict.fromkeys(helped[relation])), (), reason,
        )
        for relation, reason in reasons.items()
    ]  # fmt: skip


async def upkeep_proposals(connection: asyncpg.Connection) -> tuple[Proposal, ...] | str:
    """Up to 100 proposals, none of them proven; a sentence where the views can't be read.

    Raises asyncpg's errors where the connection is lost.
    """
    try:
        rows = await connection.fetch(_SQL, _LARGE)
    except (
        asyncpg.UndefinedTableError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InsufficientPrivilegeError,
    ):
        return NOT_SET_UP
    return tuple(
        Proposal(
            row["kind"], row["statement"], "unproven", {}, {}, row["bytes"], None, (), (),
            row["reason"],
        )
        for row in rows
    )  # fmt: skip
