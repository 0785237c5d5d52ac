"""`feedsvc demo`, as somebody meets it who has just cloned the project."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from feedsvc.embedded import claim_folder
from tests.support.service import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator


DEMO = (sys.executable, "-m", "feedsvc", "demo")


class Demo(NamedTuple):
    """A running demo: what it wrote when it was ready, what it printed, its process."""

    ready: dict[str, Any]
    printed: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, principal: str) -> Any:
        token = self.ready["tokens"][principal]
        request = urllib.request.Request(
            self.ready["url"] + path, headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder for a demo's data that PostgreSQL's account may enter, unlike pytest's own."""
    folder = Path(tempfile.gettempdir(), f"feedsvc-demo-{uuid.uuid4().hex}")
    yield folder
    with claim_folder(folder):  # ends whatever a test left running
        pass
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(data: Path, tmp_path: Path) -> Iterator[Demo]:
    name = uuid.uuid4().hex
    ready_file, output = tmp_path / f"{name}.json", tmp_path / f"{name}.txt"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*DEMO, "--rows=300", "--port=0", f"--data={data}", f"--ready-file={ready_file}"],
            cwd=REPOSITORY,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while not ready_file.exists():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        while "Ctrl-C" not in output.read_text():
            time.sleep(0.05)
        yield Demo(json.loads(ready_file.read_text()), output.read_text(), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def processes_of(data: Path) -> list[str]:
    """Command lines of living processes that name the folder, the demo's own aside."""
    listed = subprocess.run(
        ["ps", "-axww", "-o", "command="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if f"{data}/" in line]


def test_the_printed_lines_work_as_pasted(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path) as demo:
        lines = re.findall(r"^  (curl .*)$", demo.printed, re.MULTILINE)
        outputs = [
            subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
            for line in lines
        ]
        page, sheet, phone, dashboard = outputs
        assert len(json.loads(page)) == 2
        assert {len(record) for record in csv.reader(sheet.splitlines())} == {11}
        assert [set(json.loads(line)) for line in phone.splitlines()] == [
            {"id", "partner_one", "phone"}
        ] * 5
        assert dashboard.startswith("event: open\n")
        assert "\nevent: end\nid: end\n" in dashboard


def test_each_principal_sees_its_own(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path) as demo:
        assert {*demo.ready} >= {"url", "database_url", "admin_database_url", "redis_url", "pid"}
        assert demo.ready["pid"] == demo.process.pid
        mine = demo.get("/v1/feeds/clients", "member")
        assert len(mine) == 300
        assert {row["tenant_id"] for row in mine} == {"rosewood"}
        assert {row["tenant_id"] for row in demo.get("/v1/feeds/clients", "other_member")} == {
            "atelier-blanc"
        }
        assert len(demo.get("/v1/feeds/clients", "couple")) == 1
        assert demo.get("/v1/feeds/clients", "admin") == mine
        feeds = {feed["name"] for feed in demo.get("/v1/feeds", "couple")["feeds"]}
        assert "analytics" not in feeds


def test_an_interrupt_stops_all_that_it_started(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path) as demo:
        assert len(processes_of(data)) >= 2
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(30) == 0
        assert processes_of(data) == []


def test_a_killed_demo_is_cleaned_up_and_its_data_used_again(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path) as demo:
        demo.process.kill()
        demo.process.wait(10)
        left = processes_of(data)
        assert left
    with running(data, tmp_path) as demo:
        assert len(demo.get("/v1/feeds/clients", "member")) == 300
        assert len(processes_of(data)) == len(left)


def test_a_folder_that_is_in_use_is_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path):
        second = subprocess.run(
            [*DEMO, "--port=0", f"--data={data}"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "another process is using" in second.stderr


def test_a_port_that_is_taken_is_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    with running(data, tmp_path) as demo:
        other = data.with_name(f"{data.name}-other")
        port = demo.ready["url"].rpartition(":")[2]
        try:
            second = subprocess.run(
                [*DEMO, "--rows=5", f"--data={other}", f"--port={port}"],
                cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            shutil.rmtree(other, ignore_errors=True)
        assert demo.get("/v1/feeds", "member")["feeds"]
    assert second.returncode == 1
    assert "can't listen on 127.0.0.1" in second.stderr.splitlines()[-1]
