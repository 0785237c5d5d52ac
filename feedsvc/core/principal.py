"""The principal of a request."""

import hashlib
from dataclasses import asdict, dataclass, field
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
    identity: str = field(init=False, repr=False, compare=False)
    """A digest of the tenant, role, client and subject, from which none of them can be read."""

    def __post_init__(self) -> None:
        who = repr((self.tenant, self.role, self.client, self.subject))
        digest = hashlib.blake2b(who.encode(), digest_size=16).hexdigest()
        object.__setattr__(self, "identity", digest)  # made once: each request counts by it

    @property
    def scope(self) -> tuple[str, str, str]:
        """The values that row-level security gets, and so all that its rows depend on."""
        return self.tenant, self.role, self.client or ""

    def plain(self) -> dict[str, Any]:
        """The principal as plain values, to be kept elsewhere; `Principal(**…)` reads it back."""
        plain = asdict(self)
        del plain["identity"]
        return plain
