"""Values that the application and its requests carry."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiohttp import web

from feedsvc.access.limiter import Limiter
from feedsvc.access.resumption import Resumption
from feedsvc.access.tickets import Tickets
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.cache.analytics import CacheAnalytics
from feedsvc.cache.pages import Pages
from feedsvc.cache.prefetch import Prefetcher
from feedsvc.cache.warming import Warmth
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers
from feedsvc.core.logs import Tally
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.delta_wait import Deltas
from feedsvc.feeds.live.shared_rows import SharedReads
from feedsvc.feeds.live.tail import Tail
from feedsvc.operations.fleet import Fleet
from feedsvc.operations.health.readiness import Readiness
from feedsvc.operations.performance.advisor import QueryAdvisor
from feedsvc.operations.telemetry import Telemetry
from feedsvc.settings import Settings
from feedsvc.web.live.registry import SubscriberRegistry


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that answer requests, constructed in `feedsvc.server.assembly` and nowhere else."""

    settings: Settings
    datasets: Mapping[str, Dataset]
    tokens: Tokens
    tickets: Tickets
    resumption: Resumption
    limits: Limiter
    observers: Observers
    observing: Telemetry
    advisor: QueryAdvisor
    pools: PoolSet
    replicas: Replicas
    pages: Pages
    cache_analytics: CacheAnalytics
    prefetcher: Prefetcher
    warmth: Warmth
    probe: ReadinessProbe
    readiness: Readiness
    together: Fleet
    drain: Drain
    deltas: Deltas
    subscribers: SubscriberRegistry
    tail: Tail
    shared_reads: SharedReads


SERVICE: Final = web.AppKey("service", Service)
SHORTAGES: Final = web.AppKey("shortages", dict[str, Tally])
"""Reasons for refusals, each logged once in a while, however many they are."""
REQUEST_ID: Final = web.RequestKey("request_id", str)
# Absent where the client was gone before it could be asked. For the audit, and for no log.
CLIENT_ADDRESS: Final = web.RequestKey("client_address", str)
STAGES: Final = web.RequestKey("stages", Stages)
STANDING: Final = web.RequestKey("standing", Mapping)
"""The headers with what is left of the caller's limits."""

RESUMES: Final = web.RequestKey("resumes", Principal)
"""In whose name a ticket has let a request in, which may come back with a cookie."""

Answering: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]
"""The work of a request that was accepted."""
