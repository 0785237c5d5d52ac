"""Queries of requests that take longer than their pool allows: reported once a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core import cause
from feedsvc.core.events import QueryRan, QuerySlow


class Stopwatch:
    """Times one request's queries, and reports the first of them that is slow."""

    def __init__(self, pool: Pool, dataset: str, source: str, statement: str = "") -> None:
        """`statement` is the name by which all that is timed is counted at `finish`."""
        self._observers = pool.observers
        self._slow = pool.settings.slow_after()
        self._dataset = dataset
        self._backend: int | None = None
        self._is_reported = False
        self._statement = statement
        self._seconds = 0.0
        self.rows = 0
        """Rows that were read so far, for the count."""
        self.source = source
        """The name of the source in Server-Timing."""

    def on(self, connection: Connection) -> None:
        """Take down whose process answers, by which PostgreSQL's own log is searched."""
        with suppress(asyncpg.InterfaceError):  # lost already
            self._backend = connection.get_server_pid()

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time the block, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._seconds += seconds
            self._judge(seconds)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Time the block, and count it as one call of the statement."""
        try:
            with self.timing():
                yield
        finally:
            self.finish()

    def finish(self) -> None:
        """Count what was timed since the last time as one call of the statement."""
        if self._statement and self._seconds:
            self._observers.publish(QueryRan(self._statement, self._seconds, self.rows))
        self._seconds, self.rows = 0.0, 0

    def _judge(self, seconds: float) -> None:
        present = cause.PRESENT.get()
        if present is None or self._is_reported or seconds <= (self._slow or present.slow):
            return
        self._is_reported = True
        self._observers.publish(
            QuerySlow(
                at=time.time(),
                request_id=present.request_id,
                dataset=self._dataset,
                source=self.source,
                parameters=present.parameters,
                seconds=seconds,
                backend=self._backend,
                trace=present.trace,
                statement=self._statement,
            )
        )
