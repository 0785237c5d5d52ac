"""Times of a request by stage."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stages:
    """Seconds by stage, each measured from the end of the one before."""

    __slots__ = ("_last", "first_byte", "said", "seconds", "started")

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.said: dict[str, str] = {}
        """Further facts by name, a word each. It follows from statistics of all tenants'
        rows, so it is for operators alone."""
        self.first_byte: float | None = None
        """Seconds from the request's beginning until its head left, None before that."""

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def add(self, stage: str, seconds: float) -> None:
        """Add a time that was measured elsewhere to this stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the block's time to this stage, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def pass_over(self) -> None:
        """Discard the time since the last lap, in which a stream was under way."""
        self._last = time.perf_counter()

    def answered(self) -> None:
        """The head leaves now."""
        self.first_byte = self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the request began."""
        return time.perf_counter() - self.started

    def elapsed_ms(self) -> int:
        """Whole milliseconds since the request began."""
        return round(self.elapsed() * 1000)

    def server_timing(self, *, words: bool) -> str:
        """The value of a Server-Timing header, with or without the descriptions in `words`."""
        said = self.said.items() if words else ()
        return ", ".join([server_timing(self.seconds), *(f"{n};desc={word}" for n, word in said)])


def server_timing(seconds: Mapping[str, float]) -> str:
    """Seconds by stage as Server-Timing has them (W3C Server Timing), in milliseconds."""
    return ", ".join([f"{stage};dur={s * 1000:.2f}" for stage, s in seconds.items()])
