"""asyncpg's private names, as named operations, and their check.

No other module uses them (`tests/unit/test_private_names.py`). `fault` is called at the start;
where it finds one, the log has it, and the operations do without: no answer depends on them but
those through a pooler (`TransactionBound`).
"""

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from feedsvc.core import cause

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.transaction import Transaction

NAMES: Final = ("_addr", "_execute", "_get_unique_id", "_protocol")
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


class TransactionBound(PortalNames):
    """A connection whose every statement is run in a transaction, without a name."""

    async def _execute(self, *args: Any, **given: Any) -> Any:
        """Run a query of `fetch`, `fetchrow`, `fetchval`, or `execute` with arguments."""
        if self.is_in_transaction():
            return await super()._execute(*args, **given)  # type: ignore[misc]
        async with self.alone():
            return await super()._execute(*args, **given)  # type: ignore[misc]

    async def _copied(self, script: str, timeout: float | None) -> bytes:
        """Run several statements, one of which is a COPY, in one message; the bytes of that.

        asyncpg's own methods either send one statement or throw away what it gives.
        """
        pieces: list[bytes] = []

        async def keep(piece: bytes) -> None:
            pieces.append(piece)

        await self._protocol.copy_out(script, keep, timeout)  # type: ignore[attr-defined]
        return b"".join(pieces)

    def alone(self) -> "Transaction":
        """A transaction for one statement."""
        return self.transaction(isolation="read_committed", readonly=True)

    def _get_unique_id(self, prefix: str) -> str:
        return "" if prefix == "stmt" else super()._get_unique_id(prefix)


def is_over_unix_socket(connection: "asyncpg.Connection | PoolConnectionProxy") -> bool:
    """Return whether the connection is a Unix socket, whose buffers are small and of fixed size."""
    # asyncpg has it for query loggers alone.
    return isinstance(getattr(connection, "_addr", None), str)
