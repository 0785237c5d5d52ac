"""A service, from the first look at its database until its last part is closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from feedsvc.access.keys import KeyMissingError
from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres import asyncpg_internals
from feedsvc.core.events import RequestEnded
from feedsvc.core.process import WorkerContext
from feedsvc.operations.tracing import TracingExtraMissingError, spans_of
from feedsvc.operations.vitals import SampledParts
from feedsvc.server import open_files
from feedsvc.server.assembly import Assembly, assemble
from feedsvc.server.components import Component, opened
from feedsvc.server.preflight import StartError, bounded_server, inspect_database
from feedsvc.server.warm_up import connect, keep_warm
from feedsvc.settings import Settings
from feedsvc.web.application import Runner, application
from feedsvc.web.context import Service
from feedsvc.web.operations.metrics import application_of

if TYPE_CHECKING:
    from feedsvc.operations.spans import Spans

logger = logging.getLogger(__name__)

_PARTING_TICK: Final = 0.02  # seconds
_LAST_BYTES: Final = 10  # times as long as idle connections get: for what slow clients still read
_CLOSE_TIMEOUT: Final = 2.0  # seconds that connections to PostgreSQL get to close by themselves
_AUDIT_TIMEOUT: Final = 6.0  # seconds: the audit log tries for five


@asynccontextmanager
async def assembled(settings: Settings, workplace: WorkerContext) -> AsyncIterator[Service]:
    """The service's parts, open. Raises StartError."""
    try:
        tokens = Tokens(settings.auth)
        spans = spans_of(settings.tracing, workplace.listener)
    except (KeyMissingError, TracingExtraMissingError) as error:
        raise StartError(str(error)) from None
    if (fault := asyncpg_internals.fault()) is not None:
        lost = "PostgreSQL's log has no request beside a portal, and Unix sockets are read slower"
        logger.warning("%s: %s", fault, lost)
    datasets, key = await inspect_database(settings, tokens)
    assembly = assemble(settings, workplace, tokens, datasets, key)
    async with opened([*_stores(assembly), *_observers(assembly, spans), *_feeds(assembly)]):
        await connect(assembly.service, assembly.changes if settings.cache.enabled else None)
        yield assembly.service


def _stores(assembly: Assembly) -> Iterator[Component]:
    """Redis and PostgreSQL, which all other parts may use until they are closed."""
    service, link = assembly.service, assembly.link
    servers, replicas = service.pools.servers, service.replicas
    if link is not None:
        yield Component("redis", link.open, close=link.close)
    for name, pools, run in (
        ("pools", service.pools, servers.run if servers.are_several else None),
        ("standbys", replicas, replicas.run if replicas.all else None),
        ("pool of the audit log", assembly.audit_pool, None),
        ("pool of the log's tail", assembly.tail_pool, None),
        ("pool of plans", assembly.plan_pool, None),
    ):
        yield Component(name, pools.open, run, partial(pools.close, _CLOSE_TIMEOUT))


def _observers(assembly: Assembly, spans: Spans | None) -> Iterator[Component]:
    """Parts that note what requests do, and write the last of it when they are closed."""
    service, audit = assembly.service, assembly.audit
    sampled = SampledParts(
        service.together.health, service.drain, service.probe, audit, service.subscribers
    )
    yield Component("telemetry", close=service.observing.close)
    for name, run in service.observing.work(sampled):
        yield Component(name, run=run)
    yield Component("plans of slow statements", run=assembly.slow_plans.run)
    yield Component("limits", run=service.limits.run, close=service.limits.close)
    yield Component("audit log", run=audit.run, close=audit.close, close_within=_AUDIT_TIMEOUT)
    if spans is not None:
        service.observers.add(RequestEnded, spans.observe)
        within = service.settings.tracing.timeout + 1
        yield Component("tracing", spans.open, close=spans.close, close_within=within)


def _feeds(assembly: Assembly) -> Iterator[Component]:
    """Parts that requests use, and at the end the events that observers have not had yet."""
    service, is_cached = assembly.service, assembly.service.settings.cache.enabled
    published = service.tokens.published
    follow = assembly.changes.run if is_cached else None
    warm = partial(keep_warm, service) if is_cached else None
    yield Component("cache", run=follow, close=service.pages.close)
    yield Component("subscribers", close=service.subscribers.close)
    yield Component("live feeds", close=service.tail.close)
    yield Component("rows of live feeds", close=service.shared_reads.close)
    yield Component("waiting for changes", close=service.deltas.arrivals.close)
    yield Component("the change log", run=assembly.upkeep.run)
    if assembly.views is not None:
        yield Component("materialized views", run=assembly.views.run)
    yield Component("prefetching", close=service.prefetcher.close)
    yield Component("warming", run=warm, close=service.warmth.write)
    if published is not None:
        yield Component("published keys", run=published.run)

    async def catch_up() -> None:
        service.observers.catch_up()

    yield Component("observers", close=catch_up)
    fleet = service.together
    yield Component("fleet", fleet.open, fleet.health.run, fleet.close)
    yield Component("probe", service.probe.probe, service.probe.run)


class Serving(NamedTuple):
    """A service, and the runners that answer for it: the feeds' first."""

    service: Service
    runners: Sequence[Runner]

    async def stop_accepting(self) -> None:
        """Accept no more connections; other processes with the listening sockets do."""
        for runner in self.runners:
            await runner.stop_accepting()

    def is_connected(self) -> bool:
        """Return whether a client of the feeds has a connection.

        Prometheus keeps one to the port of the metrics for as long as it lives.
        """
        return self.runners[0].is_connected() or self.service.subscribers.count > 0

    async def part(self, timeout: float) -> None:
        """End idle connections, and give their clients up to `timeout` seconds to notice."""
        for runner in self.runners:
            runner.part(timeout * _LAST_BYTES)
        loop = asyncio.get_running_loop()
        end, last = loop.time() + timeout, loop.time() + timeout * _LAST_BYTES
        while loop.time() < last and self._has_clients():
            if loop.time() >= end and not self._is_sending():
                break
            await asyncio.sleep(_PARTING_TICK)

    def _has_clients(self) -> bool:
        are_left = self.service.subscribers.count > 0
        return are_left or any(each.is_connected() for each in self.runners)

    def _is_sending(self) -> bool:
        is_sending = self.service.subscribers.is_sending()
        return is_sending or any(each.is_sending() for each in self.runners)


@asynccontextmanager
async def serving(settings: Settings, workplace: WorkerContext) -> AsyncIterator[Serving]:
    """The service, answering on its listening sockets. Raises StartError.

    Requests that still run at the block's end are cancelled; a drain comes before that.
    """
    server = bounded_server(settings)
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
