"""The log: lines on standard error that quote no values of rows.

On a terminal a line is text, elsewhere a JSON object. Lines below WARNING wait up to 0.1 s and are
written together: a write(2) for each of thousands of requests a second costs more than the answers.
"""

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, TextIO, TypeAlias

import orjson

from feedsvc.core.cause import Trace

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Form = Literal["auto", "text", "json"]
_Raised: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)

_PATIENCE: Final = 0.1  # seconds that a line may wait for others
_MOST_WAITING: Final = 500  # lines


def redacted(error: BaseException) -> str:
    """A message for the log that quotes no row's values, as PostgreSQL and its driver do."""
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return f"{type(error).__name__}, SQLSTATE {state}"
    if isinstance(error, ValueError) and type(error).__module__.startswith("asyncpg"):
        return type(error).__name__  # it quotes an argument
    return f"{type(error).__name__}: {error}"


class _Formatter(logging.Formatter):
    """Tracebacks without PostgreSQL's messages, which quote values of rows."""

    def formatException(self, ei: _Raised) -> str:  # noqa: N802 - as logging names it
        """The frames and classes of the error and its causes."""
        lines: list[str] = []
        error = ei[1]
        while error is not None:
            lines[:0] = [
                *traceback.format_tb(error.__traceback__),
                f"{redacted(error)}\n",
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "".join(lines).rstrip("\n")


class Line(NamedTuple):
    """A line: `at` is seconds since 1970, `fields` are plain values by name.

    As text it has `shown` in the message's place, with the fields filled in (`%(name)s`).
    """

    at: float
    level: int
    logger: str
    message: str
    fields: Mapping[str, Any]
    shown: str | None = None


class Lines(logging.Handler):
    """A stream of lines in the order in which they came, from the event loop and from threads.

    The handler's lock guards what waits. A timer is only ever set by its own loop and never
    cancelled, for no other thread may touch it; it writes what waits then, if anything does.
    """

    def __init__(self, stream: TextIO, *, json: bool) -> None:
        super().__init__()
        self._stream = stream
        self._as_text = _json if json else _text
        self._waiting: list[Line | Callable[[], Line]] = []
        self._timed: asyncio.AbstractEventLoop | None = None
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the logging module's."""
        try:
            fields = {}
            if record.exc_info and self.formatter is not None:
                fields["error"] = self.formatter.formatException(record.exc_info)
            message = record.getMessage()
            self.add(Line(record.created, record.levelno, record.name, message, fields))
            if record.levelno >= logging.WARNING:
                self.flush()
        except Exception:  # noqa: BLE001 - the logging module's way with a line that can't be made
            self.handleError(record)

    def add(self, line: Line | Callable[[], Line]) -> None:
        """Add a line, or a function that makes it when it is written."""
        self.acquire()
        try:
            self._waiting.append(line)
            if len(self._waiting) >= _MOST_WAITING:
                self.flush()
            elif self._timed is None or self._timed.is_closed():
                self._flush_soon()
        finally:
            self.release()

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            waiting, self._waiting = self._waiting, []
            if waiting:
                made = [line if isinstance(line, Line) else line() for line in waiting]
                self._stream.write("".join(map(self._as_text, made)))
                self._stream.flush()
        finally:
            self.release()

    def _flush_soon(self) -> None:
        try:
            self._timed = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # no loop would come back for it
        else:
            self._timed.call_later(_PATIENCE, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timed = None
        self.flush()


def configure(level: Level, form: Form = "auto", stream: TextIO = sys.stderr) -> None:
    """Set up the log of this process. Times are UTC."""
    lines = Lines(stream, json=form == "json" or (form == "auto" and not stream.isatty()))
    logging.basicConfig(level=level, handlers=[lines], force=True)


def drop_unwritten() -> None:
    """Drop what standard error can't take, as on a full disk: else Python ends with status 120.

    Source: the note on SIGPIPE in https://docs.python.org/3/library/signal.html.
    """
    try:
        sys.stderr.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stderr.fileno())
        os.close(null)


def traced(trace: Trace | None) -> dict[str, str]:
    """The fields of a line that belongs to a distributed trace, by OpenTelemetry's names."""
    return {} if trace is None else {"trace_id": trace.trace, "span_id": trace.span}


def add_line(line: Callable[[], Line]) -> None:
    """Add a line to the root logger's handlers, without a record: one comes with each request."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Lines):
            handler.add(line)
        else:
            made = line()
            record = logging.LogRecord(made.logger, made.level, "", 0, made.message, None, None)
            handler.handle(record)


def _json(line: Line) -> str:
    plain = {
        "at": _time(line.at),
        "level": logging.getLevelName(line.level),
        "logger": line.logger,
        "message": line.message,
        **line.fields,
    }
    return orjson.dumps(plain, default=str).decode() + "\n"


def _text(line: Line) -> str:
    level = logging.getLevelName(line.level)
    message = line.message if line.shown is None else line.shown % line.fields
    text = f"{_time(line.at)} {level} {line.logger}: {message}\n"
    return f"{text}{line.fields['error']}\n" if "error" in line.fields else text


def _time(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1e3):03d}Z"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


logger = logging.getLogger(__name__)

_PAUSE: Final = 10.0  # seconds between two lines about the same thing


class Tally:
    """A count of events that is logged at once, and then every ten seconds at most."""

    def __init__(self, line: str) -> None:
        self._line = line  # has one %d, for the count since the last line
        self._count = 0
        self._pause: asyncio.TimerHandle | None = None

    def add(self) -> None:
        """Count an event."""
        self._count += 1
        if self._pause is None:
            self._log()

    def _log(self) -> None:
        self._pause = None
        if self._count:
            logger.warning(self._line, self._count)
            self._count = 0
            self._pause = asyncio.get_running_loop().call_later(_PAUSE, self._log)
