"""Plans of slow statements that come one right after the other, for a service that imports it."""

from feedsvc.operations.performance import slow_plans

slow_plans._PAUSE = 0.0  # type: ignore[misc]
