"""Construction of a service's parts, none of them open."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from feedsvc.access.limiter import Limiter
from feedsvc.access.resumption import Resumption
from feedsvc.access.service_key import ServiceKey
from feedsvc.access.tickets import Tickets
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.pool import Pool, PoolSet
from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.backends.postgres.servers import Servers
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache.analytics import CacheAnalytics
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.key import fingerprint
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.pages import Pages
from feedsvc.cache.policy import Coverage, PagePolicy
from feedsvc.cache.prefetch import Prefetcher
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.redis_store import RedisStore
from feedsvc.cache.warming import Warmth
from feedsvc.changes.log_reader import LogReader
from feedsvc.changes.log_upkeep import LogUpkeep
from feedsvc.changes.refreshes import RefreshedView, refreshed_views
from feedsvc.changes.view_refresh import ViewRefresh
from feedsvc.core.drain import Drain
from feedsvc.core.events import (
    CachePrefetch,
    Observers,
    QueryRan,
    QuerySlow,
    RequestEnded,
    RequestsRepeated,
)
from feedsvc.core.process import WorkerContext
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.feeds.arrivals import Arrivals
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta_wait import Deltas
from feedsvc.feeds.live.shared_rows import SharedReads
from feedsvc.feeds.live.tail import Tail, TailLimits
from feedsvc.operations.access_log import AccessLog
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.audit import AuditLog
from feedsvc.operations.fleet import Fleet
from feedsvc.operations.health.checks import checks_of
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.readiness import Readiness
from feedsvc.operations.metrics.observer import Domain
from feedsvc.operations.performance.advisor import QueryAdvisor
from feedsvc.operations.performance.plan_reader import PlanReader
from feedsvc.operations.performance.repeats import RequestRepeats
from feedsvc.operations.performance.slow_plans import SlowPlans
from feedsvc.operations.repeat_log import RepeatLog
from feedsvc.operations.slow_query_log import SlowQueryLog
from feedsvc.operations.telemetry import Telemetry, TelemetryContext
from feedsvc.server.preflight import StartError, alert_rules
from feedsvc.settings import Settings
from feedsvc.settings.pools import FeedPool, LogPool
from feedsvc.web.application import patterns
from feedsvc.web.context import Service
from feedsvc.web.live.registry import SubscriberRegistry
from streams.formats import FORMATS

_CLOCKS_APART: Final = 30.0  # seconds by which the clocks of machines may differ
_TAIL_DEADLINE: Final = 5.0  # seconds for what the log's tail asks
_PLAN_DEADLINE: Final = 5.0  # seconds
_BACKGROUND_LOCK: Final = 0.1  # seconds that both wait for another session's lock
_BACKGROUND_IDLE: Final = 30.0  # seconds
_PATIENCE: Final = 0.01  # seconds by which figures may lag behind


class Assembly(NamedTuple):
    """A service, and those of its parts that no request needs."""

    service: Service
    link: RedisLink | None
    changes: LogReader
    upkeep: LogUpkeep
    views: ViewRefresh | None
    audit: AuditLog
    audit_pool: Pool
    tail_pool: Pool
    plan_pool: Pool
    slow_plans: SlowPlans


def assemble(
    settings: Settings,
    workplace: WorkerContext,
    tokens: Tokens,
    datasets: Mapping[str, Dataset],
    key: ServiceKey,
) -> Assembly:
    """All parts, none of them open. Raises StartError."""
    rules = alert_rules(settings, datasets)
    observers, drain = Observers(_PATIENCE), Drain()
    pools, replicas = _connections(settings, workplace, observers)
    link = _redis(settings, observers)
    tail_pool = _tail_pool(pools, observers)
    plan_pool = _background_pool(pools, FeedPool, "advice", 1, _PLAN_DEADLINE)
    subscribers = SubscriberRegistry(settings.streams, observers, drain)
    deltas = _deltas(settings, pools, tail_pool, key, drain)
    audit_pool, analytics = _audit_pool(settings, observers, pools), CacheAnalytics(datasets)
    audit = AuditLog(audit_pool, settings.audit)
    _observe_requests(settings, datasets, audit, observers)
    analytics.observe(observers)
    shared = _shared(settings, link, observers, key)
    pages, changes = _cache(settings, pools.servers, datasets, shared, observers)
    tail = _tail(settings, deltas, tail_pool, subscribers, observers)
    refreshed = refreshed_views(declarations(settings.datasets.file))
    health = HealthContext(
        settings, workplace, pools, replicas, pages, changes, tokens, link, tail, refreshed
    )
    probe = ReadinessProbe(pools.servers)
    advisor, slow_plans = _advisor(settings, workplace, datasets, plan_pool, observers)
    service = Service(
        settings=settings,
        datasets=datasets,
        tokens=tokens,
        tickets=Tickets(pools["write"], link, key),
        resumption=Resumption(key),
        limits=Limiter(settings.limits, link, settings.server.workers * settings.server.instances),
        observers=observers,
        observing=Telemetry(_observed(health, datasets, rules), pools["write"], observers),
        advisor=advisor,
        pools=pools,
        replicas=replicas,
        pages=pages,
        cache_analytics=analytics,
        prefetcher=_prefetcher(settings, pools, pages, observers),
        warmth=Warmth(link if settings.cache.shared else None, settings.cache.warm),
        probe=probe,
        readiness=Readiness(settings.health, drain, tokens, health.loop, probe),
        together=Fleet(health, drain),
        drain=drain,
        deltas=deltas,
        subscribers=subscribers,
        tail=tail,
        shared_reads=SharedReads(tail, deltas.cursors),
    )
    upkeep = LogUpkeep(pools.servers, settings.changes, observers, workplace.folder)
    views = _view_refresh(settings, pools, workplace, refreshed)
    return Assembly(
        service, link, changes, upkeep, views, audit, audit_pool, tail_pool, plan_pool, slow_plans
    )


def _observed(
    parts: HealthContext, datasets: Mapping[str, Dataset], rules: Mapping[str, Rule]
) -> TelemetryContext:
    """The worker as telemetry needs it, and the names that metrics may have as labels."""
    domain = Domain(
        patterns(),
        datasets,
        FORMATS,
        pools=parts.pools.states(),
        alerts={name: rule.severity for name, rule in rules.items()},
        checks=[check.name for check in checks_of(parts.settings.health)],
        standbys=[replica.name for replica in parts.replicas.all],
        views=parts.views.names,
        publishes=parts.tokens.published is not None,
    )
    return TelemetryContext(parts.settings, parts.workplace, domain, rules)


def _connections(
    settings: Settings, workplace: WorkerContext, observers: Observers
) -> tuple[PoolSet, Replicas]:
    servers = Servers(settings.database, workplace.folder)
    replicas = Replicas(settings, observers, servers=servers)
    return PoolSet(settings, observers, servers, replicas), replicas


def _audit_pool(settings: Settings, observers: Observers, pools: PoolSet) -> Pool:
    """A connection that no flood of requests can take from the audit log."""
    of_audit = settings.pools.write.model_copy(
        update={"size": 1, "reserve": 0, "application_name": "feedsvc audit"}
    )
    return Pool("write", of_audit, pools.servers, observers)


def _redis(settings: Settings, observers: Observers) -> RedisLink | None:
    if settings.redis.url is None or not settings.redis.url.get_secret_value():
        return None
    try:
        return RedisLink(settings.redis.url.get_secret_value(), settings.redis, observers)
    except ValueError as error:
        raise StartError(f"redis.url {error}") from None


def _shared(
    settings: Settings, link: RedisLink | None, observers: Observers, key: ServiceKey
) -> RedisPages | None:
    if link is None or not settings.cache.shared:
        return None
    return RedisPages(RedisStore(link), observers, key.seal("pages in redis"))


def _cache(
    settings: Settings,
    servers: Servers,
    datasets: Mapping[str, Dataset],
    shared: RedisPages | None,
    observers: Observers,
) -> tuple[Pages, LogReader]:
    oldest = max((dataset.fresh + dataset.stale for dataset in datasets.values()), default=0.0)
    ledger = Ledger(keep=oldest + _CLOCKS_APART)
    size = settings.streams.page_size
    fingerprints = {name: fingerprint(dataset, size) for name, dataset in datasets.items()}
    coverage = Coverage(fingerprints)
    watch = Invalidation(coverage, ledger, declarations(settings.datasets.file), observers)
    changes = LogReader(
        servers, watch, watch.survey, interval=settings.changes.interval, observers=observers
    )
    policy = PagePolicy(ledger, coverage, enabled=settings.cache.enabled)
    return Pages(settings.cache, policy, shared, changes, observers), changes


def _tail_pool(pools: PoolSet, observers: Observers) -> Pool:
    """Two connections: one asks what was written, and the other reads it.

    Its statements count as all do, and its leases not, for they would be the read pool's.
    """
    pool = _background_pool(pools, LogPool, "live", 2, _TAIL_DEADLINE)
    pool.observers.add(QueryRan, observers.publish)
    pool.observers.add(QuerySlow, observers.publish)
    return pool


def _tail(
    settings: Settings,
    deltas: Deltas,
    pool: Pool,
    subscribers: SubscriberRegistry,
    observers: Observers,
) -> Tail:
    streams, slow = settings.streams, settings.queries.slow
    limits = TailLimits(streams.membership_rows, slow, streams.ping_interval / 2)
    return Tail(deltas, pool, subscribers.fan_out, observers, limits)


def _background_pool(
    pools: PoolSet, kind: type[FeedPool], name: str, size: int, deadline: float
) -> Pool:
    """Connections to the read pool's servers that no flood of requests can take.

    None is opened while none is needed, and none counts in the read pool's figures.
    """
    settings = kind(
        size=size,
        reserve=0,
        share=1,
        acquire_timeout=deadline,
        query_timeout=deadline,
        lock_timeout=_BACKGROUND_LOCK,
        idle_timeout=_BACKGROUND_IDLE,
        application_name=f"feedsvc {name}",
        slow=pools["read"].settings.slow_after(),
    )
    return Pool("read", settings, pools.servers)


def _advisor(
    settings: Settings,
    workplace: WorkerContext,
    datasets: Mapping[str, Dataset],
    pool: Pool,
    observers: Observers,
) -> tuple[QueryAdvisor, SlowPlans]:
    """The reader of plans for operators, and that of slow statements, which it shows."""
    owner = settings.database.owner_url
    reader = PlanReader(pool)
    slow_plans = SlowPlans(datasets, reader, (workplace.folder, workplace.slot), observers)
    observers.add(QuerySlow, slow_plans.observe)
    owner_url = None if owner is None else owner.get_secret_value()
    return QueryAdvisor(datasets, reader, slow_plans, owner_url), slow_plans


def _observe_requests(
    settings: Settings, datasets: Mapping[str, Dataset], audit: AuditLog, observers: Observers
) -> None:
    """Add those who audit, log and compare requests."""
    observers.add(RequestEnded, audit.observe)
    observers.add(RequestEnded, AccessLog().observe)
    observers.add(QuerySlow, SlowQueryLog().observe)
    if settings.metrics.enabled:
        observers.add(RequestEnded, RequestRepeats(datasets, observers).observe)
        observers.add(RequestsRepeated, RepeatLog(datasets).observe)


def _deltas(
    settings: Settings, pools: PoolSet, tail_pool: Pool, key: ServiceKey, drain: Drain
) -> Deltas:
    """The parts that deltas need. A process that stops answers waiting requests at once."""
    arrivals = Arrivals(tail_pool, settings.changes.interval, lambda: drain.begun)
    return Deltas(Cursors(key.seal("cursors"), pools["write"]), arrivals, pools["read"])


def _view_refresh(
    settings: Settings, pools: PoolSet, workplace: WorkerContext, views: Sequence[RefreshedView]
) -> ViewRefresh | None:
    """The refreshes of materialized views, None where no dataset names one."""
    if not views:
        return None
    return ViewRefresh(pools.servers, views, settings.changes, workplace.folder)


def _prefetcher(
    settings: Settings, pools: PoolSet, pages: Pages, observers: Observers
) -> Prefetcher:
    """The reader of next pages, which pauses while requests wait for a connection."""
    pressed, patience = pools["read"].pressed, settings.cache.prefetch_patience
    prefetcher = Prefetcher(pages, observers, lambda: not pressed.is_set(), patience)
    observers.add(CachePrefetch, prefetcher.observe)
    return prefetcher
