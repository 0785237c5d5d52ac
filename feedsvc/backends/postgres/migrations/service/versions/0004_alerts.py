"""Alerts: when they fired, when they were over, and who has silenced them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0004"
down_revision: Final = "0003"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0004_alerts.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0004_alerts.down.sql")
