"""Embedded servers of a test's own, and processes that start them."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    PostgresServer,
    ValkeyServer,
    start_postgres,
)
from tests.support.servers import copy_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

psutil = importlib.import_module("psutil")  # it has no type stubs

SMALL = {"shared_buffers": "16MB", "max_connections": "20"}
AS_ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]

# Starts both servers, says so, and waits to be killed.
DEMO = """
import json, subprocess, sys, time
from pathlib import Path
from feedsvc.commands.demo.embedded import claim_slot, start_postgres, start_valkey

root = Path(sys.argv[1])
with (
    claim_slot(root) as folder,
    start_postgres(folder, settings={"shared_buffers": "16MB"}, cache=root / "cache") as pg,
    start_valkey(folder, cache=root / "cache") as valkey,
):
    psql = str(pg.cluster.binaries.folder / "psql")
    subprocess.run([psql, pg.url(), "-Xqc", "CREATE TABLE kept AS SELECT 42 AS n"], check=True)
    facts = {"folder": str(folder), "pg": pg.pid, "valkey": valkey.pid}
    print(json.dumps(facts), flush=True)
    if sys.argv[2:] != ["once"]:
        time.sleep(600)
"""


def postgres(
    folder: Path, seconds: float = 30.0, **settings: str
) -> AbstractContextManager[PostgresServer]:
    cache = folder.parent / "cache"
    return start_postgres(folder, settings=SMALL | settings, cache=cache, seconds=seconds)


@contextmanager
def copied(folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """The same on a copy of the run's cluster, for what is not about initdb."""
    if not (folder / "data").exists():
        copy_cluster(folder)
    with start_postgres(folder, settings=SMALL | settings, cache=folder.parent / "cache") as server:
        yield server


def sql(server: PostgresServer, query: str) -> str:
    psql = server.cluster.binaries.folder / "psql"
    done = subprocess.run(
        [psql, server.url(), "-XAtqc", query],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask(server: ValkeyServer, *commands: str) -> list[str]:
    lines = "".join(f"{command}\r\n" for command in (f"AUTH {server.password}", *commands, "QUIT"))
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        connection.sendall(lines.encode())
        return connection.makefile().read().split("\n")[1:-2]


@contextmanager
def python(source: str, *argv: str | Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", source, *argv],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        **more,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the child ended without a word"
    return line


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def assert_one_line(error: pytest.ExceptionInfo[EmbeddedError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
