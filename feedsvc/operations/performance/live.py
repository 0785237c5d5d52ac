"""The present of all workers of a service: a file of each in their shared folder.

It has the minute under way, the one before it, which PostgreSQL may not have yet, and the latest
signs of life. So any worker can show all of them, two seconds old at most, whether PostgreSQL
answers or not.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from feedsvc.core.process_stats import (
    AuditState,
    ChangeLogState,
    FollowedState,
    PoolState,
    ProcessStats,
    StandbyState,
    ViewState,
)
from feedsvc.operations.performance.figures import Figures, FiguresError
from feedsvc.operations.performance.recorder import MINUTE, Minute
from feedsvc.operations.performance.store import StoredFigures

logger = logging.getLogger(__name__)

EVERY: Final = 2.0
"""Seconds between two writings of a worker's file."""
UNDER_WAY: Final = ""
"""The id of a row that goes on."""
_DEAD: Final = 15.0  # seconds after which a file's worker is dead, or so late that it might as well


class Present(NamedTuple):
    """The present of one worker; the last of `rows` is the minute under way."""

    vitals: ProcessStats
    rows: list[StoredFigures]


class LiveFile:
    """This worker's file."""

    def __init__(self, folder: Path, slot: int) -> None:
        self._path = folder / f"live_{slot}.now"
        self._before: tuple[str, orjson.Fragment] | None = None
        self._failed = False

    def closed(self, row: StoredFigures) -> None:
        """Take the minute that is over."""
        self._before = row.id, orjson.Fragment(_written(row))

    def write(self, vitals: ProcessStats, minute: Minute) -> None:
        """Write the file anew; a reader finds the old one or the new one."""
        now = StoredFigures(UNDER_WAY, minute.at, MINUTE, minute.figures)
        rows: list[Any] = [] if self._before is None else [self._before[1]]
        rows.append(orjson.Fragment(_written(now)))
        unfinished = self._path.with_suffix(".new")
        try:
            unfinished.write_bytes(
                orjson.dumps({"vitals": vitals._asdict(), "rows": rows}, default=tuple)
            )
            unfinished.replace(self._path)
        except OSError as error:
            if not self._failed:
                logger.warning("this worker's figures can't be shared: %s", error)
            self._failed = True
        else:
            self._failed = False


def present(folder: Path) -> list[Present]:
    """The present of every worker that is alive."""
    return [found for file in folder.glob("live_*.now") if (found := _read(file)) is not None]


def _written(row: StoredFigures) -> bytes:
    return orjson.dumps({"id": row.id, "at": row.at, **row.figures.plain()})


def _read(file: Path) -> Present | None:
    try:
        if time.time() - file.stat().st_mtime > _DEAD:
            return None
        plain = orjson.loads(file.read_bytes())
        return Present(_vitals(plain["vitals"]), list(_rows(plain["rows"])))
    except FileNotFoundError:
        return None  # its worker has just died
    except (OSError, KeyError, TypeError, ValueError, FiguresError):
        logger.warning("the figures of another worker can't be read: %s", file.name)
        return None


def _vitals(plain: dict[str, Any]) -> ProcessStats:
    pools = {name: PoolState(*state) for name, state in plain["pools"].items()}
    standbys = {name: StandbyState(*state) for name, state in plain["standbys"].items()}
    audit = AuditState(*plain["audit"])
    log = None if plain["log"] is None else ChangeLogState(*plain["log"])
    parts = {"pools": pools, "standbys": standbys, "audit": audit, "log": log}
    parts["live"] = FollowedState(*plain["live"])
    parts["views"] = {name: ViewState(*state) for name, state in plain["views"].items()}
    return ProcessStats(**{**plain, **parts})


def _rows(plain: list[dict[str, Any]]) -> Iterator[StoredFigures]:
    for row in plain:
        yield StoredFigures(row["id"], row["at"], MINUTE, Figures.parse(row))
