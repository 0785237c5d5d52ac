"""A clock for `RequestRepeats`: each request ends 0.1 s behind the one before it.

A service that imports it (`tests.support.fork_server.MORE_CODE`) finds repetitions however long the
machine takes for twenty requests.
"""

from collections.abc import Iterator
from itertools import count

from feedsvc.core.events import RequestEnded
from feedsvc.operations.performance.repeats import RequestRepeats

STEP = 0.1

_ticks: Iterator[int] = count()
_observe = RequestRepeats.observe


def _observe_in_turn(self: RequestRepeats, ended: RequestEnded) -> None:
    _observe(self, ended._replace(at=next(_ticks) * STEP))


RequestRepeats.observe = _observe_in_turn  # type: ignore[method-assign]
