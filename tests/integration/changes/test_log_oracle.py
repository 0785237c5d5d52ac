"""The log rows between two snapshots have every difference of the rows that they show."""

import asyncio
import random

import asyncpg
import pytest

from feedsvc.changes import log_functions, log_triggers
from tests.support.log_world import LogWorld, State, all_missing, everyone_of, install
from tests.support.log_writers import Writer

WRITERS, STEPS = 4, 60


@pytest.mark.parametrize("kind", ["rows", "statements", "both", "partitions"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_differs_between_two_snapshots_is_logged_between_them(
    log_database: str, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"rows": 1 << 40, "statements": -1, "both": 2, "partitions": 0}[kind]
    monkeypatch.setattr(log_triggers, "FEW_ROWS", few)
    monkeypatch.setattr(log_functions, "MOST_KEYS", 6 if kind == "both" else 1_000)
    monkeypatch.setattr(log_functions, "MOST_TAGGED", 3)
    world = LogWorld.drawn(seed * 100 + len(kind), f"things-{seed}-{kind}", seed * 1000 + few % 997)
    owner = await asyncpg.connect(log_database)
    connections = [
        await asyncpg.connect(log_database, server_settings={"lock_timeout": "20ms"})
        for _ in range(WRITERS)
    ]
    try:
        await owner.execute(world.ddl(kind == "partitions"))
        await install(owner, world.declared)
        await owner.execute("TRUNCATE feedsvc.log")
        (dataset,) = world.declared
        everyone = await everyone_of(owner, dataset)
        drawn = random.Random(seed)
        writers = [Writer(c, world, drawn.randrange(1 << 30)) for c in connections]
        states = [await State.read(owner, world)]
        for _ in range(STEPS):
            await asyncio.gather(*(w.step() for w in drawn.sample(writers, 2)))
            if drawn.random() < 0.4:
                states.append(await State.read(owner, world))
        for writer in writers:
            await writer.close()
        states.append(await State.read(owner, world))
        assert any(state.rows != states[0].rows for state in states)
        assert all_missing(states, everyone) == []
    finally:
        for connection in (owner, *connections):
            await connection.close()
