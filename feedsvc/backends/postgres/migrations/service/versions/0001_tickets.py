"""Tickets: one use, thirty seconds, for clients that can't send a header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.roles import dropping_role, make_role
from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0001"
down_revision: Final = None

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    make_role(op, "feedsvc_service")
    run_script(op, _HERE / "0001_tickets.up.sql")


def downgrade(op: Operations) -> None:
    with dropping_role(op, "feedsvc_service"):
        run_script(op, _HERE / "0001_tickets.down.sql")
