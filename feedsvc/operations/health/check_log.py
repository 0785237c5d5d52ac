"""The checks of the change log, and of the live feeds that follow it."""

from typing import Any, Final

from feedsvc.changes.log_state import LogState
from feedsvc.changes.log_upkeep import longest_pause
from feedsvc.core.quantities import size, span
from feedsvc.operations.health.check_database import SILENCE
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.settings import Changes

_FAILING: Final = 1.0  # seconds that a lost connection may take
_SILENT: Final = 30.0  # seconds that reading what has changed for all of them may take
_LONG_LOCK: Final = 1.0  # seconds
_MISSED_TURNS: Final = 3
_SLACK: Final = 2.0  # seconds
_TOO_LARGE: Final = 1.5  # of `changes.max_bytes`, for windows that are still written


async def live(parts: HealthContext) -> CheckResult:
    """Check that what live feeds follow can be read."""
    tail = parts.tail
    cohorts, failing, looked = tail.cohorts, tail.failing_for, tail.looked_ago
    figures = {
        "cohorts": len(cohorts),
        "subscribers": sum(cohort.broadcast.count for cohort in cohorts),
        "kept_bytes": sum(cohort.broadcast.kept_bytes for cohort in cohorts),
        "failing_s": round(failing, 1),
        "looked_s": None if looked is None else round(looked, 1),
    }
    if failing >= _FAILING:
        what = f"The change log can't be read for live feeds, for {span(failing)}."
        return CheckResult("degraded", what, figures)
    if looked is not None and looked >= _SILENT:
        what = f"The change log was last read for live feeds {span(looked)} ago."
        return CheckResult("degraded", what, figures)
    if not cohorts:
        return CheckResult("ok", "No feed is followed here.", figures)
    return CheckResult("ok", "Live feeds follow the change log.", figures)


async def changes(parts: HealthContext) -> CheckResult:
    """Check that the change log can be written, and is trimmed."""
    try:
        state = await parts.log.look()
    except SILENCE:
        return CheckResult("degraded", "Unknown: PostgreSQL does not answer.")
    if isinstance(state, str):
        return CheckResult("degraded", f"{state[0].upper()}{state[1:]}.")
    figures = _figures(state)
    fault = _locked(state) or _kept(state, parts.settings.changes)
    if fault is not None:
        return CheckResult("degraded", fault, figures)
    has = "" if state.bytes is None else f" {size(state.bytes)},"
    return CheckResult("ok", f"The change log has{has} the last {span(state.oldest)}.", figures)


def _figures(state: LogState) -> dict[str, Any]:
    return {
        "bytes": state.bytes,
        "oldest_s": round(state.oldest, 1),
        "windows": state.windows,
        "unsealed": state.unsealed,
        "overdue_s": round(max(state.overdue, 0.0), 1),
        "blocked_s": round((state.blocker.age or 0.0) if state.blocker else 0.0, 1),
    }


def _locked(state: LogState) -> str | None:
    """The sentence about a lock that writers wait for."""
    by = state.locker
    if by is None or (by.age is not None and by.age < _LONG_LOCK):
        return None
    return (
        f"Writers of the served tables wait: {by} holds a lock on the change log ({by.mode})."
        f" End it: {by.remedy}."
    )


def _kept(state: LogState, settings: Changes) -> str | None:
    """The sentence about a log that is kept for longer, or is larger, than the settings say."""
    allowed = _MISSED_TURNS * longest_pause(settings.retention) + _SLACK
    if state.overdue > allowed:
        what = f"The change log keeps {span(state.overdue)} more than changes.retention"
    elif state.bytes is not None and state.bytes > _TOO_LARGE * settings.max_bytes:
        what = f"The change log has {size(state.bytes)}"
        what += f", of {size(settings.max_bytes)} (changes.max_bytes)"
    else:
        return None
    if state.blocker is not None:
        return f"{what}, for {state.blocker} holds it up. End it: {state.blocker.remedy}."
    if state.overdue > allowed:
        return f"{what}, for no worker looks after it: the service's log has the reason."
    return f"{what}: writers are quicker than it is trimmed. Raise changes.max_bytes."
