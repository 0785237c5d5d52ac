"""Who may read what: row-level security and the group role that it speaks to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.roles import dropping_role, make_role
from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0003"
down_revision: Final = "0002"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    make_role(op, "wedding_reader")
    run_script(op, _HERE / "0003_access.up.sql")


def downgrade(op: Operations) -> None:
    with dropping_role(op, "wedding_reader"):
        run_script(op, _HERE / "0003_access.down.sql")
