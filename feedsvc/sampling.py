"""How closely is looked: less while the event loop is behind, for looking costs time as well."""

import logging
from typing import Final

logger = logging.getLogger(__name__)

_CALM: Final = 5.0  # seconds without a lag until everything is looked at again


class Sampling:
    """Which requests have their stages timed; all of them are counted, whatever this says.

    Above a lag of `shed_above` seconds (0: never) it is one of `shed_to`, until the loop has been
    on time for a while.
    """

    def __init__(self, shed_above: float, shed_to: int) -> None:
        self.weight = 1
        """For how many requests one stands."""
        self._shed_above = shed_above
        self._shed_to = shed_to
        self._skipped = 0
        self._late_at = 0.0

    def takes(self) -> bool:
        """Whether it is this request's turn."""
        self._skipped += 1
        if self._skipped < self.weight:
            return False
        self._skipped = 0
        return True

    def woke_late(self, seconds: float, now: float) -> None:
        """The event loop was so many seconds late; `now` is its own time."""
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
