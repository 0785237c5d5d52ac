"""The state of a worker and of what it depends on, as it is published once a second."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class PoolState(NamedTuple):
    """Connections of a pool: the limit, open, of these in use; and requests that wait."""

    limit: int
    open: int
    busy: int
    waiting: int


class StandbyState(NamedTuple):
    """A standby's state: whether it is read from, and its lag in seconds, if that is known."""

    serves: bool
    lag: float | None


class ChangeLogState(NamedTuple):
    """The change log: its bytes, the seconds since its oldest window began, past windows without
    a seal, and the age of the oldest transaction that keeps one from being trimmed.
    """

    bytes: int
    oldest: float
    unsealed: int
    blocked: float


class ViewState(NamedTuple):
    """A materialized view that is refreshed: the seconds since its state, those that the refresh
    took, and the tries since then.
    """

    age: float
    seconds: float
    failures: int


class AuditState(NamedTuple):
    """Audit entries that wait, how many may, and how many were dropped since the start."""

    waiting: int
    most: int
    dropped: int


class FollowedState(NamedTuple):
    """The live feeds of a worker: its subscribers, of `most` that it may have.

    `catching_up` of them lack events that are not kept. All that see the same are one of `cohorts`;
    `kept_bytes` are of all their events. `failing`: the seconds for which the change log could not
    be read for them; `looked`: those since it last was, None while nothing is followed.
    """

    subscribers: int = 0
    most: int = 0
    catching_up: int = 0
    cohorts: int = 0
    kept_bytes: int = 0
    failing: float = 0.0
    looked: float | None = None


class ProcessStats(NamedTuple):
    """The state of this worker, once a second, by `feedsvc.operations.vitals`. Sizes are bytes.

    `lags` are seconds by which the event loop woke up late since the last time. Shares are of one
    CPU for the process and of all of them for the machine. `leaving`: others answer what is new.
    None is what can't be known here, and `redis_answers` also where there is no Redis.

    `health` has the state of each component that was looked at, `kept_out` why a dataset is not
    cached, `keys_age` the seconds since an issuer's keys were last fetched, where there is one,
    `log` the change log as it was seen last, `live` the live feeds, `views` the materialized views
    that are refreshed.
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
    log_reads: bool | None
    health: Mapping[str, Literal["ok", "degraded", "down"]]
    kept_out: Mapping[str, Literal["triggers", "unsuitable"]]
    standbys: Mapping[str, StandbyState]
    audit: AuditState
    keys_age: float | None
    log: ChangeLogState | None = None
    live: FollowedState = FollowedState()
    views: Mapping[str, ViewState] = {}
