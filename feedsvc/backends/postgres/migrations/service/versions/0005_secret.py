"""The key that instances share which have no other secret in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0005"
down_revision: Final = "0004"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0005_secret.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0005_secret.down.sql")
