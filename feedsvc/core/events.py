"""Events, and the bus that delivers each of them to its observers.

Metrics, alerts and the audit log are functions over these; nothing that does the work imports them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from feedsvc.core.cause import Trace
from feedsvc.core.principal import Principal
from feedsvc.core.problems import ResetReason
from feedsvc.core.process_stats import ProcessStats

logger = logging.getLogger(__name__)

LiveEndReason: TypeAlias = Literal[
    "rotation", "token", "draining", "behind", "limits", "closed", "stalled", "left"
]
RepeatPattern: TypeAlias = Literal["row-by-key", "page-by-filter", "small-pages"]
RequestResult: TypeAlias = Literal["complete", "refused", "failed", "cancelled"]


# Those that come with each request are tuples, which are made in a third of a dataclass's time.
class RequestEnded(NamedTuple):
    """A request's end. `at` is seconds since 1970, `size` bytes of rows before compression.

    `seconds` passed from its beginning to its end, `first_byte` of them until its head left (None
    where none did), and `stages` tells where they went. `route` is a pattern and never a path.
    `why` is the problem's name behind a refusal or a failure. `guarded`: whether the route is
    for principals alone, `reason` what was wrong with a token, for the log, and `source` the way
    that the rows came.
    """

    at: float
    request_id: str
    method: str
    route: str
    guarded: bool
    status: int
    result: RequestResult
    why: str | None
    seconds: float
    first_byte: float | None
    stages: Mapping[str, float]
    address: str | None
    principal: Principal | None
    dataset: str | None
    format: str | None
    query: str | None
    rows: int
    size: int
    reason: str | None = None
    source: str | None = None
    trace: Trace | None = None
    followed: float = 0.0
    """Of `seconds`, those in which a live answer went on behind its handler."""

    @property
    def elapsed_ms(self) -> int:
        """Whole milliseconds from the request's beginning to its end."""
        return round(self.seconds * 1e3)


class CacheLookup(NamedTuple):
    """A page was looked for. `why` it was not shown as it is, where it was not.

    `collapsed`: another request was reading it already.
    """

    dataset: str
    outcome: Literal["hit", "miss", "stale", "bypass"]
    tier: Literal["memory", "redis"] | None
    why: str | None
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class CacheLoad:
    """A page was read from PostgreSQL to be kept."""

    dataset: str
    seconds: float
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class CachePut:
    """A page's `size` bytes of records became `packed` bytes in Redis."""

    dataset: str
    size: int
    packed: int


@dataclass(frozen=True, slots=True)
class CacheChange:
    """The change log had rows for a dataset, of so many transactions."""

    dataset: str
    transactions: int


@dataclass(frozen=True, slots=True)
class CachePrefetch:
    """A page was read before it was asked for, or turned out to have been of use or not."""

    dataset: str
    outcome: Literal["read", "used", "wasted"]


class PoolLease(NamedTuple):
    """A pool was asked for a connection, and had it, or not, `seconds` later.

    `busy`: none came free in time. `left`: the request ended before one came free.
    """

    pool: str
    outcome: Literal["leased", "busy", "failed", "left"]
    seconds: float


class DatabaseFault(NamedTuple):
    """The database failed a piece of work; `problem` is the name in the response."""

    problem: str


class QuerySlow(NamedTuple):
    """A request's query took `seconds`, longer than its pool allows; its values are left out.

    `backend` is the process id of PostgreSQL's own log, where that is known. `statement` is the
    name that the statement is counted by; empty where it has none.
    """

    at: float
    request_id: str
    dataset: str
    source: str
    parameters: Sequence[str]
    seconds: float
    backend: int | None
    trace: Trace | None
    statement: str = ""


SlowPlanOutcome: TypeAlias = Literal["kept", "unplanned", "failed"]


class SlowPlanRead(NamedTuple):
    """The plan of a slow statement was kept, could not be made, or could not be read."""

    outcome: SlowPlanOutcome


class QueryRan(NamedTuple):
    """A statement of the service's own was run for a request, in `seconds`, and gave `rows`.

    Its name has no value (`feedsvc.feeds.statement_names`).
    """

    statement: str
    seconds: float
    rows: int


