"""The two lines of migrations: what each owns in a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

MigrationLine = Literal["service", "wedding"]


@dataclass(frozen=True, slots=True)
class Territory:
    """The part of a database that is a line's own: one schema and one group role."""

    folder: Path
    schema: str
    role: str
    lock: int
    open_tables: frozenset[str]
    """Tables that hold no tenant's rows; every other table must have row-level security."""
    version_table: str = "alembic_version"
    """The table with the applied revision, by the name that it has had from the first release."""

    @property
    def catalogue(self) -> Path:
        """The folder of the queries that prove the line's indexes; not there for every line."""
        return self.folder / "catalogue"

    @property
    def largest_tenant(self) -> Path:
        """The query of the tenant whose rows prove them."""
        return self.folder / "largest_tenant.sql"


_HERE: Final = Path(__file__).parent

TERRITORIES: Final[dict[MigrationLine, Territory]] = {
    "service": Territory(
        folder=_HERE / "service",
        schema="feedsvc",
        role="feedsvc_service",
        lock=0x66656564_00000001,
        # A ticket is looked up by its hash before its tenant is known; figures are no tenant's. The
        # log has keys without values, of all tenants, and a policy would be asked at each write.
        open_tables=frozenset({"alembic_version", "tickets", "performance", "alerts"})
        | {"log", "log_windows", "log_floor", "log_feeds", "log_epoch", "refreshes"}
        | {f"log_{slot}" for slot in range(8)},
    ),
    "wedding": Territory(
        folder=_HERE / "wedding",
        schema="wedding",
        role="wedding_reader",
        lock=0x66656564_00000002,
        open_tables=frozenset({"alembic_version", "seeding", "refreshes"}),
    ),
}
