"""The workers' turns at upkeep, of the change log or of views, noted in the folder that they share.

A worker claims a turn by noting when the next one is due. Two that claim the same one do no harm:
PostgreSQL lets one session at a time maintain the log.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from feedsvc.core.shared_file import write_whole

logger = logging.getLogger(__name__)

_FILE: Final = "log-upkeep.turn"


@dataclass(slots=True)
class UpkeepTurn:
    """The time at which the next turn is due, the log's size and epoch as last seen `at`, and why
    the last turn failed.

    Times are of the monotonic clock, which all processes of a machine share.
    """

    due: float = 0.0
    at: float = 0.0
    bytes: int | None = None
    epoch: str | None = None
    fault: str | None = None


class UpkeepTurns:
    """Turns of the workers of one service. Without a folder each worker has its own."""

    def __init__(
        self,
        folder: Path | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        file: str = _FILE,
    ) -> None:
        self.clock = clock
        self._file = None if folder is None else folder / file
        self._last = UpkeepTurn()
        self._is_logged = False

    def last(self) -> UpkeepTurn:
        """The last turn as it was noted."""
        if self._file is not None:
            try:
                self._last = UpkeepTurn(**orjson.loads(self._file.read_bytes()))
            except FileNotFoundError:
                pass
            except (OSError, TypeError, ValueError) as error:
                self._log(error)
        return self._last

    async def until_due(self, spread: float) -> None:
        """Wait until a turn is due, and for up to `spread` seconds more, drawn for each worker."""
        wait = max(self.last().due - self.clock(), 0.0)
        await asyncio.sleep(wait + random.uniform(0, spread))  # noqa: S311 - no secret

    def note(self, turn: UpkeepTurn) -> None:
        """Note a turn, for all workers."""
        self._last = turn
        if self._file is None:
            return
        try:
            write_whole(self._file, orjson.dumps(turn))
        except OSError as error:
            self._log(error)

    def _log(self, error: Exception) -> None:
        """Log once: each worker then takes turns by itself, which costs a query more."""
        if not self._is_logged:
            logger.warning("changes: turns can't be shared by the workers: %s", error)
        self._is_logged = True
