"""The service's own key: from the settings, from what signs tokens, or from the database."""

from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from feedsvc.access.service_key import ServiceKey, service_key
from feedsvc.access.tokens import Tokens
from feedsvc.settings import Auth, Server, Settings
from tests.support.issuer import ED, private_pem, public_pem


async def made(connection: asyncpg.Connection, auth: Auth, secret: str | None = None) -> bytes:
    server = Server(secret=None if secret is None else SecretStr(secret))
    settings = Settings(auth=auth, server=server)
    key = await service_key(connection, settings, Tokens(auth).signing_secret)
    return key.derived("a test")


async def test_instances_with_the_same_secret_have_the_same_key(
    world_url: str, world: asyncpg.Connection, tmp_path: Path
) -> None:
    secret = Auth(key=SecretStr("a secret that is long enough for HS256"))
    signing = Auth(algorithms=("EdDSA",), key=SecretStr(private_pem(ED)))
    public = Auth(algorithms=("EdDSA",), key=SecretStr(public_pem(ED)))
    (tmp_path / "key").write_text(private_pem(ED))
    in_file = Auth(algorithms=("EdDSA",), key_file=tmp_path / "key")
    login = await asyncpg.connect(world_url)
    try:
        keys = [await made(login, auth) for auth in (secret, signing, public)]
        assert len(set(keys)) == 3
        assert keys == [await made(login, auth) for auth in (secret, in_file, public)]
        kept = await world.fetchval("SELECT key FROM feedsvc.secret")
        assert keys[2] == ServiceKey(kept).derived("a test")
        own = {await made(login, auth, "s" * 32) for auth in (secret, signing, public)}
        assert len(own) == 1
        assert not own & set(keys)
        for statement in ("UPDATE feedsvc.secret SET key = key", "DELETE FROM feedsvc.secret"):
            with pytest.raises(asyncpg.PostgresError):
                await login.execute(f"SET default_transaction_read_only = off; {statement}")
    finally:
        await login.close()


async def test_without_any_secret_the_log_says_what_to_do(
    world_url: str, world: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    public = Auth(algorithms=("EdDSA",), key=SecretStr(public_pem(ED)))
    await world.execute("ALTER TABLE feedsvc.secret RENAME TO elsewhere")
    login = await asyncpg.connect(world_url)
    try:
        assert await made(login, public) != await made(login, public)
        assert "server.secret" in caplog.text
    finally:
        await login.close()
        await world.execute("ALTER TABLE feedsvc.elsewhere RENAME TO secret")
