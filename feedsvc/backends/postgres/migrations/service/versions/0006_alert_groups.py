"""Incidents of alerts that several instances share, so that one of them sends the message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0006"
down_revision: Final = "0005"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0006_alert_groups.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0006_alert_groups.down.sql")
