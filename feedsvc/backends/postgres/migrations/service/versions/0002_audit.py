"""The audit log: the service adds to it, and neither reads nor changes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0002"
down_revision: Final = "0001"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0002_audit.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0002_audit.down.sql")
