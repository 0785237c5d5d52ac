"""Statistics of one pool's recent past: waits, leases, refusals and faults."""

import time
from collections.abc import Mapping
from typing import Final

from feedsvc.backends.postgres.admission import Admission, PoolExhaustedError
from feedsvc.backends.postgres.report import PoolFigures, texts
from feedsvc.backends.postgres.window import Durations, Window

_REFUSALS_KEPT: Final = (60, 60.0)  # slots of so many seconds


class PoolStatistics:
    """Wait and leases in seconds, refusals by reason, each over the last minutes.

    `troubles` are sentences about faults, each with its latest time by the monotonic clock.
    """

    def __init__(self) -> None:
        self.troubles: dict[str, float] = {}
        self._waits = Durations()
        self._leases = {False: Durations(), True: Durations()}
        self._refusals: Window[str] = Window(*_REFUSALS_KEPT)

    def add_wait(self, seconds: float) -> None:
        """Record the wait of a request that got a connection."""
        self._waits.add(seconds)

    def add_refusal(self, refusal: PoolExhaustedError, waited: float) -> None:
        """Record a request that got none, after so many seconds."""
        self._refusals.add(refusal.why)
        self._waits.add(waited)
        self.add_trouble("refused a request")

    def add_lease(self, seconds: float, *, large: bool) -> None:
        """Record how long a connection was in use; `large` by an export."""
        self._leases[large].add(seconds)

    def add_trouble(self, trouble: str) -> None:
        """Record a fault, in words that follow the pool's name in a sentence."""
        self.troubles[trouble] = time.monotonic()

    def figures(
        self, name: str, timeouts: Mapping[str, float], admission: Admission, connections: int
    ) -> PoolFigures:
        """The pool's sizes and present use, with what was recorded."""
        return PoolFigures(
            name=name,
            size=admission.size,
            reserve=admission.size - admission.most_large,
            most_waiting=admission.most_waiting,
            timeouts=timeouts,
            open=connections,
            in_use=admission.in_use,
            in_use_by_exports=admission.in_large_use,
            waiting=admission.waiting,
            waits=texts(self._waits.counts()),
            small=texts(self._leases[False].counts()),
            large=texts(self._leases[True].counts()),
            refused=texts(self._refusals.total()),
            demand=texts(admission.demand.seconds()),
        )
