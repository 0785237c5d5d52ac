"""The demo's world: suppliers are the tenants, couples their clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0001"
down_revision: Final = None

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0001_tables.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0001_tables.down.sql")
