"""The alerts' board: a file in the folder that all workers of a service share.

One worker is its owner, evaluates and sends; the others read it. An owner that has not been seen
for a while, dead or frozen, loses it to the next worker that looks. No database takes part, since
an alert must report one that is away.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Literal, TypeAlias

import orjson

from feedsvc.core.json_object import Json
from feedsvc.operations.alerts.lock import BoardLock
from feedsvc.operations.alerts.states import AlertState

logger = logging.getLogger(__name__)

Owed: TypeAlias = Literal["delivered", "over"]
"""A fact about an alert that the group does not know yet: its message arrived, it is over here."""

_PATIENCE: Final = 3
"""So many looks an owner may miss."""


@dataclass(slots=True)
class AlertBoard:
    """`at` is when it was last evaluated, seconds since 1970.

    `undelivered` and `unwritten` are messages for the webhook and events for PostgreSQL, the oldest
    first: the next owner goes on with them. `silences` are the latest ones by alert,
    `alone` the alerts that were sent without asking the group, for PostgreSQL was away,
    `owed` the facts that could not be recorded in the group, by alert.
    """

    owner: str = ""
    beat: float = 0.0  # by the monotonic clock, which all processes of a machine share
    at: float = 0.0
    restored: bool = False
    states: dict[str, AlertState] = field(default_factory=dict)
    silences: dict[str, Json] = field(default_factory=dict)
    undelivered: list[Json] = field(default_factory=list)
    unwritten: list[Json] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    owed: dict[str, Owed] = field(default_factory=dict)

    def silence(self, alert: str, now: float) -> Json | None:
        """The silence of this alert, if there is one."""
        found = self.silences.get(alert)
        return found if found is not None and found["until"] > now else None

    def keep(self, alert: str, silence: Json) -> None:
        """Keep a silence of this alert, unless a later one is known.

        One that was read from the history may be older than one that came while it was read.
        """
        known = self.silences.get(alert)
        if known is None or silence["at"] >= known["at"]:
            self.silences[alert] = silence


_FIELDS: Final = fields(AlertBoard)


class AlertStore:
    """The board of one service. Without a folder each worker has its own, and slot 0 evaluates."""

    def __init__(
        self,
        folder: Path | None,
        slot: int,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic, and all processes of a machine share it."""
        self.clock = clock
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._file = None if folder is None else folder / "alerts.now"
        self._own = AlertBoard()
        self._failed = False
        self._may_own = folder is not None or slot == 0
        self._dead_after = _PATIENCE * interval
        self._lock: BoardLock | None = None
        if folder is not None:
            lock = folder / "alerts.lock"
            self._lock = BoardLock(lock, self.worker, self._dead_after, clock)
        self.superseded = False  # the latest change was dropped: another worker took the lock

    def read(self) -> AlertBoard:
        """The board as it is, or was when it could last be read."""
        if self._file is not None:
            try:
                self._own = self._load(self._file)
            except OSError as error:
                self._log(error)
        return self._own

    def owned_by_other(self, board: AlertBoard) -> bool:
        """Return whether another worker evaluates."""
        if not self._may_own:
            return True
        is_dead = self.clock() - board.beat > self._dead_after
        return board.owner not in ("", self.worker) and not is_dead

    @contextmanager
    def changing(self) -> Iterator[AlertBoard | None]:
        """The board, to be changed in the block, which may not wait.

        None while another worker changes it, or where the file can't be used. What a worker has
        changed that was frozen meanwhile, and lost the lock, is dropped: it is `superseded` then.
        """
        if self._file is None or self._lock is None:
            yield self._own
            return
        with ExitStack() as stack:
            try:
                is_held = stack.enter_context(self._lock.hold())
                board = self._load(self._file)
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    self._log(error)
                yield None
                return
            yield board
            self._write(self._file, board, is_held)

    @staticmethod
    def _load(file: Path) -> AlertBoard:
        """Raises OSError. A file that can't be read starts anew.

        Another version's may have other fields: those that it lacks have their defaults.
        """
        try:
            plain = orjson.loads(file.read_bytes())
            states = {name: AlertState.parse(state) for name, state in plain["states"].items()}
            known = {each.name: plain[each.name] for each in _FIELDS if each.name in plain}
            return AlertBoard(**{**known, "states": states})
        except FileNotFoundError:
            return AlertBoard()
        except (AttributeError, KeyError, TypeError, ValueError):
            logger.exception("alerts: the board's file can't be read and starts anew")
            return AlertBoard()

    def _write(self, file: Path, board: AlertBoard, is_held: Callable[[], bool]) -> None:
        # Of its own: one that is frozen while it writes must not go on in another's file.
        unfinished = file.with_name(f"{file.name}.{self.worker}")
        self.superseded = False
        try:
            unfinished.write_bytes(orjson.dumps(board))
            self.superseded = not is_held()
            if self.superseded:
                unfinished.unlink()
            else:
                unfinished.replace(file)
            self._failed = False
        except OSError as error:
            self._log(error)

    def _log(self, error: OSError) -> None:
        """Once, until it can be written again: it is tried every second."""
        if not self._failed:
            logger.error("alerts: the board's file can't be used: %s", error.strerror)
        self._failed = True
