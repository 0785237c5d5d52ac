"""The cost of observation: a request with all of it, against one without.

The figure is processor time of the service's process for one request (`slices`). Metrics, tracker,
alerts and the signs of life are on or off together; stages, the log and the audit log are there
either way.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Final

from tests.performance.clients import Feed
from tests.performance.slices import Answering, differences, seconds_each
from tests.performance.table import Line, Target
from tests.performance.timing import medians
from tests.performance.world import Service, World

_QUERY: Final = "limit=10&format=ndjson"  # what a row costs is not asked here
_MOST: Final = Target(50)
_WITHOUT_LIMIT: Final = {
    "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "1000000",
    "FEEDSVC_LIMITS__MEMBER__BURST": "10000000",
}
_FROM_POSTGRESQL: Final = {"Cache-Control": "no-cache"}
_FEW: Final = 4  # connections, so that no request waits for one to PostgreSQL
_TURNS: Final = 20  # in a round: the median of so many differences is steady on a loaded machine


def observing(world: World, _service: Service, rounds: int) -> list[Line]:
    """Microseconds of processor a request, for a page from memory and for one from PostgreSQL."""
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(_service_with(world, enabled=name == "on"))
            for name in ("on", "off")
        }
        cached = {name: _cached_page(service) for name, service in services.items()}
        read = {name: _page_from_postgresql(service) for name, service in services.items()}
        return [
            _line("a cached page", cached, rounds),
            _line("a page from PostgreSQL", read, rounds),
        ]


def _line(subject: str, contenders: Mapping[str, Answering], rounds: int) -> Line:
    measured = seconds_each(contenders, rounds * _TURNS)
    more = [seconds * 1e6 for seconds in differences(measured, "on", "off")]
    by_round = [median(more[number::rounds]) for number in range(rounds)]
    typical = medians(measured)
    detail = f"{typical['on'] * 1e6:.0f} : {typical['off'] * 1e6:.0f} us of processor"
    return Line(f"observing, {subject}", by_round, detail, _MOST, "us")


def _cached_page(service: Service) -> Answering:
    return Answering(service.feed("clients", _QUERY), service.running.pid)


def _page_from_postgresql(service: Service) -> Answering:
    feed = service.feed("clients", _QUERY)
    past_the_cache = Feed(feed.url, {**feed.headers, **_FROM_POSTGRESQL})
    return Answering(past_the_cache, service.running.pid, _FEW)


@contextmanager
def _service_with(world: World, *, enabled: bool) -> Iterator[Service]:
    settings = {**_WITHOUT_LIMIT, "FEEDSVC_METRICS__ENABLED": str(enabled).lower()}
    with world.service(settings=settings) as service:
        yield service
