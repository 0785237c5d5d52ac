"""A line in the log for a pattern of requests that one could replace, at most one an hour."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from feedsvc.core import logs
from feedsvc.core.events import RequestsRepeated
from feedsvc.datasets.dataset import Dataset
from feedsvc.operations.performance.replacement import ENDPOINTS, replacement

_LOGGER: Final = logging.getLogger("feedsvc.queries")
_EVERY: Final = 3_600.0  # seconds


class RepeatLog:
    """Observes repetitions. Its memory is a time for each dataset, pattern and filter."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._datasets = datasets
        self._logged: dict[tuple[str, str, str], float] = {}

    def observe(self, found: RequestsRepeated) -> None:
        """Add a line unless there was one of the same pattern within the hour."""
        key = (found.dataset, found.pattern, found.column)
        last = self._logged.get(key)
        if last is not None and 0 <= found.at - last < _EVERY:
            return
        self._logged[key] = found.at
        if _LOGGER.isEnabledFor(logging.WARNING):
            logs.add_line(partial(_line, found, self._datasets[found.dataset]))


def _line(found: RequestsRepeated, dataset: Dataset) -> logs.Line:
    instead = replacement(found.pattern, dataset, found.column)
    return logs.Line(
        at=found.at,
        level=logging.WARNING,
        logger=_LOGGER.name,
        message="repeated requests",
        shown="repeated requests: %(pattern)s of %(dataset)s, replaced by %(replacement)s",
        fields={
            "route": ENDPOINTS[found.pattern],
            "dataset": found.dataset,
            "pattern": found.pattern,
            "column": found.column or None,
            "count": found.requests,
            "lost_ms": round(found.seconds * 1e3, 3),
            "replacement": instead.statement,
        },
    )
