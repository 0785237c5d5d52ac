"""Checks of this process and the machine that it is on."""

import time
from typing import Any, Final

import psutil

from feedsvc.operations.event_loop import TOO_LATE
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult, worst

_LATELY: Final = 30.0  # seconds
_MANY_FILES: Final = 0.8  # of what the process may open
_NO_ROOM: Final = 1 << 20  # bytes


async def pools(parts: HealthContext) -> CheckResult:
    """Check that no request lacked a connection lately, and none was lost."""
    now = time.monotonic()
    figures: dict[str, Any] = {}
    faults = []
    for pool in parts.pools.all():
        figures[pool.name] = {
            "in_use": pool.in_use,
            "size": pool.settings.size,
            "waiting": pool.waiting,
        }
        for what, at in pool.statistics.troubles.items():
            if now - at < _LATELY:
                taken = f"{pool.in_use} of {pool.settings.size} are in use, {pool.waiting} wait"
                faults.append(f"the {pool.name} pool {what} lately ({taken})")
    if faults:
        what = f"{'; '.join(faults)}."
        return CheckResult("degraded", what[0].upper() + what[1:], figures, ("connections",))
    return CheckResult("ok", "No request lacked a connection lately.", figures)


async def loop(parts: HealthContext) -> CheckResult:
    """Check that the event loop is on time."""
    bound, lag = parts.settings.health.loop_lag, parts.loop.worst()
    figures = {"worst_lag_ms": round(lag * 1e3)}
    if lag > bound:
        what = f"The event loop was late by {lag:.2f} s within the last 10 s."
        return CheckResult("down" if lag > TOO_LATE * bound else "degraded", what, figures)
    return CheckResult("ok", "The event loop is on time.", figures)


async def files(parts: HealthContext) -> CheckResult:
    """Check that more files and connections can be opened."""
    most = parts.machine.most_open_files
    try:
        used = parts.machine.open_files()
    except (OSError, psutil.Error):
        return CheckResult("down", "No file can be opened, not even to count them.", {"most": most})
    figures = {"open": used, "most": most}
    if most is None or used < _MANY_FILES * most:
        return CheckResult("ok", f"{used} files and connections are open.", figures)
    what = f"{used} files and connections are open, and the limit is {most}."
    return CheckResult("degraded", what, figures)


async def disk(parts: HealthContext) -> CheckResult:
    """Check the room on the file systems of the settings."""
    found, figures = [], {}
    for path in parts.disks.paths:
        try:
            room = await parts.disks.room(path)
        except OSError as error:
            found.append(CheckResult("down", f"{path} can't be checked: {error.strerror}"))
            continue
        figures[str(path)] = {"size": room.size, "free": room.free, "files_free": room.files_free}
        if room.free < min(_NO_ROOM, room.size // 20) or room.files_free == 0:
            found.append(CheckResult("down", f"{path} is full"))
        elif room.free < parts.settings.health.disk_free * room.size:
            share = room.free / room.size
            found.append(CheckResult("degraded", f"{share:.1%} of {path} is free"))
    if found:
        what = "; ".join(finding.what for finding in found)
        return CheckResult(worst(finding.state for finding in found), f"{what}.", figures)
    return CheckResult("ok", "Every disk that is checked has room.", figures)
