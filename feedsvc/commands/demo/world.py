"""The demo's database: migrated, filled in, and with a login for the service."""

import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import TERRITORIES
from feedsvc.changes import triggers
from feedsvc.commands.demo import seeding
from feedsvc.commands.demo.embedded import PostgresServer
from feedsvc.datasets.dataset import quote_identifier

DATABASE: Final = "wedding"
LOGIN: Final = "feedsvc"

_SAMPLES: Final = (files("feedsvc.commands.demo") / "samples.sql").read_text()


@dataclass(frozen=True, slots=True)
class World:
    """The demo's database, and the principals of its tokens."""

    admin_url: str
    service_url: str
    tenant: str
    other_tenant: str
    client: str


async def prepare(server: PostgresServer, rows: int, seed: int) -> World:
    """Make the world, or find it as an earlier demo left it."""
    await _create_database(server)
    admin_url = server.url(DATABASE)
    for line in TERRITORIES:
        await runner.up(admin_url, line)
    if not await seeding.is_seeded(admin_url, rows, seed):
        await seeding.seed(admin_url, rows, seed)
    connection = await asyncpg.connect(admin_url)
    try:
        password = await _make_login(connection)
        samples = await connection.fetch(_SAMPLES)
    finally:
        await connection.close()
    return World(
        admin_url=admin_url,
        service_url=server.url(DATABASE, user=LOGIN, password=password),
        tenant=samples[0]["tenant_id"],
        other_tenant=samples[1]["tenant_id"],
        client=str(samples[0]["client_id"]),
    )


async def make_triggers(admin_url: str, datasets: Path) -> None:
    """Install the triggers of the tables behind the datasets of this file."""
    connection = await asyncpg.connect(admin_url)
    try:
        await triggers.install_for(connection, datasets)
    finally:
        await connection.close()


async def _create_database(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    except asyncpg.DuplicateDatabaseError:
        pass  # an earlier demo's
    finally:
        await connection.close()


async def _make_login(connection: asyncpg.Connection) -> str:
    """A login for the service with a new password, which is the answer. It owns nothing."""
    password = secrets.token_urlsafe(24)
    login = quote_identifier(LOGIN)
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", LOGIN)
    verb = "ALTER" if exists else "CREATE"
    # Neither takes a parameter, and a token_urlsafe holds nothing that would need a quote.
    await connection.execute(f"{verb} ROLE {login} LOGIN PASSWORD '{password}'")
    for territory in TERRITORIES.values():
        await connection.execute(f"GRANT {quote_identifier(territory.role)} TO {login}")
    return password
