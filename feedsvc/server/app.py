"""The one place that puts the parts together, and takes them apart again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg

from feedsvc.access.keys import KeyMissingError
from feedsvc.access.limiter import Limiter
from feedsvc.access.resumption import Resumption
from feedsvc.access.service_key import ServiceKey, service_key
from feedsvc.access.tickets import Tickets
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres import pool as pools
from feedsvc.backends.postgres.pool import Pool, PoolSet
from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.backends.postgres.servers import Servers
from feedsvc.backends.postgres.sessions import SessionRefusedError
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache.analytics import CacheAnalytics
from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.key import fingerprint
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.pages import Pages
from feedsvc.cache.policy import Coverage, PagePolicy
from feedsvc.cache.prefetch import Prefetcher
from feedsvc.cache.redis_pages import RedisPages
from feedsvc.cache.redis_store import RedisStore
from feedsvc.cache.warming import Recipe, Warmth
from feedsvc.changes.listener import DEADLINE, INTERVAL, ChangeListener
from feedsvc.core.drain import Drain
from feedsvc.core.events import CachePrefetch, Observers, QuerySlow, RequestEnded
from feedsvc.core.logs import redacted
from feedsvc.core.principal import Principal
from feedsvc.core.process import WorkerContext
from feedsvc.core.timing import Stages
from feedsvc.datasets import checks as preflight
from feedsvc.datasets.dataset import Dataset, DatasetsError, declarations
from feedsvc.feeds.page_reader import read_page
from feedsvc.feeds.query import FeedQuery
from feedsvc.operations.access_log import AccessLog
from feedsvc.operations.alerts.rules import AlertsError, KnownNames, Rule, load
from feedsvc.operations.audit import AuditLog
from feedsvc.operations.fleet import Fleet
from feedsvc.operations.health.checks import checks_of
from feedsvc.operations.health.context import HealthContext as HealthParts
from feedsvc.operations.health.readiness import Readiness
from feedsvc.operations.metrics.observer import Domain
from feedsvc.operations.slow_query_log import SlowQueryLog
from feedsvc.operations.telemetry import Telemetry, TelemetryContext
from feedsvc.operations.tracing import TracingExtraMissingError, spans_of
from feedsvc.operations.vitals import SampledParts
from feedsvc.server import open_files
from feedsvc.settings import Server, Settings
from feedsvc.web.application import Runner, application, patterns
from feedsvc.web.context import Service
from feedsvc.web.operations.metrics import application_of
from streams.formats import FORMATS

logger = logging.getLogger(__name__)

_RETRY: Final = 0.25  # seconds between looks at a database that is starting
_CLOCKS_APART: Final = 30.0  # seconds by which the clocks of machines may differ
_PATIENCE: Final = 0.01  # seconds for which figures may be behind
_PARTING_TICK: Final = 0.02  # seconds
_LAST_BYTES: Final = 10  # times as long as idle connections get: for what slow clients still read
_CLOSE_TIMEOUT: Final = 2.0  # seconds that connections get to close by themselves


Background: TypeAlias = Coroutine[Any, Any, None]


class StartError(Exception):
    """The service can't start; each line of the message is one reason with what to mend."""


@asynccontextmanager
async def assembled(settings: Settings, workplace: WorkerContext) -> AsyncIterator[Service]:
    """The service's parts, open. Raises StartError."""
    try:
        tokens = Tokens(settings.auth)
        spans = spans_of(settings.tracing, workplace.listener)
    except (KeyMissingError, TracingExtraMissingError) as error:
        raise StartError(str(error)) from None
    datasets, key = await _datasets(settings, tokens)
    built = _built(settings, workplace, tokens, datasets, key)
    service, link, audit = built.service, built.link, built.audit
    async with AsyncExitStack() as stack:
        if link is not None:
            stack.push_async_callback(link.close)
            await link.open()
        for connections in (service.pools, service.replicas, built.audit_pool):
            await connections.open()
            stack.push_async_callback(connections.close, _CLOSE_TIMEOUT)
        stack.push_async_callback(service.observing.close)
        stack.push_async_callback(service.limits.close)
        stack.push_async_callback(audit.close)
        if spans is not None:
            spans.open()
            service.observers.add(RequestEnded, spans.observe)
            stack.push_async_callback(spans.close)
        stack.push_async_callback(service.pages.close)
        stack.push_async_callback(service.prefetcher.close)
        stack.push_async_callback(service.warmth.write)
        stack.callback(service.observers.catch_up)
        await stack.enter_async_context(service.together.open())
        await service.probe.probe()
        for work in _work(built):
            await stack.enter_async_context(_in_background(work))
        yield service


class _Built(NamedTuple):
    """A service, and those of its parts that nobody who answers needs."""

    service: Service
    link: RedisLink | None
    changes: ChangeListener
    audit: AuditLog
    audit_pool: Pool


