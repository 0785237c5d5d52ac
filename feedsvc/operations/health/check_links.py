"""Checks of connections other than PostgreSQL's."""

import time
from typing import Final

import aiohttp

from feedsvc.backends.redis.link import RedisAwayError
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.settings import HttpCheck

_SLOW: Final = 0.5  # of the deadline
_MOST_NAMED: Final = 3


async def redis(parts: HealthContext) -> CheckResult:
    """Check that Redis answers, where one is set up."""
    if parts.link is None:
        return CheckResult("ok", "No Redis is set up.")
    began = time.perf_counter()
    try:
        await parts.link.ping()
    except RedisAwayError:
        what = "Redis does not answer: each worker goes by itself, and pages are in memory alone."
        return CheckResult("degraded", what, repairs=("breakers",))
    took = time.perf_counter() - began
    figures = {"answer_ms": round(took * 1e3, 1), "refusals": parts.link.refusals}
    if not parts.link.keeps:
        return CheckResult("degraded", "Redis answers, but keeps nothing just now.", figures)
    if took > _SLOW * parts.settings.redis.timeout:
        return CheckResult("degraded", f"Redis took {took * 1e3:.0f} ms to answer.", figures)
    return CheckResult("ok", "Redis answers.", figures)


async def log_reader(parts: HealthContext) -> CheckResult:
    """Check that the change log can be read, without which no page is shown from the cache."""
    if not parts.settings.cache.enabled:
        return CheckResult("ok", "Nothing is cached, so the change log is not read for it.")
    figures = {"kept_out": dict(parts.pages.kept_out or {})}
    if parts.changes.is_beginning:
        # A worker that has just started is ok; else each start would look like a fault.
        return CheckResult("ok", "The log's reader is connecting: the worker has just started.")
    if not await parts.changes.catch_up():
        what = "The change log can't be read, so no page is answered from the cache."
        return CheckResult("degraded", what, figures, ("log_reader",))
    if figures["kept_out"]:
        named = ", ".join(sorted(figures["kept_out"]))
        return CheckResult("ok", f"The change log is read; not cached are {named}.", figures)
    return CheckResult("ok", "The change log is read.", figures)


async def triggers(parts: HealthContext) -> CheckResult:
    """Check that triggers log the changes of every dataset that is to be cached."""
    if not parts.settings.cache.enabled:
        return CheckResult("ok", "Nothing is cached, so no trigger is needed.")
    kept_out = parts.pages.kept_out
    if kept_out is None:
        return CheckResult("ok", "The triggers have not been checked yet.")
    faulty = {
        name: kept_out[name]
        for name in sorted(parts.pages.coverage.incompletely_logged)
        if name in kept_out
    }
    if not faulty:
        return CheckResult("ok", "The triggers log every change of the cached datasets.")
    # Each reason names the trigger, what is wrong with it, and the remedy.
    listed = [f"{name} is not cached: {why}" for name, why in faulty.items()]
    more = f"; and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return CheckResult("degraded", f"{'; '.join(listed[:_MOST_NAMED])}{more}.", {"untold": faulty})


async def keys(parts: HealthContext) -> CheckResult:
    """Check that tokens can be verified."""
    fault = parts.tokens.fault
    if fault is not None:
        return CheckResult("down", f"No token can be verified: {fault}.")
    return CheckResult("ok", "Tokens can be verified.")


async def http(given: HttpCheck, _parts: HealthContext) -> CheckResult:
    """Check that an address answers with the status of the settings."""
    timeout = aiohttp.ClientTimeout(total=given.timeout)
    began = time.perf_counter()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.request(given.method, given.url, allow_redirects=False) as answer,
        ):
            status = answer.status
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return CheckResult("down", f"It does not answer ({type(error).__name__}).")
    figures = {"status": status, "answer_ms": round((time.perf_counter() - began) * 1e3, 1)}
    if status != given.status:
        return CheckResult("down", f"It answers {status}, not {given.status}.", figures)
    return CheckResult("ok", f"It answers {status}.", figures)
