"""asyncpg's private names, as named operations, and their check.

No other module uses them (`tests/unit/test_private_names.py`). `fault` is called at the start;
where it finds one, the log has it, and the operations do without: no answer depends on them.
"""

from typing import TYPE_CHECKING, Final

import asyncpg

from feedsvc.core import cause

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

NAMES: Final = ("_addr", "_get_unique_id")
"""Attributes of a connection."""


def fault() -> str | None:
    """The names that this asyncpg lacks, as a sentence; None where it has all."""
    missing = [name for name in NAMES if not hasattr(asyncpg.Connection, name)]
    return f"asyncpg {asyncpg.__version__} has no {', '.join(missing)}" if missing else None


class PortalNames(asyncpg.Connection):
    """A connection whose portals bear the cause of their statements in their names."""

    def _get_unique_id(self, prefix: str) -> str:
        name: str = super()._get_unique_id(prefix)  # type: ignore[misc]
        return cause.of_portal(name) if prefix == "portal" else name


def is_over_unix_socket(connection: "asyncpg.Connection | PoolConnectionProxy") -> bool:
    """Whether the connection is a Unix socket, whose buffers are small and of fixed size."""
    # asyncpg has it for query loggers alone.
    return isinstance(getattr(connection, "_addr", None), str)