def _audit_pool(settings: Settings, observers: Observers, servers: Servers) -> Pool:
    """A connection that no flood of requests can take from the audit log."""
    of_audit = settings.pools.write.model_copy(
        update={"size": 1, "reserve": 0, "application_name": "feedsvc audit"}
    )
    return Pool("write", of_audit, servers, observers)


def _built(
    settings: Settings,
    workplace: WorkerContext,
    tokens: Tokens,
    datasets: Mapping[str, Dataset],
    key: ServiceKey,
) -> _Built:
    """All parts, none of them open. Raises StartError."""
    rules = alert_rules(settings, datasets)
    observers = Observers(_PATIENCE)
    made, replicas = _connections(settings, workplace, observers)
    link = _redis(settings, observers)
    writing, analytics = _audit_pool(settings, observers, made.servers), CacheAnalytics(datasets)
    audit = AuditLog(writing, settings.audit)
    observers.add(RequestEnded, audit.observe)
    observers.add(RequestEnded, AccessLog().observe)
    observers.add(QuerySlow, SlowQueryLog().observe)
    analytics.observe(observers)
    shared = _shared(settings, link, observers, key)
    pages, changes = _cache(settings, made.servers, datasets, shared, observers)
    drain = Drain()
    severities = {name: rule.severity for name, rule in rules.items()}
    domain = Domain(
        patterns(), datasets, FORMATS, made.states(), severities,
        checks=[check.name for check in checks_of(settings.health)],
        standbys=[replica.name for replica in replicas.all],
        publishes=tokens.published is not None,
    )  # fmt: skip
    scene = TelemetryContext(settings, workplace, domain, rules)
    parts = HealthParts(settings, workplace, made, replicas, pages, changes, tokens, link)
    probe = ReadinessProbe(made.servers)
    service = Service(
        settings=settings,
        datasets=datasets,
        tokens=tokens,
        tickets=Tickets(made["write"], link, key),
        resumption=Resumption(key),
        limits=Limiter(settings.limits, link, settings.server.workers * settings.server.instances),
        observers=observers,
        observing=Telemetry(scene, made["write"], observers),
        pools=made,
        replicas=replicas,
        pages=pages,
        cache_analytics=analytics,
        prefetcher=_prefetcher(settings, made, pages, observers),
        warmth=Warmth(link if settings.cache.shared else None, settings.cache.warm),
        probe=probe,
        readiness=Readiness(settings.health, drain, tokens, parts.loop, probe),
        together=Fleet(parts, drain),
        drain=drain,
    )
    return _Built(service, link, changes, audit, writing)


def _prefetcher(
    settings: Settings, made: PoolSet, pages: Pages, observers: Observers
) -> Prefetcher:
    """It reads ahead while nobody waits for a connection."""
    pressed, patience = made["read"].pressed, settings.cache.prefetch_patience
    prefetcher = Prefetcher(pages, observers, lambda: not pressed.is_set(), patience)
    observers.add(CachePrefetch, prefetcher.observe)
    return prefetcher


def _work(built: _Built) -> Iterator[Background]:
    """What is done beside the requests, until the end."""
    service, _, changes, audit, _ = built
    settings = service.settings
    yield service.probe.run()
    if service.pools.servers.are_several:
        yield service.pools.servers.run()
    yield service.limits.run()
    yield audit.run()
    yield service.together.health.run()
    if settings.cache.enabled:
        yield changes.run()
        yield _keep_warm(service)
    if service.replicas.all:
        yield service.replicas.run()
    if service.tokens.published is not None:
        yield service.tokens.published.run()
    sampled = SampledParts(service.together.health, service.drain, service.probe, audit)
    yield from service.observing.work(sampled)


