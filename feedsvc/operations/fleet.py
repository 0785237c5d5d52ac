"""Reports and repairs of all workers of a service as one."""

import asyncio
import os
from collections.abc import Collection
from typing import Any, Final

from feedsvc.backends.postgres.report import PoolFigures, report
from feedsvc.core.drain import Drain
from feedsvc.operations.health.checks import checks_of
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.health import HealthMonitor
from feedsvc.operations.health.repairs import DEADLINE, REPAIRS, Repairs
from feedsvc.operations.peers import Message, Reply

_SOON: Final = 0.03  # seconds for answers that a request does not wait for
_LATE: Final = 1.0  # seconds beyond the repairs' own deadlines


class Fleet:
    """One worker's part of the fleet."""

    def __init__(self, parts: HealthContext, drain: Drain) -> None:
        self.health = HealthMonitor(parts, checks_of(parts.settings.health))
        self.repairs = Repairs(parts)
        self._parts = parts
        self._drain = drain

    async def open(self) -> None:
        """Answer the other workers from now on."""
        await self._parts.peers.open(self._answer)

    async def close(self) -> None:
        """Stop answering, and end repairs that are under way."""
        await self._parts.close()

    async def pools(self) -> list[dict[str, Any]]:
        """The pools of all workers that answer at once, merged."""
        replies = await self._parts.peers.ask({"do": "tell"}, _SOON)
        seen = [pool.seen() for pool in self._parts.pools.all()]
        for reply in replies:
            if reply.message is not None and not reply.message["leaving"]:
                seen += [PoolFigures(**plain) for plain in reply.message["pools"]]
        return report(seen)

    async def repair(self, names: Collection[str], *, dry: bool) -> list[dict[str, Any]]:
        """Make these repairs in each worker; those of the database once."""
        each = [repair.name for repair in REPAIRS if repair.name in names and not repair.once]
        question = {"do": "repair", "repairs": each, "dry": dry}
        patience = DEADLINE * len(each) + _LATE
        others = self._parts.peers.ask(question, patience) if each else _no_replies()
        own, replies = await asyncio.gather(self.repairs.run(names, dry=dry), others)
        outcomes = list(own)
        for reply in replies:
            outcomes += _silent(reply, each) if reply.message is None else reply.message["repairs"]
        return outcomes

    async def _answer(self, question: Message) -> Message:
        if question.get("do") == "repair":
            made = await self.repairs.run(question["repairs"], dry=question["dry"])
            return {"repairs": made}
        return {
            "pid": os.getpid(),
            "state": self.health.own_state(),
            "faults": self.health.faults(),
            "leaving": self._drain.begun,
            "pools": [pool.seen().plain() for pool in self._parts.pools.all()],
        }


def _silent(reply: Reply, names: Collection[str]) -> list[dict[str, Any]]:
    what = "This worker does not answer."
    return [
        {"name": name, "outcome": "failed", "what": what, "worker": reply.pid} for name in names
    ]


async def _no_replies() -> list[Reply]:
    return []
