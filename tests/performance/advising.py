"""The cost of the adviser to readers: the same reads with it at work and without, in turn.

At work: a statement comes each second whose name was not seen before, and all count as slow, so
that its plan is read; the report is asked for every five seconds. Without: a statement comes each
second whose name was seen, and no report is asked for. Either has columns that no statement had, so
PostgreSQL prepares both. One process does both, for one differs from the next by up to 6 %; that
each statement is marked as slow is in both. The figure is processor time, the service's and
PostgreSQL's together. Beside `feedsvc advise`, which is a process of its own that an owner starts,
it is time by the clock.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, cycle, product
from typing import Final, NamedTuple

from tests.performance.clients import Feed, curl
from tests.performance.first_pages import WITHOUT_LIMIT
from tests.performance.processes import ended
from tests.performance.processor import seconds_of
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Contender, Round, in_turn
from tests.performance.world import RANGES, SOURCES, Service, World
from tests.support.service import REPOSITORY, bearer

_MOST: Final = Target(1.02)
_SLOW: Final = "0.000001"  # seconds: every query is slow
_SETTLED: Final = 0.1  # seconds that a plan which was begun has for its end
_EVERY: Final = 1.0  # seconds between two statements that were not seen before
_WATCHED: Final = "/api/performance/queries"
_WATCHED_EVERY: Final = 5.0  # seconds
_TURNS: Final = 8  # of a round
_DATASETS: Final = (*(f"clients_{name}" for name in SOURCES), *(f"clients_by_{n}" for n in RANGES))
_FILTERS: Final = ("&id.gt=0", "&id.gte=0", "&id.lt=9", "&id.lte=9", "&id.eq=1")
_LIMITS: Final = (10, 20_000)
_COLUMNS: Final = (
    *("partner_one", "partner_two", "email", "phone", "venue", "notes"),
    *("wedding_date", "guests", "budget", "status"),
)


class _Name(NamedTuple):
    """A dataset, and what of a request's query its statement has its name by."""

    dataset: str
    query: str


class _Reads(NamedTuple):
    """A request, and how often it is sent."""

    query: str
    times: int
    headers: Mapping[str, str] = {}


_READS: Final[Mapping[str, _Reads]] = {
    "cached pages": _Reads("limit=100&format=ndjson", 2_000),
    "fresh pages": _Reads("limit=100&format=ndjson", 300, {"Cache-Control": "no-cache"}),
    "exports": _Reads("format=ndjson", 2),
}


def advice(world: World, _service: Service, rounds: int) -> list[Line]:
    """Reads with plans being made and the report watched, and reads beside `feedsvc advise`."""
    with ExitStack() as stack:
        advised = {**WITHOUT_LIMIT, "FEEDSVC_QUERIES__SLOW": _SLOW}
        service = stack.enter_context(world.service(advised))
        names, columns = _unseen_names(), _unseen_columns()
        lines = [
            _gathering(world, service, (names, columns), subject, rounds) for subject in _READS
        ]
        usual = stack.enter_context(world.service(WITHOUT_LIMIT))
        return lines + [_beside_command(world, usual, subject, rounds) for subject in _READS]


def _gathering(
    world: World,
    service: Service,
    unseen: tuple[Iterator[_Name], Iterator[str]],
    subject: str,
    rounds: int,
) -> Line:
    """A round is the sum of many turns, for a machine's other work differs from turn to turn."""
    names, columns = unseen
    last = [next(names)]

    def ask() -> None:
        dataset, query = last[0]
        curl(service.feed(dataset, query + next(columns)))

    def ask_another() -> None:
        last[0] = next(names)
        ask()

    beside = {
        "with": [
            _Beat(_EVERY, ask_another),
            _Beat(_WATCHED_EVERY, partial(curl, _report(service))),
        ],
        "without": [_Beat(_EVERY, ask)],
    }
    parts = (service.running.pid, world.postmaster)
    contenders: dict[str, Contender] = {
        name: partial(seconds_of, parts, partial(_read_beside, service, subject, beats))
        for name, beats in beside.items()
    }
    turns = in_turn(contenders, rounds * _TURNS)
    measured: list[Round] = [
        {name: sum(turn[name] for turn in turns[number::rounds]) for name in contenders}
        for number in range(rounds)
    ]
    return ratio(f"{subject}, adviser at work : not", measured, "with", "without", _MOST)


@dataclass(slots=True)
class _Beat:
    """What is done every so many seconds of the reads that it stands beside."""

    every: float
    do: Callable[[], object]
    left: float = 0.0

    def take(self, seconds: float) -> None:
        """Take the seconds that reads took."""
        self.left -= seconds

    def begin(self) -> None:
        """Do it if it is due."""
        if self.left <= 0:
            self.left += self.every
            self.do()


def _read_beside(service: Service, subject: str, beside: Sequence[_Beat]) -> None:
    for beat in beside:
        beat.begin()
    began = time.perf_counter()
    _read(service, subject)
    taken = time.perf_counter() - began
    for beat in beside:
        beat.take(taken)
    time.sleep(_SETTLED)


def _report(service: Service) -> Feed:
    return Feed(f"{service.running.url}{_WATCHED}", bearer(role="admin"))


def _beside_command(world: World, service: Service, subject: str, rounds: int) -> Line:
    contenders: dict[str, Contender] = {
        "with": partial(_while_advised, world, service, subject),
        "without": partial(_read, service, subject),
    }
    measured = in_turn(contenders, rounds)
    return ratio(f"{subject}, feedsvc advise beside : not", measured, "with", "without")


def _while_advised(world: World, service: Service, subject: str) -> float:
    environment = {
        **os.environ,
        "MIGRATION_DATABASE_URL": world.admin_url,
        "FEEDSVC_DATASETS__FILE": str(world.datasets),
    }
    command = [sys.executable, "-m", "feedsvc", "advise", "--json"]
    with ended(_started(command, environment)):
        return _read(service, subject)


def _read(service: Service, subject: str) -> float:
    reads = _READS[subject]
    feed = service.feed("clients", reads.query)
    return curl(Feed(feed.url, {**feed.headers, **reads.headers}), reads.times)


def _unseen_names() -> Iterator[_Name]:
    """Statements of 384 names, again from the first once all have been read."""
    for filters, limit, dataset in cycle(product(_subsets(_FILTERS), _LIMITS, _DATASETS)):
        yield _Name(dataset, f"format=ndjson&limit={limit}{''.join(filters)}")


def _unseen_columns() -> Iterator[str]:
    """1,024 choices of columns, which no statement's name has, again from the first."""
    for columns in cycle(_subsets(_COLUMNS)):
        yield f"&columns={','.join(('id', *columns))}"


def _subsets(of: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(of, size) for size in range(len(of) + 1))


def _started(
    command: list[str], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
