"""A process that writes 200 rows a second into the demo's world until its standard input ends.

`python -m tests.performance.open_writers URL CLIENTS`: the database's URL as an owner, and how many
clients the first tenant has. Its last line is an object of JSON with what it measured.

Open loop: a write is sent when it is due, whatever became of those before it. Each has a
connection of its own, one that is idle or a new one, so none waits for another but in PostgreSQL;
its time runs from when it is sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import asyncpg

A_SECOND: Final = 200
_READY: Final = 32  # connections that are open before the first write
_ONE: Final = "100000001 + $1::bigint % $2::bigint"
_WRITES: Final = (
    "UPDATE wedding.clients SET updated_at = now(), notes = 'written ' || $1::bigint"
    f" WHERE id = {_ONE}",
    "INSERT INTO wedding.messages (tenant_id, client_id, sender, body)"
    f" VALUES ('rosewood', {_ONE}, 'couple', 'message ' || $1::bigint)",
    "UPDATE wedding.budgets SET paid = NOT paid WHERE id = (SELECT id FROM wedding.budgets"
    f" WHERE tenant_id = 'rosewood' AND client_id = {_ONE} LIMIT 1)",
)


@dataclass(slots=True)
class Figures:
    """Milliseconds of each write from when it was sent, and by how many it was sent too late."""

    took: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    connections: int = 0

    def summary(self) -> dict[str, float]:
        """The figures of a run."""
        took, late = sorted(self.took), sorted(self.late)
        return {
            "writes": len(took),
            "longest_ms": round(took[-1], 1),
            "p99_ms": round(took[len(took) * 99 // 100], 1),
            "median_ms": round(took[len(took) // 2], 2),
            "over_1_s": sum(each > 1_000 for each in took),
            "sent_late_p99_ms": round(late[len(late) * 99 // 100], 1),
            "connections": self.connections,
        }


class Writers:
    """Idle connections, and the writes that are under way."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._clients = clients
        self._idle: list[asyncpg.Connection] = []
        self.figures = Figures()

    async def open(self) -> None:
        """Open the connections that the first writes use, with their statements prepared."""
        for _ in range(_READY):
            connection = await self._connected()
            for sql in _WRITES:
                await connection.prepare(sql)
            self._idle.append(connection)

    async def write(self, number: int, due: float) -> None:
        """Send one write, due at this time of the monotonic clock."""
        connection = self._idle.pop() if self._idle else await self._connected()
        sent = time.monotonic()
        await connection.execute(_WRITES[number % len(_WRITES)], number, self._clients)
        self.figures.took.append((time.monotonic() - sent) * 1_000)
        self.figures.late.append((sent - due) * 1_000)
        self._idle.append(connection)

    async def close(self) -> None:
        """Close the connections, when no write is under way."""
        for connection in self._idle:
            await connection.close()

    async def _connected(self) -> asyncpg.Connection:
        self.figures.connections += 1
        return await asyncpg.connect(self._url)


async def main(url: str, clients: int) -> None:
    """Write until standard input ends; print the figures."""
    writers = Writers(url, clients)
    await writers.open()
    print("writing", flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    number, due = 0, time.monotonic()
    async with asyncio.TaskGroup() as group:
        while not ended.done():
            group.create_task(writers.write(number, due))
            number, due = number + 1, due + 1 / A_SECOND
            await asyncio.sleep(max(due - time.monotonic(), 0))
    await writers.close()
    print(json.dumps(writers.figures.summary()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
