"""The transport of a connection decides how long it may be left unread."""

import tempfile
from urllib.parse import quote

from feedsvc.backends.postgres.asyncpg_internals import is_over_unix_socket
from feedsvc.backends.postgres.pool import Pool
from feedsvc.settings import Database, ReadPool
from tests.support.servers import copied_postgres


async def test_a_unix_socket_is_distinguished_from_tcp() -> None:
    # The server's account makes its socket there, so it can't be a folder of pytest's.
    sockets = tempfile.gettempdir()
    settings = {"unix_socket_directories": sockets, "unix_socket_permissions": "0777"}
    with copied_postgres(settings) as server:
        login = f"{server.user}:{quote(server.password, safe='')}"
        over_unix = f"postgresql://{login}@/postgres?host={sockets}&port={server.port}"
        for url, expected in ((server.url(), False), (over_unix, True)):
            pool = Pool("read", ReadPool(), Database.model_validate({"url": url}))
            await pool.open()
            try:
                async with pool.lease() as connection:
                    assert is_over_unix_socket(connection) is expected
            finally:
                await pool.close(1.0)