class RequestsRepeated(NamedTuple):
    """One principal sent so many more `requests` that one request could replace.

    `seconds` of their handling would have been spared. `column` is that of a filter with a page for
    each value, else empty. `begins`: these are the first of their run. No value is in it.
    """

    at: float
    pattern: RepeatPattern
    dataset: str
    column: str
    requests: int
    seconds: float
    begins: bool


class StreamParked(NamedTuple):
    """A stream's client fell behind, so what the stream held of the database was given up."""

    dataset: str | None


class FeedReset(NamedTuple):
    """A cursor could not be continued; `reason` is that of the problem."""

    dataset: str
    reason: ResetReason


class DeltaSent(NamedTuple):
    """A delta of so many upserts and deletes was sent as a whole."""

    dataset: str
    changes: int


class LiveEnded(NamedTuple):
    """A live answer ended for this reason.

    `behind`: it was to come back for more than can be held for it; `closed`: what it followed
    ended; `stalled`: its client took nothing for too long; `left`: its client closed.
    """

    reason: LiveEndReason


class LiveBehind(NamedTuple):
    """A subscriber fell so far behind that the events which it lacks are not kept."""


class LiveLag(NamedTuple):
    """So many subscribers were sent an event so many seconds after its commit."""

    seconds: float
    subscribers: int


class LiveTick(NamedTuple):
    """Cohorts of live feeds were brought to a new state, with so many changes, in one transaction.

    `seconds` is the time for all of them.
    """

    seconds: float
    cohorts: int
    changes: int


class LogTurned(NamedTuple):
    """The change log can be read from now on, or can't be read any more."""

    reads: bool


class LogRead(NamedTuple):
    """The change log was read: so many of its rows, in so many seconds."""

    seconds: float
    rows: int


class LogMaintained(NamedTuple):
    """The change log was looked after: windows that were trimmed; whether its epoch is new."""

    trimmed: int
    is_new_epoch: bool


class RedisTurned(NamedTuple):
    """Redis is asked again from now on, or is not asked any more."""

    answers: bool


class RedisRefused(NamedTuple):
    """Redis answered so many questions with an error, or was not asked because of one."""

    questions: int


class AlertStates(NamedTuple):
    """Alerts were evaluated: which of them fire."""

    firing: Mapping[str, bool]


class WebhookTried(NamedTuple):
    """A message was sent to the webhook; `failed` ones are sent again."""

    outcome: Literal["delivered", "refused", "failed"]


Observation: TypeAlias = (
    RequestEnded
    | CacheLookup
    | CacheLoad
    | CachePut
    | CacheChange
    | CachePrefetch
    | PoolLease
    | DatabaseFault
    | QuerySlow
    | QueryRan
    | SlowPlanRead
    | RequestsRepeated
    | StreamParked
    | LogTurned
    | LogRead
    | FeedReset
    | LiveEnded
    | LiveBehind
    | LiveLag
    | DeltaSent
    | LiveTick
    | LogMaintained
    | RedisTurned
    | RedisRefused
    | ProcessStats
    | AlertStates
    | WebhookTried
)
Seen = TypeVar("Seen")


# They come with each request. To publish many at a time costs half, for it is done in warm caches.
_MAY_WAIT: Final = frozenset({RequestEnded, CacheLookup, PoolLease, QueryRan, QuerySlow})
_MOST_WAITING: Final = 1_000


class Observers:
    """The observers by kind of event. None may delay or break what is observed."""

    def __init__(self, patience: float = 0.0) -> None:
        """Events of each request may wait for `patience` seconds; the order is kept."""
        self._observers: dict[type[Any], list[Callable[[Any], None]]] = {}
        self._patience = patience
        self._waiting: list[Observation] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, kind: type[Seen], observer: Callable[[Seen], None]) -> None:
        """Deliver events of this kind to the observer from now on."""
        self._observers.setdefault(kind, []).append(observer)

    def publish(self, observation: Observation) -> None:
        """Deliver the event to the observers of its kind."""
        waiting = self._waiting
        waiting.append(observation)
        if not self._patience or type(observation) not in _MAY_WAIT or len(waiting) > _MOST_WAITING:
            self.catch_up()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience, self.catch_up)

    def catch_up(self) -> None:
        """Deliver the events that wait, before observers are read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for observation in waiting:
            for observer in self._observers.get(type(observation), ()):
                try:
                    observer(observation)
                except Exception:
                    logger.exception("an observer failed")
