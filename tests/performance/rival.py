"""The obvious way to build this service: FastAPI, an asyncpg cursor, orjson.

Meant to be as good as this way gets: rows come and go by the thousand instead of one by one,
`jsonb` is passed through unparsed, the connection comes from a pool, and neither tokens nor
row-level security cost it anything.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg
import orjson
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.performance.clients import Feed
from tests.performance.processes import ended, listening
from tests.support.service import REPOSITORY

_PREFETCH: Final = 1_000  # rows
_SQL: Final = "SELECT * FROM wedding.clients WHERE tenant_id = $1 ORDER BY id"


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], init=_pass_json) as pool:
        application.state.pool = pool
        yield


async def _pass_json(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=str, decoder=orjson.Fragment
    )


app = FastAPI(lifespan=_lifespan)


@app.get("/clients")
async def clients(tenant: str) -> StreamingResponse:
    """A tenant's clients, an object a line."""
    return StreamingResponse(_lines(tenant), media_type="application/x-ndjson")


async def _lines(tenant: str) -> AsyncIterator[bytes]:
    async with app.state.pool.acquire() as connection, connection.transaction(readonly=True):
        cursor = await connection.cursor(_SQL, tenant)
        while rows := await cursor.fetch(_PREFETCH):
            yield b"".join(
                orjson.dumps(dict(row), default=str, option=orjson.OPT_APPEND_NEWLINE)
                for row in rows
            )


@contextmanager
def rival_feed(database_url: str, tenant: str) -> Iterator[Feed]:
    """This application under uvicorn with uvloop and one worker; its feed of the clients."""
    with listening() as (listener, port), ended(_start(listener.fileno(), database_url)):
        yield Feed(f"http://127.0.0.1:{port}/clients?tenant={tenant}")


def _start(listener: int, database_url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "uvicorn", "tests.performance.rival:app"]
    options = ["--fd", str(listener), "--loop", "uvloop", "--workers", "1"]
    return subprocess.Popen(
        [*command, *options, "--log-level", "warning"],
        cwd=REPOSITORY,
        env={**os.environ, "DATABASE_URL": database_url},
        pass_fds=(listener,),
    )
