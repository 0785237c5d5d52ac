"""What all workers of a service know of its alerts: a file in the folder that they share.

One worker is its owner, evaluates and sends; the others read it. An owner that has not been seen
for a while, for it is dead or frozen, loses it to whoever looks next. No database is asked for
that: the one that is away is what somebody has to be told of.
"""

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from feedsvc.alerts.states import State

logger = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

_PATIENCE: Final = 3
"""So many looks an owner may miss."""


@dataclass(slots=True)
class Board:
    """`at` is when it was last evaluated, seconds since 1970.

    `undelivered` and `unwritten` are messages for the webhook and events for PostgreSQL, the oldest
    first: whoever owns the board next goes on with them. `silences` are the latest ones by alert.
    """

    owner: str = ""
    beat: float = 0.0  # by a clock that nobody sets, and that all processes of a machine share
    at: float = 0.0
    restored: bool = False
    states: dict[str, State] = field(default_factory=dict)
    silences: dict[str, Json] = field(default_factory=dict)
    undelivered: list[Json] = field(default_factory=list)
    unwritten: list[Json] = field(default_factory=list)

    def silence(self, alert: str, now: float) -> Json | None:
        """The silence that is upon this alert, if there is one."""
        found = self.silences.get(alert)
        return found if found is not None and found["until"] > now else None


class Boards:
    """The board of one service. Without a folder each worker has its own, and slot 0 evaluates."""

    def __init__(self, folder: Path | None, slot: int, interval: float) -> None:
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._file = None if folder is None else folder / "alerts.now"
        self._lock = None if folder is None else folder / "alerts.lock"
        self._own = Board()
        self._may_own = folder is not None or slot == 0
        self._dead_after = _PATIENCE * interval

    def read(self) -> Board:
        """The board as it is; an empty one where nobody has evaluated yet."""
        if self._file is None:
            return self._own
        try:
            plain = orjson.loads(self._file.read_bytes())
            states = {name: State.parse(state) for name, state in plain["states"].items()}
            return Board(**{**plain, "states": states})
        except FileNotFoundError:
            return Board()
        except (OSError, KeyError, TypeError, ValueError) as error:
            logger.warning("alerts: the board can't be read, and begins anew: %s", error)
            return Board()

    def owned_by_other(self, board: Board) -> bool:
        """Whether another worker evaluates."""
        if not self._may_own:
            return True
        is_dead = time.monotonic() - board.beat > self._dead_after
        return board.owner not in ("", self.worker) and not is_dead

    @contextmanager
    def changing(self) -> Iterator[Board | None]:
        """The board, to be changed in the block, which may not wait; None while another does."""
        if self._file is None or self._lock is None:
            yield self._own
            return
        try:
            lock = self._lock.open("w")
        except OSError as error:
            logger.warning("alerts: the board can't be changed: %s", error)
            yield None
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            board = self.read()
            yield board
            self._write(self._file, board)

    def _write(self, file: Path, board: Board) -> None:
        unfinished = file.with_suffix(".new")
        try:
            unfinished.write_bytes(orjson.dumps(board))
            unfinished.replace(file)
        except OSError as error:
            logger.warning("alerts: the board can't be written: %s", error)
