"""Sampling of stages: fewer requests are timed while the event loop is behind."""

import logging
from typing import Final

logger = logging.getLogger(__name__)

_CALM: Final = 5.0  # seconds without a lag until everything is looked at again


class Sampling:
    """The sampling rate: one of `weight` requests has its stages timed; all are counted.

    Above a lag of `shed_above` seconds (0: never) it is one of `shed_to`, until the loop has been
    on time for a while.
    """

    def __init__(self, shed_above: float, shed_to: int) -> None:
        self.weight = 1
        """The number of requests for which one stands."""
        self._shed_above = shed_above
        self._shed_to = shed_to
        self._late_at = 0.0

    def woke_late(self, seconds: float, now: float) -> None:
        """Adapt to a lag of so many seconds; `now` is the loop's own time."""
        if not self._shed_above:
            return
        if seconds > self._shed_above:
            self._late_at = now
            if self.weight == 1 < self._shed_to:
                self.weight = self._shed_to
                logger.warning("the event loop is behind: stages of 1 in %d are timed", self.weight)
        elif self.weight > 1 and now - self._late_at > _CALM:
            self.weight = 1
            logger.info("the event loop is on time: all stages are timed again")


class Turns:
    """One observer's turns: each needs its own, or two would take every other one from each."""

    __slots__ = ("_sampling", "_skipped")

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._skipped = 0

    def next(self) -> int:
        """The number of requests for which this one stands; 0 where it is not its turn."""
        weight = self._sampling.weight
        if weight == 1:
            return 1
        self._skipped += 1
        if self._skipped < weight:
            return 0
        self._skipped = 0
        return weight
