"""The start of an embedded PostgreSQL, at moments that a real one gives only by chance."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.commands.demo.embedded.errors import ServerDiedError
from feedsvc.commands.demo.embedded.postmaster import _wait_until_ready
from feedsvc.commands.demo.embedded.processes import ServerProcess


class _Child:
    """A child that runs at the first look and has ended at every later one."""

    pid = 1

    def __init__(self) -> None:
        self._looks = 0

    def poll(self) -> int | None:
        self._looks += 1
        return None if self._looks == 1 else 1


def test_a_server_that_ends_between_two_looks_has_died(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text("FATAL:  it could not go on\n")
    process = ServerProcess(("postgres",), cast("Any", None), tmp_path, log)
    process._child = cast("Any", _Child())
    cluster = cast("Any", SimpleNamespace(data=tmp_path, folder=tmp_path))
    with pytest.raises(ServerDiedError, match="it could not go on"):
        _wait_until_ready(process, cluster, 1, time.monotonic() + 30)
