"""Construction of a service's parts, none of them open."""

from collections.abc import Mapping
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
from feedsvc.changes.listener import DEADLINE, INTERVAL, ChangeListener
from feedsvc.core.drain import Drain
from feedsvc.core.events import CachePrefetch, Observers, QuerySlow, RequestEnded
from feedsvc.core.process import WorkerContext
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.operations.access_log import AccessLog
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.audit import AuditLog
from feedsvc.operations.fleet import Fleet
from feedsvc.operations.health.checks import checks_of
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.readiness import Readiness
from feedsvc.operations.metrics.observer import Domain
from feedsvc.operations.slow_query_log import SlowQueryLog
from feedsvc.operations.telemetry import Telemetry, TelemetryContext
from feedsvc.server.preflight import StartError, alert_rules
from feedsvc.settings import Settings
from feedsvc.web.application import patterns
from feedsvc.web.context import Service
from streams.formats import FORMATS

_CLOCKS_APART: Final = 30.0  # seconds by which the clocks of machines may differ
_PATIENCE: Final = 0.01  # seconds by which figures may lag behind


class Assembly(NamedTuple):
    """A service, and those of its parts that no request needs."""

    service: Service
    link: RedisLink | None
    changes: ChangeListener
    audit: AuditLog
    audit_pool: Pool


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
    audit_pool, analytics = _audit_pool(settings, observers, pools), CacheAnalytics(datasets)
    audit = AuditLog(audit_pool, settings.audit)
    observers.add(RequestEnded, audit.observe)
    observers.add(RequestEnded, AccessLog().observe)
    observers.add(QuerySlow, SlowQueryLog().observe)
    analytics.observe(observers)
    shared = _shared(settings, link, observers, key)
    pages, changes = _cache(settings, pools.servers, datasets, shared, observers)
    health = HealthContext(settings, workplace, pools, replicas, pages, changes, tokens, link)
    probe = ReadinessProbe(pools.servers)
    service = Service(
        settings=settings,
        datasets=datasets,
        tokens=tokens,
        tickets=Tickets(pools["write"], link, key),
        resumption=Resumption(key),
        limits=Limiter(settings.limits, link, settings.server.workers * settings.server.instances),
        observers=observers,
        observing=Telemetry(_observed(health, datasets, rules), pools["write"], observers),
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
    )
    return Assembly(service, link, changes, audit, audit_pool)


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
) -> tuple[Pages, ChangeListener]:
    oldest = max((dataset.fresh + dataset.stale for dataset in datasets.values()), default=0.0)
    ledger = Ledger(keep=oldest + _CLOCKS_APART, silence=2 * (INTERVAL + DEADLINE))
    size = settings.streams.page_size
    fingerprints = {name: fingerprint(dataset, size) for name, dataset in datasets.items()}
    coverage = Coverage(fingerprints)
    watch = Invalidation(coverage, ledger, declarations(settings.datasets.file), observers)
    changes = ChangeListener(servers, watch, watch.look, observers)
    policy = PagePolicy(ledger, coverage, enabled=settings.cache.enabled)
    return Pages(settings.cache, policy, shared, changes.catch_up, observers), changes


def _prefetcher(
    settings: Settings, pools: PoolSet, pages: Pages, observers: Observers
) -> Prefetcher:
    """The reader of next pages, which pauses while requests wait for a connection."""
    pressed, patience = pools["read"].pressed, settings.cache.prefetch_patience
    prefetcher = Prefetcher(pages, observers, lambda: not pressed.is_set(), patience)
    observers.add(CachePrefetch, prefetcher.observe)
    return prefetcher
