"""All workers' figures as Prometheus or OpenMetrics text, from the files that they write."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from feedsvc.core.problems import Unavailable

_FRESH: Final = 1.0  # seconds for which a text is as good as new
_DEADLINE: Final = 10.0


class ExpositionText(NamedTuple):
    """The text and its media type."""

    body: bytes
    content_type: str


class Exposition:
    """The text, made in a thread, and at most once a second."""

    def __init__(self, folder: Path | None, why_not: str, write: Callable[[], None]) -> None:
        """`why_not`: the problem's text where there is no folder; `write`: writes the cells."""
        self._folder = folder
        self._why_not = why_not
        self._write = write
        self._lock = asyncio.Lock()
        self._made: dict[str, tuple[float, ExpositionText]] = {}

    async def text(self, accept: str) -> ExpositionText:
        """The text in the form that the `Accept` header asks for.

        Raises Unavailable.
        """
        if self._folder is None:
            raise Unavailable(self._why_not, 60)
        content_type = choose_encoder(accept)[1]
        try:
            async with asyncio.timeout(_DEADLINE), self._lock:
                made = self._made.get(content_type)
                if made is None or time.monotonic() - made[0] > _FRESH:
                    self._write()
                    text = await asyncio.to_thread(_text, self._folder, accept)
                    made = self._made[content_type] = (time.monotonic(), text)
                return made[1]
        except (OSError, ValueError) as error:  # also a deadline; a folder that is gone
            raise Unavailable("The figures of all workers could not be read.", 5) from error


def _text(folder: Path, accept: str) -> ExpositionText:
    encoder, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return ExpositionText(encoder(registry), content_type)
