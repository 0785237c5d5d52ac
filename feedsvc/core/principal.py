"""The principal of a request."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["member", "admin"]


@dataclass(frozen=True, slots=True)
class Principal:
    """The tenant and role of a valid token. `client` narrows it to one client of the tenant.

    `expires_at` is the token's, in seconds since 1970; `subject` tells one person of a tenant from
    another where the issuer says so. `operator` lets it operate the service, and shows it no row
    more.
    """

    tenant: str
    role: Role
    client: str | None
    expires_at: float
    subject: str | None = None
    operator: bool = False

    @property
    def scope(self) -> tuple[str, str, str]:
        """The values that row-level security gets, and so all that its rows depend on."""
        return self.tenant, self.role, self.client or ""

    def plain(self) -> dict[str, Any]:
        """The principal as plain values, to be kept elsewhere; `Principal(**…)` reads it back."""
        return asdict(self)
