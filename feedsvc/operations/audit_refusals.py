"""Refusals of requests without a valid token: the first of an address and minute, then a count."""

from dataclasses import dataclass, field
from typing import Any, Final

from feedsvc.core import identifiers
from feedsvc.core.events import RequestEnded

_MINUTE: Final = 60.0
_MOST_ADDRESSES: Final = 10_000  # in a minute; the rest of them are counted together

Entry = dict[str, Any]


@dataclass(slots=True)
class Refusals:
    """Counts of refusals without an entry of their own, by address and minute."""

    _counts: dict[tuple[float, str | None], int] = field(default_factory=dict)

    def is_counted(self, ended: RequestEnded) -> bool:
        """Count a further refusal of an address and minute. False: it needs an entry of its own."""
        if ended.principal is not None or ended.status != 401:
            return False
        place = ended.at // _MINUTE * _MINUTE, ended.address
        if place not in self._counts:
            if len(self._counts) < _MOST_ADDRESSES:
                self._counts[place] = 0
                return False
            place = place[0], None
        self._counts[place] = self._counts.get(place, 0) + 1
        return True

    def over(self, now: float) -> list[Entry]:
        """Take the entries of the minutes that are over at this time."""
        ends = [place for place in self._counts if place[0] + _MINUTE <= now]
        counted = [(place, self._counts.pop(place)) for place in ends]
        return [_entry(place, count) for place, count in counted if count]


def _entry(place: tuple[float, str | None], count: int) -> Entry:
    at, address = place
    return {
        "id": identifiers.new_uuid(),
        "at": at,
        "status": 401,
        "result": "refused",
        "why": "unauthorized",
        "address": address,
        "role": None,
        "query": f"requests={count}",
    }
