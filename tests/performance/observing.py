"""What observation costs: a request with all of it, against one without.

The figure is the CPU time of the service's process for one answer, under a load that keeps it busy,
for what else this machine does changes how long an answer takes, and hardly how much work it is.
Metrics, tracker, alerts and the signs of life are on or off together; stages, the log and the audit
log are there either way.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import psutil

from tests.performance.clients import Feed
from tests.performance.load import requests_per_second
from tests.performance.table import Line, Target
from tests.performance.world import Service, World

_ROWS: Final = 10  # what a row costs is not asked here
_SECONDS: Final = 0.5
_TIMES: Final = 8  # in each round: the shorter a look, the likelier that nothing else disturbs one
_WARM_UP: Final = 0.5  # as `tests.performance.load` has it
_MOST: Final = Target(50)
_WITHOUT_LIMIT: Final = {
    "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "1000000",
    "FEEDSVC_LIMITS__MEMBER__BURST": "10000000",
}
_PAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "a cached page": {},
    "a page from PostgreSQL": {"Cache-Control": "no-cache"},
}


def observing(world: World, _service: Service, rounds: int) -> list[Line]:
    """Microseconds of CPU for each request, of a page from memory and of one from PostgreSQL."""
    with ExitStack() as stack:
        on = stack.enter_context(_service_with(world, enabled=True))
        off = stack.enter_context(_service_with(world, enabled=False))
        return [_line(subject, on, off, headers, rounds) for subject, headers in _PAGES.items()]


def _line(subject: str, on: Service, off: Service, headers: Mapping[str, str], rounds: int) -> Line:
    for service in (on, off):
        _microseconds(service, headers)  # warms up, and does not count
    measured = [
        (_microseconds(on, headers), _microseconds(off, headers)) for _ in range(rounds * _TIMES)
    ]
    # The least of each, for whatever else the machine does can only add to it.
    with_it, without = (min(each) for each in zip(*measured, strict=True))
    detail = f"{with_it:.0f} : {without:.0f} us of CPU"
    return Line(f"observing, {subject}", [with_it - without], detail, _MOST, "us")


def _microseconds(service: Service, headers: Mapping[str, str]) -> float:
    """CPU time of the service for one answer."""
    feed = service.feed("clients", f"limit={_ROWS}&format=ndjson")
    asked = Feed(feed.url, {**feed.headers, **headers})
    process = psutil.Process(service.running.pid)
    before = _cpu(process)
    answers = requests_per_second(asked, _SECONDS) * (_SECONDS + _WARM_UP)
    return (_cpu(process) - before) / answers * 1e6


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def _service_with(world: World, *, enabled: bool) -> Iterator[Service]:
    settings = {**_WITHOUT_LIMIT, "FEEDSVC_METRICS__ENABLED": str(enabled).lower()}
    with world.service(settings=settings) as service:
        yield service
