"""Figures of the past: a row for each worker and minute, and later one for each hour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from alembic.operations import Operations

revision: Final = "0003"
down_revision: Final = "0002"

_HERE: Final = Path(__file__).parent


def upgrade(op: Operations) -> None:
    run_script(op, _HERE / "0003_performance.up.sql")


def downgrade(op: Operations) -> None:
    run_script(op, _HERE / "0003_performance.down.sql")
