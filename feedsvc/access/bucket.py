"""The generic cell rate algorithm (ITU-T I.371; brandur.org/rate-limiting), as one number.

What a caller has used is a debt in seconds: each unit adds 1 / rate, and time pays it off. A debt
of the whole burst means that nothing may be asked for until some is paid.
"""

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Policy:
    """So many units at once, and so many a second after that; `unit` is what is counted."""

    name: str
    burst: int
    per_second: float
    unit: str | None = None

    def seconds(self, units: float) -> float:
        """The debt that so many units make."""
        return units / self.per_second

    @cached_property
    def most(self) -> float:
        """The largest debt that is allowed, in seconds."""
        return self.burst / self.per_second

    @cached_property
    def described(self) -> str:
        """The policy as a RateLimit-Policy item (draft-ietf-httpapi-ratelimit-headers-10)."""
        unit = f';qu="{self.unit}"' if self.unit else ""
        return f'"{self.name}";q={self.burst};w={max(1, round(self.most))}{unit}'

    def standing(self, debt: float) -> dict[str, str]:
        """The headers that say what is left, and in how many seconds all of it is there again."""
        return self._headers(math.floor((self.most - debt) * self.per_second + 1e-6), debt)

    def refusal(self, debt: float) -> dict[str, str]:
        """The same for a refused caller, whatever fraction of a unit may be left."""
        return self._headers(0, debt)

    def _headers(self, left: int, debt: float) -> dict[str, str]:
        return {
            "RateLimit": f'"{self.name}";r={max(0, left)};t={math.ceil(debt)}',
            "RateLimit-Policy": self.described,
        }


class Bucket:
    """One caller's debt under one policy, as far as this process knows. Times are monotonic."""

    __slots__ = ("_paid_at", "_reporting", "_unreported")

    def __init__(self) -> None:
        self._paid_at = 0.0
        # Seconds of debt that are not reported to the other processes yet, and of which a message
        # is on its way.
        self._unreported = 0.0
        self._reporting = 0.0

    def debt(self, now: float) -> float:
        """The debt at this time, in seconds."""
        return max(0.0, self._paid_at - now)

    def add(self, seconds: float, now: float) -> None:
        """Add to the debt."""
        self._paid_at = now + self.debt(now) + seconds
        self._unreported += seconds

    def begin_report(self, now: float) -> float:
        """The debt to report now, in seconds, without what was paid off in the meantime."""
        reporting, self._unreported = min(self._unreported, self.debt(now)), 0.0
        self._reporting += reporting
        return reporting

    def confirm_report(self, seconds: float, debt: float, now: float) -> None:
        """Take over the debt of all processes, in which this one's report is contained.

        Reports still under way are added: of two messages the later may have arrived first.
        """
        self._reporting -= seconds
        self._paid_at = now + debt + self._unreported + max(0.0, self._reporting)

    def retract_report(self, seconds: float) -> None:
        """The message did not arrive."""
        self._reporting -= seconds
        self._unreported += seconds

    def excess(self, seconds: float, policy: Policy, now: float) -> float:
        """By how much a further debt would exceed what is allowed; at most 0 where it may be."""
        # The sum of many small debts may be off by a rounding, which must not cost the last unit.
        return self.debt(now) + seconds - policy.most - 1e-9
