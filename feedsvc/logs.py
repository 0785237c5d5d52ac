"""Where log lines go: standard error, one line each, and nothing in them of anybody's rows."""

import logging
import time
import traceback
from types import TracebackType
from typing import Literal, TypeAlias

from feedsvc.faults import told

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_Raised: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class _Formatter(logging.Formatter):
    """Tracebacks without what PostgreSQL says of a value: its messages quote the rows."""

    def formatException(self, ei: _Raised) -> str:  # noqa: N802 - as logging names it
        """The frames and kinds of the error and of what caused it."""
        lines: list[str] = []
        error = ei[1]
        while error is not None:
            lines[:0] = [
                *traceback.format_tb(error.__traceback__),
                f"{told(error)}\n",
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "".join(lines).rstrip("\n")


def configure(level: Level) -> None:
    """Sets up the log of this process; times are UTC."""
    formatter = _Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s")
    formatter.converter = time.gmtime
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for every revision and statement is for whoever debugs alembic itself.
    logging.getLogger("alembic").setLevel(logging.WARNING)
