"""Group roles: what a migration grants to, for it can't know the login's name."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from feedsvc.backends.postgres.migrations.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations

_HERE: Final = Path(__file__).parent


def make_role(op: Operations, name: str) -> None:
    """Makes the NOLOGIN role unless there is one; safe while other databases do the same."""
    _run(op, name, "make_role.sql")


@contextmanager
def dropping_role(op: Operations, name: str) -> Iterator[None]:
    """Drops the role behind the block, which takes back what this database has granted to it.

    Only if a migration made the role, and no other database has granted anything to it.
    """
    _run(op, name, "hold_role.sql")
    yield
    _run(op, name, "drop_role.sql")


def _run(op: Operations, name: str, script: str) -> None:
    # A DO block takes no parameters, so the name travels as a setting of this transaction.
    setting = text("SELECT set_config('feedsvc.migrated_role', :name, true)")
    op.get_bind().execute(setting, {"name": name})
    run_script(op, _HERE / script)
