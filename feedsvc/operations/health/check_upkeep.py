"""The checks of what the database needs beside requests: refreshes, and upkeep."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.core.quantities import span
from feedsvc.operations.health.check_database import SILENCE
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.operations.health.view_watch import EnteredView

_UPKEEP: Final = (files("feedsvc.operations.health") / "upkeep.sql").read_text()
_DEADLINE: Final = 0.7  # seconds
_MOST_NAMED: Final = 5
_SLACK: Final = 120.0  # seconds
_SHARE: Final = 4  # of a refresh's time: the pause behind it
_URGENT: Final = ("invalid index", "covered index", "long transaction")
_UNKNOWN: Final = CheckResult("degraded", "Unknown: PostgreSQL does not answer.")


async def refreshes(parts: HealthContext) -> CheckResult:
    """Check that the materialized views behind datasets are refreshed."""
    if not parts.views.names:
        return CheckResult("ok", "No materialized view is refreshed.")
    try:
        views = await parts.views.look()
    except asyncpg.UndefinedTableError:
        return CheckResult("degraded", "Views are not refreshed: run `feedsvc migrate up`.")
    except SILENCE:
        return _UNKNOWN
    figures = {
        view.relation: {
            "age_s": None if view.age is None else round(view.age, 1),
            "took_s": None if view.seconds is None else round(view.seconds, 2),
            "failures": view.failures,
        }
        for view in views
    }
    longest = parts.settings.changes.refresh_timeout
    faults = [*_missing(parts.views.names, views), *_late(views, longest, parts.views.watched_for)]
    if faults:
        return CheckResult("degraded", f"{'; '.join(faults[:_MOST_NAMED])}.", {"views": figures})
    ages = [view.age for view in views if view.age is not None]
    oldest = f", the oldest {span(max(ages))} ago" if ages else ""
    what = f"{len(views)} materialized views are refreshed{oldest}."
    return CheckResult("ok", what, {"views": figures})


def _missing(names: Sequence[str], views: Sequence[EnteredView]) -> Iterator[str]:
    entered = {view.relation for view in views}
    for name in names:
        if name not in entered:
            yield f"{name} is not refreshed: run `feedsvc migrate triggers`"


def _late(views: Sequence[EnteredView], longest: float, watched_for: float) -> Iterator[str]:
    """A sentence for each view whose refresh failed, or does not come.

    Behind a start of the service views may be as old as the time without it.
    """
    for view in views:
        shown = "it was never refreshed" if view.age is None else f"it is {span(view.age)} old"
        if view.fault is not None:
            how_often = "once" if view.failures == 1 else f"{view.failures} times"
            yield f"{view.relation} could not be refreshed, {how_often}: {view.fault}; {shown}"
        elif view.failures and view.tried is not None and view.tried > longest + _SLACK:
            yield f"a refresh of {view.relation} was begun and did not end; {shown}"
        elif not view.failures and watched_for > _SLACK and _is_overdue(view):
            yield f"no worker refreshes {view.relation}: the service's log has the reason; {shown}"


def _is_overdue(view: EnteredView) -> bool:
    if view.age is None:
        return False  # it was entered just now, or a refresh is under way
    return view.age > max(view.every, _SHARE * (view.seconds or 0.0)) + _SLACK


async def upkeep(parts: HealthContext) -> CheckResult:
    """Check the database's upkeep: never a reason to send requests elsewhere."""
    oldest = parts.settings.health.oldest_transaction
    try:
        async with asyncio.timeout(_DEADLINE), parts.pools["write"].lease() as connection:
            rows = await connection.fetch(_UPKEEP, oldest)
    except TimeoutError:
        return CheckResult("ok", "Not known: it takes longer than a check may.")
    except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError):
        return CheckResult("ok", "Not known before `feedsvc migrate up`.")
    except SILENCE:
        return _UNKNOWN
    counts = Counter(row["kind"] for row in rows)
    figures = {"found": dict(counts)}
    urgent = [row for row in rows if row["kind"] in _URGENT]
    if urgent:
        named = "; ".join(f"{r['kind']} {r['object']}: {r['detail']}" for r in urgent[:_MOST_NAMED])
        more = len(urgent) - _MOST_NAMED
        what = f"{named} and {more} more." if more > 0 else f"{named}."
        return CheckResult("degraded", what, figures)
    if counts:
        listed = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
        return CheckResult("ok", f"To be looked at some day: {listed}.", figures)
    return CheckResult("ok", "Nothing is to be done.", figures)
