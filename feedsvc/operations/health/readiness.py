"""Readiness: the reasons to send the next request to another instance.

PostgreSQL is none of them unless the settings say so. It is away for all instances at once, and a
balancer that takes all of them out answers for none, where each could still show its stale pages.
"""

from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.probe import ReadinessProbe
from feedsvc.core.drain import Drain
from feedsvc.operations.event_loop import TOO_LATE, EventLoopMonitor
from feedsvc.settings import Health


class Readiness:
    """The state behind `/ready`, read from what is known already."""

    def __init__(
        self,
        settings: Health,
        drain: Drain,
        tokens: Tokens,
        loop: EventLoopMonitor,
        probe: ReadinessProbe,
    ) -> None:
        self._settings = settings
        self._drain = drain
        self._tokens = tokens
        self._loop = loop
        self._probe = probe

    def fault(self) -> str | None:
        """The reason to send requests elsewhere, None where there is none."""
        if self._drain.announced:
            return "the process is stopping"
        if "database" in self._settings.ready_needs and self._probe.fault is not None:
            return self._probe.fault
        return self._tokens.fault or self._late()

    def _late(self) -> str | None:
        lag = self._loop.worst()
        if lag <= TOO_LATE * self._settings.loop_lag:
            return None
        return f"the event loop was late by {lag:.1f} s within the last 10 s"
