"""Queries of requests that take longer than `queries.slow`: reported once a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

from feedsvc.backends.postgres.pool import Connection
from feedsvc.core import cause
from feedsvc.core.events import Observers, QuerySlow


class Stopwatch:
    """Times one request's queries, and reports the first of them that is slow."""

    def __init__(self, observers: Observers, dataset: str, source: str) -> None:
        self._observers = observers
        self._dataset = dataset
        self._backend: int | None = None
        self._has_told = False
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
            self._judge(time.monotonic() - began)

    def _judge(self, seconds: float) -> None:
        present = cause.PRESENT.get()
        if present is None or seconds <= present.slow or self._has_told:
            return
        self._has_told = True
        self._observers.tell(
            QuerySlow(
                at=time.time(),
                request_id=present.request_id,
                dataset=self._dataset,
                source=self.source,
                parameters=present.parameters,
                seconds=seconds,
                backend=self._backend,
                trace=present.trace,
            )
        )
