"""Proposals from the views for upkeep: indexes that others cover, foreign keys without one."""

from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.model import Proposal

NOT_SET_UP: Final = (
    "Indexes that others cover are not looked for: run `feedsvc migrate up` with an owner's login."
)
_SQL: Final = (Path(__file__).parent / "upkeep.sql").read_text(encoding="utf-8")
_LARGE: Final = 1 << 20  # bytes of a table


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
