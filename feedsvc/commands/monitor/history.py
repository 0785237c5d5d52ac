"""Figures of the last minutes, for sparklines."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from feedsvc.commands.monitor.source import Glance

_MOST: Final = 200
_SMOOTH: Final = 6.0  # seconds

TimeSeries = deque[float | None]


class RateHistory:
    """Of figures that move: the requests' rate and time, and each endpoint's."""

    def __init__(self) -> None:
        self.rates: TimeSeries = deque(maxlen=_MOST)
        self.first_bytes: TimeSeries = deque(maxlen=_MOST)
        self._p95s: dict[str, TimeSeries] = {}
        self._counted: deque[_Counted] = deque()

    def add(self, glance: Glance) -> None:
        """Add a glance."""
        metrics = glance.answers.get("metrics", {})
        now = metrics.get("now", {})
        self.rates.append(self._rate(glance))
        self.first_bytes.append(now.get("first_byte", {}).get("p95_ms"))
        endpoints = {name_of(endpoint): endpoint for endpoint in now.get("endpoints", ())}
        for name in {*self._p95s, *endpoints}:
            line = self._p95s.setdefault(name, deque(maxlen=_MOST))
            line.append(endpoints[name]["p95_ms"] if name in endpoints else None)
        self._p95s = {n: line for n, line in self._p95s.items() if any(v is not None for v in line)}

    def p95s(self, name: str) -> Sequence[float | None]:
        """An endpoint's, from the oldest to the latest; None without requests."""
        return self._p95s.get(name, ())

    def _rate(self, glance: Glance) -> float | None:
        """Requests a second over the last seconds, or longer where there are too few figures.

        Workers publish their figures every other second, so a shorter time would be uneven.
        """
        metrics = glance.answers.get("metrics")
        if metrics is None:
            return None
        counted = _Counted(metrics["from"], metrics["to"], metrics["totals"]["count"])
        while self._counted and counted.to - self._counted[0].to > _SMOOTH:
            self._counted.popleft()
        # What is older than the range is not counted any more, from one minute to the next.
        before = next((each for each in self._counted if each.since == counted.since), None)
        self._counted.append(counted)
        if before is None or counted.to <= before.to or counted.requests < before.requests:
            return float(metrics["now"]["rate"])
        return (counted.requests - before.requests) / (counted.to - before.to)


class _Counted(NamedTuple):
    since: float
    to: float
    requests: int


def name_of(endpoint: dict[str, Any]) -> str:
    """A dataset's name where there is one, else the route, short enough for a narrow screen."""
    route: str = endpoint["route"]
    method = "" if endpoint["method"] == "GET" else f"{endpoint['method']} "
    if endpoint["dataset"]:
        kind = "/{key}" if route.endswith("{key}") else ""
        return f"{method}{endpoint['dataset']}{kind}"
    return method + (route.removeprefix("/api/performance").removeprefix("/v1") or route)


def spark(values: Iterable[float | None], width: int, *, plain: bool) -> str:
    """The last values as a line of bars, each in proportion to the highest; a gap for None."""
    last = list(values)[-width:]
    bars = " .:-=+*#" if plain else "▁▂▃▄▅▆▇█"
    highest = max((value for value in last if value is not None), default=0.0)
    drawn = [_bar(value, highest, bars) for value in last]
    return "".join(drawn).rjust(width)


def _bar(value: float | None, highest: float, bars: str) -> str:
    if value is None:
        return " "
    if highest <= 0:
        return bars[0]
    return bars[min(len(bars) - 1, int(value / highest * len(bars)))]
