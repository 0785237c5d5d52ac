"""What a worker is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from feedsvc.access.limiter import Limiter
from feedsvc.access.resumption import Resumption
from feedsvc.access.tickets import Tickets
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.pool import Pools
from feedsvc.backends.postgres.probe import DatabaseProbe
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.cache.analytics import CacheAnalytics
from feedsvc.cache.pages import Pages
from feedsvc.cache.prefetch import Prefetcher
from feedsvc.cache.warming import Warmth
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers
from feedsvc.datasets.dataset import Dataset
from feedsvc.health.readiness import Readiness
from feedsvc.observing import Observing
from feedsvc.settings import Settings
from feedsvc.together import Together


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that answer requests, put together in `feedsvc.app` and nowhere else."""

    settings: Settings
    datasets: Mapping[str, Dataset]
    tokens: Tokens
    tickets: Tickets
    resumption: Resumption
    limits: Limiter
    observers: Observers
    observing: Observing
    pools: Pools
    replicas: Replicas
    pages: Pages
    cache_analytics: CacheAnalytics
    prefetcher: Prefetcher
    warmth: Warmth
    probe: DatabaseProbe
    readiness: Readiness
    together: Together
    drain: Drain