@asynccontextmanager
async def _in_background(work: Background) -> AsyncIterator[None]:
    """Has the work done until the block ends. None of it should end by itself."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_of_a_death)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_of_a_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.critical("a background task died: %s", task.get_coro(), exc_info=task.exception())


def _connections(
    settings: Settings, workplace: WorkerContext, observers: Observers
) -> tuple[PoolSet, Replicas]:
    servers = Servers(settings.database, workplace.folder)
    replicas = Replicas(settings, observers, servers=servers)
    return PoolSet(settings, observers, servers, replicas), replicas


async def _keep_warm(service: Service) -> None:
    """Warms the cache once it may be used, and then notes what is hot."""
    while not await service.pages.catch_up():  # noqa: ASYNC110 - nobody would set an event
        await asyncio.sleep(_RETRY)
    await service.warmth.run(partial(_warm, service))


async def _warm(service: Service, recipe: Recipe) -> None:
    tenant, role, client = recipe["scope"]
    principal = Principal(tenant, role, client or None, 0.0)
    dataset = service.datasets[recipe["dataset"]]
    if not dataset.readable_by(role, principal.client):
        return
    query = FeedQuery.parse(recipe["given"], dataset)
    wanted = service.pages.wanted(query, principal, query.limit)
    if isinstance(wanted, PageRequest):
        bounds, pool = service.settings.streams, service.pools["read"]
        load = partial(read_page, query, principal, pool, bounds, Stages())
        await service.pages.fetch(wanted, load)


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


def _shared(
    settings: Settings, link: RedisLink | None, observers: Observers, key: ServiceKey
) -> RedisPages | None:
    if link is None or not settings.cache.shared:
        return None
    return RedisPages(RedisStore(link), observers, key.seal("pages in redis"))


def _redis(settings: Settings, observers: Observers) -> RedisLink | None:
    if settings.redis.url is None or not settings.redis.url.get_secret_value():
        return None
    try:
        return RedisLink(settings.redis.url.get_secret_value(), settings.redis, observers)
    except ValueError as error:
        raise StartError(f"redis.url {error}") from None


class Serving(NamedTuple):
    """A service, and what answers for it: the feeds' runner first."""

    service: Service
    runners: Sequence[Runner]

    async def stop_accepting(self) -> None:
        """Takes no more connections; whoever else has the listening sockets does."""
        for runner in self.runners:
            for site in runner.sites:
                await site.stop()

    def is_connected(self) -> bool:
        """Tell whether a client of the feeds has a connection.

        Prometheus keeps one to the port of the metrics for as long as it lives.
        """
        return self.runners[0].is_connected()

    async def part(self, timeout: float) -> None:
        """End what connections are idle, and give their clients a moment to notice.

        A closed socket answers a request that is on its way with a reset; one that is only closed
        for writing takes it, and its client knows that it has not been answered.
        """
        for runner in self.runners:
            for connection in runner.connections():
                connection.part()
        loop = asyncio.get_running_loop()
        end, last = loop.time() + timeout, loop.time() + timeout * _LAST_BYTES
        while loop.time() < last:
            left = [each for runner in self.runners for each in runner.connections()]
            if not left or (loop.time() >= end and not any(each.unsent() for each in left)):
                break
            await asyncio.sleep(_PARTING_TICK)


@asynccontextmanager
async def serving(settings: Settings, workplace: WorkerContext) -> AsyncIterator[Serving]:
    """The service, answering on its listening sockets. Raises StartError.

    At the block's end whatever still runs is ended; a drain comes before that.
    """
    server = _server(settings)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(assembled(settings, workplace))
        runners = []
        if workplace.metrics_listener is not None:
            of_metrics = Runner(application_of(service), open_files.for_metrics(server))
            await of_metrics.setup()
            stack.push_async_callback(of_metrics.cleanup)
            await of_metrics.answer_on(workplace.metrics_listener)
            runners.append(of_metrics)
        runner = Runner(application(service), server)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await runner.answer_on(workplace.listener)
        yield Serving(service, [runner, *runners])


def _server(settings: Settings) -> Server:
    """The server's settings as far as the limit of open files allows. Raises StartError."""
    try:
        return open_files.bounded(settings, open_files.raise_limit())
    except open_files.TooFewFilesError as error:
        raise StartError(str(error)) from None


def alert_rules(settings: Settings, datasets: Collection[str]) -> dict[str, Rule]:
    """The alerts, held against what there is. Raises StartError."""
    if settings.alerts.file is None:
        return {}
    checks = [check.name for check in checks_of(settings.health)]
    known = KnownNames(datasets, patterns(), type(settings.pools).model_fields, checks)
    try:
        return load(settings.alerts.file, known)
    except AlertsError as error:
        raise StartError(str(error)) from None


async def _datasets(settings: Settings, tokens: Tokens) -> tuple[dict[str, Dataset], ServiceKey]:
    """The datasets, once the database answers and nothing is wrong with them; the service's key."""
    connection = await _first_connection(settings)
    try:
        datasets, findings = await preflight.inspect(connection, settings)
        key = await service_key(connection, settings, tokens.signing_secret)
    except DatasetsError as error:
        raise StartError(str(error)) from None
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT)
    for finding in findings:
        if finding.severity == "warning" or finding.passes:
            logger.warning("%s", finding.text)
    errors = [str(f) for f in findings if f.severity == "error" and not f.passes]
    if errors:
        raise StartError("\n".join(errors))
    return datasets, key


async def _first_connection(settings: Settings) -> asyncpg.Connection:
    """A connection, waited for while the database is itself starting."""
    if not settings.database.url.get_secret_value():
        raise StartError("database.url must be set, or DATABASE_URL")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.database.startup_timeout
    is_told = False
    while True:
        try:
            return await pools.connect(settings.database, application_name="feedsvc start")
        except (
            SessionRefusedError,
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            ValueError,
        ) as error:
            raise StartError(f"database.url: {error}") from None
        except (OSError, asyncpg.PostgresError) as error:
            if loop.time() >= deadline:
                raise StartError(f"database.url: the database does not answer: {error}") from None
            if not is_told:
                what = "waiting up to %g s for the database to answer: %s"
                logger.warning(what, settings.database.startup_timeout, redacted(error))
                is_told = True
            await asyncio.sleep(_RETRY)
