"""Log lines for what an attacker can cause at will."""

import asyncio
import logging
from typing import Final

logger = logging.getLogger(__name__)

_PAUSE: Final = 10.0  # seconds between two lines about the same thing


class Tally:
    """Counts a kind of event, and logs the count: at once, and then no more than now and then."""

    def __init__(self, line: str) -> None:
        self._line = line  # has one %d, for the count since the last line
        self._count = 0
        self._pause: asyncio.TimerHandle | None = None

    def add(self) -> None:
        """It has happened once more."""
        self._count += 1
        if self._pause is None:
            self._tell()

    def _tell(self) -> None:
        self._pause = None
        if self._count:
            logger.warning(self._line, self._count)
            self._count = 0
            self._pause = asyncio.get_running_loop().call_later(_PAUSE, self._tell)
