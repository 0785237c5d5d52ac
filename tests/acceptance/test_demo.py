"""`feedsvc demo` in a fresh clone of the repository."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import Request, urlopen

import asyncpg
import jwt
import pytest

from tests.support import sse
from tests.support.servers import quickest_folder
from tests.support.service import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

psutil = importlib.import_module("psutil")  # it has no type stubs

ROWS = 300
COLD_START, STOP = 90.0, 30.0  # seconds


class Demo(NamedTuple):
    """A running demo: its process, what its ready file says, and its output so far."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    output: Path

    def get(self, path: str, who: str = "member") -> Any:
        """The JSON that this principal gets."""
        headers = {"Authorization": f"Bearer {self.ready['tokens'][who]}"}
        with urlopen(Request(self.ready["url"] + path, headers=headers), timeout=10) as answer:
            return json.load(answer)

    def servers(self) -> set[int]:
        """The ids of the processes that it has started."""
        return {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to the whole group; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP)


def launch(data: Path, *options: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FEEDSVC_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    command = [sys.executable, "-m", "feedsvc", "demo", f"--rows={ROWS}", f"--data={data}"]
    return subprocess.Popen(
        [*command, *options],
        cwd=REPOSITORY,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT if output != subprocess.PIPE else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def running(data: Path, *options: str) -> Iterator[Demo]:
    """A demo on this folder, once it is ready; stopped by force if it still runs at the end."""
    ready_file, output = data.with_suffix(".json"), data.with_suffix(".out")
    ready_file.unlink(missing_ok=True)
    began = time.monotonic()
    with output.open("w") as file:
        process = launch(
            data, "--port=0", f"--ready-file={ready_file}", *options, output=file.fileno()
        )
    try:
        while not ready_file.exists():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() - began < COLD_START, output.read_text()
            time.sleep(0.02)
        ready = json.loads(ready_file.read_text())
        yield Demo(process, ready, output)
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(process.pid, number)
                process.wait(STOP)


def alive(pids: set[int]) -> set[int]:
    """Those that still run."""
    running = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.add(pid)
    return running


def processes_of(data: Path) -> list[str]:
    """The command lines of the servers that run on this folder."""
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [line for line in map(" ".join, found) if f"{data}/" in line]


def end_soon(pids: set[int]) -> bool:
    deadline = time.monotonic() + STOP
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pids)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that the servers' account can pass through, which pytest's tmp_path is not."""
    folder = Path(tempfile.mkdtemp(prefix="feedsvc-demo-", dir=quickest_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def prepared(base: Path) -> Path:
    """The folder of a demo that was interrupted, and beside it a copy, `second`.

    To make a cluster and the world costs more than all else here.
    """
    data = base / "first"
    with running(data) as cold:
        assert len(cold.get("/v1/feeds/clients?columns=id")) == ROWS
        servers = cold.servers()
        assert len(processes_of(data)) >= 2
        assert cold.interrupt() == 0
        assert end_soon(servers)
        assert processes_of(data) == []
    subprocess.run(["cp", "-a", data, base / "second"], check=True)  # with its accounts
    return data


@pytest.fixture(scope="module")
def demo(prepared: Path) -> Iterator[Demo]:
    made = databases(prepared)
    with running(prepared) as warm:
        assert databases(prepared) == made != {}, "a database was made again"
        yield warm


@pytest.fixture
def tenants(demo: Demo) -> dict[str, str]:
    """The tenant of each token."""
    tokens = demo.ready["tokens"].items()
    return {
        who: jwt.decode(token, options={"verify_signature": False})["tenant"]
        for who, token in tokens
    }


@pytest.fixture
async def admin(demo: Demo) -> Any:
    connection = await asyncpg.connect(demo.ready["admin_database_url"])
    yield connection
    await connection.close()


async def client_ids(admin: asyncpg.Connection, tenant: str) -> list[int]:
    sql = "SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY id"
    return [row["id"] for row in await admin.fetch(sql, tenant)]


async def test_the_ready_file_says_where_everything_is(demo: Demo, base: Path) -> None:
    ready = demo.ready
    assert set(ready) >= {"url", "database_url", "admin_database_url", "redis_url", "pid", "tokens"}
    assert set(ready["tokens"]) >= {"member", "other_member", "couple", "admin"}
    assert ready["pid"] == demo.process.pid
    assert (base / "first.json").stat().st_mode & 0o077 == 0  # there are passwords in it
    for url, is_superuser in (("database_url", False), ("admin_database_url", True)):
        connection = await asyncpg.connect(ready[url])
        sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        assert await connection.fetchval(sql) is is_superuser
        await connection.close()
    assert demo.get("/ready") == {"ready": True, "reason": None}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
async def test_the_four_printed_curl_lines_work_as_pasted(
    demo: Demo, admin: asyncpg.Connection, tenants: dict[str, str]
) -> None:
    lines = [x for x in demo.output.read_text().splitlines() if x.startswith("  curl ")]
    runs = [subprocess.run(["sh", "-c", line], capture_output=True, check=True) for line in lines]
    assert [run.stderr for run in runs] == [b""] * 4
    as_json, as_csv, as_ndjson, as_sse = (run.stdout.decode() for run in runs)
    ids = await client_ids(admin, tenants["member"])
    assert [row["id"] for row in json.loads(as_json)] == ids[:2]
    phone = [json.loads(line) for line in as_ndjson.splitlines()]
    assert [row["id"] for row in phone] == ids[:5]
    assert set(phone[0]) == {"id", "partner_one", "phone"}
    budgets = list(csv.DictReader(as_csv.splitlines(keepends=True)))
    assert len(budgets) == 5
    assert {"id", "client_id", "planned"} <= set(budgets[0])
    events = sse.parse(as_sse.encode()).events
    assert [event.type for event in events] == ["open", "rows", "end"]
    assert len(json.loads(events[1].data)) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
@pytest.mark.parametrize("page", ["README.md", "docs/feeds.md"])
def test_the_curl_lines_of_a_page_work_as_pasted(demo: Demo, tmp_path: Path, page: str) -> None:
    text = (REPOSITORY / page).read_text()
    lines = re.findall(r"^(?:C=[^\n]*\n[^\n]*\n)?curl [^\n]*", text, re.MULTILINE)
    variables = {"U": demo.ready["url"], "T": demo.ready["tokens"]["member"]}
    assert len(lines) >= 7
    for line in lines:
        command = ["sh", "-c", line.replace("curl ", "curl --fail-with-body ")]
        run = subprocess.run(
            command, capture_output=True, cwd=tmp_path, env=os.environ | variables, check=False
        )
        assert (run.returncode, run.stderr) == (0, b""), (line, run.stdout)


async def test_each_token_reads_what_its_holder_may(
    demo: Demo, admin: asyncpg.Connection, tenants: dict[str, str]
) -> None:
    seen = {
        who: [row["id"] for row in demo.get("/v1/feeds/clients?columns=id", who)] for who in tenants
    }
    mine = await client_ids(admin, tenants["member"])
    assert len(mine) == ROWS
    assert tenants["other_member"] != tenants["member"] == tenants["admin"] == tenants["couple"]
    assert seen["member"] == seen["admin"] == mine
    assert seen["other_member"] == await client_ids(admin, tenants["other_member"]) != []
    assert seen["couple"] == mine[:1]
    feeds = {who: {feed["name"] for feed in demo.get("/v1/feeds", who)["feeds"]} for who in tenants}
    assert feeds["member"] - feeds["couple"] == {"analytics", "month_figures"}
    assert len(feeds["member"]) == 9


def test_two_demos_side_by_side_and_what_each_leaves_behind(demo: Demo, base: Path) -> None:
    """The second starts warm, is killed, starts again clean, and is interrupted."""
    data = base / "second"
    with running(data) as second:
        assert second.ready["url"] != demo.ready["url"]
        assert len(second.get("/v1/feeds/clients?columns=id")) == ROWS
        left = second.servers()
        second.process.kill()
        second.process.wait()
        assert alive(left)  # nothing was there to stop them
        assert demo.get("/ready")["ready"]
    with running(data, "--workers=2") as again:
        assert end_soon(left)
        assert len(again.get("/v1/feeds/clients?columns=id")) == ROWS
        servers = again.servers()
        assert again.interrupt() == 0
        assert end_soon(servers)
    assert processes_of(data) == []
    assert demo.get("/ready")["ready"]


def databases(data: Path) -> dict[Path, int]:
    """The time at which each database in this folder was made, in nanoseconds."""
    return {file: file.stat().st_mtime_ns for file in data.rglob("PG_VERSION")}


@pytest.fixture
def no_interrupts() -> Iterator[None]:
    """Start processes with SIGINT ignored meanwhile, as a shell does with `&`."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("no_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_the_start_leaves_nothing_running(
    base: Path, number: signal.Signals
) -> None:
    data = base / f"interrupted-{number.name}"
    process = launch(data, "--port=0")
    while not (servers := {p.pid for p in psutil.Process(process.pid).children(recursive=True)}):
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=STOP)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert end_soon(servers)
    assert processes_of(data) == []


def test_a_folder_that_another_demo_has_is_refused_in_one_line(demo: Demo, base: Path) -> None:
    said = refusal(base / "first", "--port=0")
    assert str(base / "first") in said
    assert "another process" in said
    assert demo.get("/ready")["ready"]


def test_a_port_that_is_taken_is_refused_in_one_line_and_nothing_is_left(
    prepared: Path,
) -> None:
    data = prepared.with_name("second")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in refusal(data, f"--port={port}")
    assert processes_of(data) == []


def refusal(data: Path, *options: str) -> str:
    """The one line that a demo which can't start says before it ends with 1."""
    process = launch(data, *options)
    output, errors = process.communicate(timeout=COLD_START)
    assert (process.returncode, output) == (1, "")
    (line,) = errors.splitlines()
    return str(line)
