"""What looks on in a worker, put together for `feedsvc.app`."""

import logging
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

from feedsvc.errors import Unavailable
from feedsvc.metrics.cells import Cells
from feedsvc.metrics.exposition import Exposition
from feedsvc.metrics.observer import Domain, Metrics
from feedsvc.observations import Observers
from feedsvc.pools import Pool
from feedsvc.sampling import Sampling
from feedsvc.settings import Settings
from feedsvc.tracker.store import Store
from feedsvc.tracker.tracker import Tracker
from feedsvc.vitals import Parts, VitalSigns
from feedsvc.workplace import Workplace

logger = logging.getLogger(__name__)

_OFF: Final = "metrics.enabled is false, so nothing is counted."
_NO_PLACE: Final = "There is no place here for what workers share; the log says why."


class Observing:
    """Metrics and tracker, and the signs of life that go into them."""

    def __init__(
        self,
        settings: Settings,
        workplace: Workplace,
        domain: Domain,
        pool: Pool,
        observers: Observers,
    ) -> None:
        """`pool` is for the service's own tables."""
        given = settings.metrics
        self._enabled = given.enabled
        self._observers = observers
        self._sampling = Sampling(given.shed_above, given.shed_to)
        self._cells = Cells()
        self._store = Store(pool)
        self._tracker = Tracker(self._store, self._sampling, workplace.folder, workplace.slot)
        folder = None
        if given.enabled:
            Metrics(self._cells, domain, self._sampling).observe(observers)
            self._tracker.observe(observers)
            folder = _opened(self._cells, workplace)
        why_not = _NO_PLACE if given.enabled else _OFF
        self.exposition = Exposition(folder, why_not, self._cells.write)

    @property
    def tracker(self) -> Tracker:
        """Reports of the past. Raises Unavailable where nothing is observed."""
        if not self._enabled:
            raise Unavailable(_OFF, 60)
        return self._tracker

    def work(self, parts: Parts) -> Iterator[Coroutine[Any, Any, None]]:
        """What is to be done in the background for as long as the worker runs."""
        if self._enabled:
            yield VitalSigns(parts, self._observers, self._sampling).run()
            yield self._store.run()

    async def close(self) -> None:
        """Leaves the last figures to the other workers."""
        if self._enabled:
            await self._tracker.close()
        self._cells.close()


def _opened(cells: Cells, workplace: Workplace) -> Path | None:
    """Where the metrics of all workers are; None where this one's can't be kept."""
    if workplace.folder is None:
        return None
    try:
        cells.open(workplace.folder, workplace.slot)
    except OSError as error:
        logger.warning("metrics can't be kept in %s: %s", workplace.folder, error.strerror)
        return None
    return workplace.folder
