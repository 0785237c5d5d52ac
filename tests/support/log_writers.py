"""Writers with transactions, savepoints and prepared transactions, for the oracles of the log."""

import random

import asyncpg

from tests.support.log_world import LogWorld

TENANTS = ("a", "b", "rosewood", "ä ö", None)
TEXTS = ("", "x", "a b", "ä,%", "~._-")
REFUSED = (
    asyncpg.UniqueViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.CardinalityViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,  # of a row that another one has moved to another partition
)


class Writer:
    """A connection with a transaction that is open for a while."""

    def __init__(self, connection: asyncpg.Connection, world: LogWorld, seed: int) -> None:
        self._connection = connection
        self._world = world
        self._random = random.Random(seed)
        self._depth = 0
        self._open = False
        self.prepared: list[str] = []
        self.refused: list[asyncpg.PostgresError] = []

    async def step(self) -> None:
        """One statement, or the beginning or the end of something."""
        act = self._random.random()
        if not self._open:
            if act < 0.5:
                await self._connection.execute("BEGIN")
                self._open, self._depth = True, 0
            else:
                await self._write()
        elif act < 0.1:
            await self._connection.execute(f"SAVEPOINT s{self._depth}")
            self._depth += 1
        elif act < 0.2 and self._depth:
            self._depth = self._random.randrange(self._depth)
            await self._connection.execute(f"ROLLBACK TO s{self._depth}; RELEASE s{self._depth}")
        elif act < 0.45:
            await self._end()
        else:
            await self._write()

    async def _end(self) -> None:
        self._open = False
        kind = self._random.random()
        if kind < 0.2:
            await self._connection.execute("ROLLBACK")
        elif kind < 0.35:
            name = f"two {id(self)} {self._random.random()}"
            await self._connection.execute(f"PREPARE TRANSACTION '{name}'")
            self.prepared.append(name)
        elif kind < 0.5 and self.prepared:
            await self._connection.execute("COMMIT")
            await self.finish_prepared()
        else:
            await self._connection.execute("COMMIT")

    async def finish_prepared(self) -> None:
        """Commit or roll back what is prepared."""
        for name in self.prepared:
            end = self._random.choice(["COMMIT", "ROLLBACK"])
            await self._connection.execute(f"{end} PREPARED '{name}'")
        self.prepared.clear()

    async def close(self) -> None:
        """End what is open."""
        if self._open:
            await self._connection.execute("COMMIT")
        await self.finish_prepared()

    async def _write(self) -> None:
        """A statement; where it has to wait, or is refused, only it is undone."""
        await self._connection.execute("SAVEPOINT w" if self._open else "SELECT 1")
        try:
            await self._connection.execute(self._statement())
        except REFUSED as error:
            self.refused.append(error)
            if self._open:
                await self._connection.execute("ROLLBACK TO w")

    def _statement(self) -> str:
        w, draw = self._world, self._random
        one = f"({w.number} = {draw.randrange(12)} AND {w.text} = {_text(draw)})"
        some = draw.choice(
            [one, one, f"{w.number} < {draw.randrange(6)}", f"{w.tenant} = {_tenant(draw)}"]
        )
        row = (
            f"({draw.randrange(12)}, {_text(draw)}, {_tenant(draw)}, {draw.randrange(3)},"
            f" '{draw.randrange(99)}', 0)"
        )
        names = f"({w.number}, {w.text}, {w.tenant}, {w.client}, {w.shown}, {w.hidden})"
        insert = f"INSERT INTO {w.table} {names} VALUES {row}"
        return draw.choice(
            [
                insert,
                f"{insert} ON CONFLICT DO NOTHING",
                f"UPDATE {w.table} SET {w.shown} = '{draw.randrange(99)}' WHERE {some}",
                f"UPDATE {w.table} SET {w.hidden} = {draw.randrange(9)} WHERE {some}",
                f"UPDATE {w.table} SET {w.tenant} = {_tenant(draw)} WHERE {some}",
                f"UPDATE {w.table} SET {w.number} = {w.number} + 20 WHERE {one}",
                f"UPDATE {w.table} SET {w.number} = {w.number} - 20 WHERE {w.number} >= 20",
                f"DELETE FROM {w.table} WHERE {some}",
                f"MERGE INTO {w.table} AS t USING (VALUES {row}) AS m (n, t, o, c, j, h)"
                f" ON t.{w.number} = m.n AND t.{w.text} = m.t"
                f" WHEN MATCHED AND m.c = 0 THEN DELETE"
                f" WHEN MATCHED THEN UPDATE SET {w.shown} = m.j::json, {w.tenant} = m.o"
                f" WHEN NOT MATCHED THEN INSERT {names} VALUES (m.n, m.t, m.o, m.c, m.j::json, 0)",
            ]
        )


def _text(draw: random.Random) -> str:
    return f"'{draw.choice(TEXTS)}'"


def _tenant(draw: random.Random) -> str:
    found = draw.choice(TENANTS)
    return "NULL" if found is None else f"'{found}'"
