"""What happened, said once by whoever did it, for whoever wants to know.

Metrics, alerts and the audit log are functions over these; nothing that does the work imports them.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from feedsvc.auth.principal import Principal

logger = logging.getLogger(__name__)

Result: TypeAlias = Literal["complete", "refused", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request's end. `at` is seconds since 1970, `size` bytes of rows before compression.

    `route` is a pattern and never a path. `why` is the problem's name behind a refusal or a
    failure. `guarded` tells whether the route is for principals alone.
    """

    at: float
    request_id: str
    method: str
    route: str
    guarded: bool
    status: int
    result: Result
    why: str | None
    elapsed_ms: int
    address: str | None
    principal: Principal | None
    dataset: str | None
    format: str | None
    query: str | None
    rows: int
    size: int


Observer: TypeAlias = Callable[[RequestEnded], None]


class Observers:
    """Everybody who wants to know. None of them may hold up or break what is observed."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def tell(self, observation: RequestEnded) -> None:
        """Tells all of them."""
        for observer in self._observers:
            try:
                observer(observation)
            except Exception:
                logger.exception("an observer failed")
