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

logger = logging.getLogger(__name__)

RequestResult: TypeAlias = Literal["complete", "refused", "failed", "cancelled"]


# Those that come with each request are tuples, which are made in a third of a dataclass's time.
class RequestEnded(NamedTuple):
    """A request's end. `at` is seconds since 1970, `size` bytes of rows before compression.

    `seconds` passed from its beginning to its end, `first_byte` of them until its head left (None
    where none did), and `stages` tells where they went. `route` is a pattern and never a path.
    `why` is the problem's name behind a refusal or a failure. `guarded` tells whether the route is
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
    """PostgreSQL notified of a change; the items are those of `feedsvc.datasets.tags`."""

    items: Sequence[str]


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
    """A request's query took `seconds`, longer than `queries.slow`; its values are left out.

    `backend` is the process id of PostgreSQL's own log, where that is known.
    """

    at: float
    request_id: str
    dataset: str
    source: str
    parameters: Sequence[str]
    seconds: float
    backend: int | None
    trace: Trace | None


class StreamParked(NamedTuple):
    """A stream's client fell behind, so what the stream held of the database was given up."""

    dataset: str | None


class ListenerTurned(NamedTuple):
    """The listener for notifications connected, or lost its connection."""

    hears: bool


class RedisTurned(NamedTuple):
    """Redis is asked again from now on, or is not asked any more."""

    answers: bool


class RedisRefused(NamedTuple):
    """Redis answered so many questions with an error, or was not asked because of one."""

    questions: int


class PoolState(NamedTuple):
    """Connections of a pool: the limit, open, of these in use; and requests that wait."""

    limit: int
    open: int
    busy: int
    waiting: int


class StandbyState(NamedTuple):
    """Whether a standby is read from, and by how many seconds it was behind, if that is known."""

    serves: bool
    lag: float | None


class AuditState(NamedTuple):
    """Audit entries that wait, how many may, and how many were dropped since the start."""

    waiting: int
    most: int
    dropped: int


class ProcessStats(NamedTuple):
    """The state of this worker, once a second, by `feedsvc.operations.vitals`. Sizes are bytes.

    `lags` are seconds by which the event loop woke up late since the last time. Shares are of one
    CPU for the process and of all of them for the machine. `leaving`: others answer what is new.
    None is what can't be known here, and `redis_answers` also where there is no Redis.

    `health` has the state of each component that was looked at, `kept_out` why a dataset is not
    cached, `keys_age` the seconds since an issuer's keys were last fetched, where there is one.
    """

    at: float
    lags: Sequence[float]
    sampled: int
    cpu_seconds: float
    cpu_share: float
    memory: int
    open_files: int | None
    most_open_files: int | None
    machine_cpu_share: float
    machine_memory: int
    machine_memory_free: int
    disk: int | None
    disk_free: int | None
    pools: Mapping[str, PoolState]
    running: int
    leaving: bool
    cached_pages: int
    cached_bytes: int
    evicted_pages: int
    database_answers: bool
    redis_answers: bool | None
    listener_hears: bool | None
    health: Mapping[str, Literal["ok", "degraded", "down"]]
    kept_out: Mapping[str, Literal["triggers", "unsuitable"]]
    standbys: Mapping[str, StandbyState]
    audit: AuditState
    keys_age: float | None


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
    | StreamParked
    | ListenerTurned
    | RedisTurned
    | RedisRefused
    | ProcessStats
    | AlertStates
    | WebhookTried
)
Seen = TypeVar("Seen")


# They come with each request. To tell of many at a time costs half, for it is done in warm caches.
_MAY_WAIT: Final = frozenset({RequestEnded, CacheLookup, PoolLease})
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

    def tell(self, observation: Observation) -> None:
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
