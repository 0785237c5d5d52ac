"""The number of rows for each tenant."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Room for a tenant's ids: they stay the same however many clients the others have.
_IDS_PER_TENANT: Final = 100_000_000
MOST_ROWS: Final = 50_000_000

# The longest first, so that the short ones fill what is left of the other connections' time.
TABLES: Final = (
    "clients", "budgets", "activity", "payments", "notifications", "messages", "tasks", "timeline",
    "documents", "leads", "contracts", "guests", "reviews", "measurements", "availability",
    "vendors", "analytics",
)  # fmt: skip

Slices = tuple[list[str], list[int], list[int], list[int]]


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """The numbers of clients, vendors and days of analytics of a tenant."""

    number: int
    tenant: str
    clients: int
    vendors: int
    days: int


def slices(plan: Iterable[TenantPlan], table: str) -> Slices:
    """The arrays that a table's statement begins with: tenant, base of ids, first and last row."""
    tenants = list(plan)
    counts = [_count(tenant, table) for tenant in tenants]
    bases = [tenant.number * _IDS_PER_TENANT for tenant in tenants]
    return [tenant.tenant for tenant in tenants], bases, [1] * len(tenants), counts


def _count(tenant: TenantPlan, table: str) -> int:
    if table in {"vendors", "availability"}:
        return tenant.vendors
    return tenant.days if table == "analytics" else tenant.clients
