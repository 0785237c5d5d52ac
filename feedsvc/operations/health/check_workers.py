"""The check of the other workers."""

from collections.abc import Sequence
from typing import Any, Final

from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.result import CheckResult
from feedsvc.operations.peers import Reply

_DEADLINE: Final = 0.6  # seconds


async def workers(parts: HealthContext) -> CheckResult:
    """Check that every other worker answers, and that its components are ok."""
    replies = await parts.peers.ask({"do": "tell"}, _DEADLINE)
    staying = [reply for reply in replies if reply.message is None or not reply.message["leaving"]]
    figures: dict[str, Any] = {"others": [_described(reply) for reply in replies]}
    faults = [*_missing(len(staying) + 1, parts.settings.server.workers), *_faults(staying)]
    if faults:
        return CheckResult("degraded", f"{'; '.join(faults)}.", figures)
    if not replies:
        return CheckResult("ok", "This process serves by itself.", figures)
    leaving = len(replies) - len(staying)
    beside = f"; {leaving} more only finish what they began" if leaving else ""
    return CheckResult("ok", f"All {len(staying) + 1} workers are well{beside}.", figures)


def _missing(there: int, wanted: int) -> Sequence[str]:
    return [f"Only {there} of {wanted} workers are there"] if there < wanted else []


def _faults(replies: Sequence[Reply]) -> list[str]:
    faults = []
    for reply in replies:
        if reply.message is None:
            faults.append(f"Worker {reply.pid} does not answer")
        elif reply.message["faults"]:
            named = ", ".join(reply.message["faults"])
            faults.append(f"Worker {reply.pid} is {reply.message['state']} ({named})")
    return faults


def _described(reply: Reply) -> dict[str, Any]:
    if reply.message is None:
        return {"worker": reply.pid, "state": "down", "leaving": False, "faults": {}}
    message = reply.message
    return {"worker": reply.pid} | {name: message[name] for name in ("state", "leaving", "faults")}
