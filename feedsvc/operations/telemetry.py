"""Metrics, tracker and alerts of a worker, constructed for `feedsvc.server.assembly`."""

import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers
from feedsvc.core.problems import Unavailable
from feedsvc.core.process import WorkerContext
from feedsvc.operations.alerts.board import AlertStore
from feedsvc.operations.alerts.delivery import AlertDelivery, Target
from feedsvc.operations.alerts.desk import AlertService
from feedsvc.operations.alerts.evaluator import Evaluator, Task
from feedsvc.operations.alerts.group import Group
from feedsvc.operations.alerts.history import AlertHistory
from feedsvc.operations.alerts.rules import Rule
from feedsvc.operations.alerts.webhook import Webhook
from feedsvc.operations.metrics.cells import Cells
from feedsvc.operations.metrics.exposition import Exposition
from feedsvc.operations.metrics.observer import Domain, MetricsObserver
from feedsvc.operations.performance.store import Store
from feedsvc.operations.performance.tracker import Tracker
from feedsvc.operations.sampling import Sampling
from feedsvc.operations.vitals import SampledParts, StatsSampler
from feedsvc.settings import Settings

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_OFF: Final = "metrics.enabled is false, so nothing is counted."
_NO_PLACE: Final = "The workers have no shared folder for metrics; see the log."


@dataclass(frozen=True, slots=True)
class TelemetryContext:
    """The settings, the worker and the names that are observed."""

    settings: Settings
    workplace: WorkerContext
    domain: Domain
    rules: Mapping[str, Rule]


class Telemetry:
    """Metrics, tracker and alerts, and the samples that they read."""

    def __init__(self, scene: TelemetryContext, pool: Pool, observers: Observers) -> None:
        """`pool` is for the service's own tables."""
        given, place = scene.settings.metrics, scene.workplace
        self._enabled = given.enabled
        self._observers = observers
        self._sampling = Sampling(given.shed_above, given.shed_to)
        self._cells = Cells()
        self._store = Store(pool)
        metrics = MetricsObserver(self._cells, scene.domain, self._sampling)
        folder = _opened(self._cells, place) if given.enabled else None
        # Behind the opening of the cells, which go on from those of the slot's last worker.
        self._tracker = Tracker(
            self._store, self._sampling, metrics.tracked(), place.folder, place.slot
        )
        self._alerts = _AlertParts(scene, pool, self._tracker, observers)
        if given.enabled:
            metrics.observe(observers)
            self._tracker.observe(observers)
        why_not = _NO_PLACE if given.enabled else _OFF
        self.exposition = Exposition(folder, why_not, self._write_cells)

    @property
    def tracker(self) -> Tracker:
        """Reports of the past. Raises Unavailable where nothing is observed."""
        if not self._enabled:
            raise Unavailable(_OFF, 60)
        return self._tracker

    @property
    def alerts(self) -> AlertService:
        """The alerts' states. Raises Unavailable where nothing is observed."""
        if not self._enabled:
            raise Unavailable(_OFF, 60)
        return self._alerts.desk

    def work(self, parts: SampledParts) -> Iterator[tuple[str, Work]]:
        """The background tasks of the worker, by name."""
        if self._enabled:
            yield "samples", StatsSampler(parts, self._observers, self._sampling).run
            yield "performance", self._store.outbox.run
            yield "retention", self._store.run_tidying
            yield from self._alerts.work(parts.drain)

    def _write_cells(self) -> None:
        self._observers.catch_up()
        self._cells.write()

    async def close(self) -> None:
        """Leave the last figures to the other workers."""
        if self._enabled:
            await self._tracker.close()
        self._cells.close()


class _AlertParts:
    """The parts of alerts."""

    def __init__(
        self, scene: TelemetryContext, pool: Pool, tracker: Tracker, observers: Observers
    ) -> None:
        given, place, rules = scene.settings.alerts, scene.workplace, scene.rules
        server = scene.settings.server
        # Not the port of the settings, which may be 0, or another one in the demo.
        port = place.listener.getsockname()[1]
        instance = given.instance or f"{socket.gethostname()}:{port}"
        target = None
        if given.webhook_url is not None:
            group = None if given.group is None else Group(pool, given.group, instance)
            target = Target(Webhook(given), group)
        boards = AlertStore(place.folder, place.slot, given.interval)
        history = AlertHistory(pool, instance)
        task = Task(instance, given.interval, server.workers, target is not None)
        self._interval = given.interval
        self._evaluator = Evaluator(rules, boards, tracker, observers, task)
        self._errands = AlertDelivery(rules, boards, history, target, observers)
        self.desk = AlertService(rules, boards, history, self._errands, instance)

    def work(self, drain: Drain) -> Iterator[tuple[str, Work]]:
        """The background tasks, by name; none where no alert is set up."""
        if self.desk.rules:
            yield "alerts", partial(self._evaluator.run, drain)
            yield "webhook", self._errands.deliver
            yield "history of alerts", partial(self._errands.remember, self._interval)


def _opened(cells: Cells, workplace: WorkerContext) -> Path | None:
    """The folder of all workers' metrics; None where this one's can't be kept."""
    if workplace.folder is None:
        return None
    try:
        cells.open(workplace.folder, workplace.slot)
    except OSError as error:
        logger.warning("metrics can't be kept in %s: %s", workplace.folder, error.strerror)
        return None
    return workplace.folder
