"""Folders of demos: one each, and the servers of a demo that died are ended by the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feedsvc.commands.demo.embedded import (
    EmbeddedError,
    claim_folder,
    claim_slot,
    start_valkey,
)
from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.orphans import command_line
from tests.support.embedded import (
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


HOLDER = """
import sys, time
from pathlib import Path
from feedsvc.commands.demo.embedded import claim_folder

with claim_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


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


def test_command_lines_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps here")
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            # For a moment after the exec the kernel has not set the arguments yet.
            for _ in range(6_000):
                if command_line(sleeper.pid):
                    break
                time.sleep(0.01)
            assert command_line(sleeper.pid) == "sleep 600"
            monkeypatch.setattr(Path, "exists", lambda _path: False)
            assert command_line(sleeper.pid) == "sleep 600"
        finally:
            sleeper.kill()
    assert command_line(sleeper.pid) == ""
