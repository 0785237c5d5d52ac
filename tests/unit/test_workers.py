"""Workers that die, and workers that begin while all are being stopped."""

import asyncio
import errno
import re
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from feedsvc.core.process import WorkerContext
from feedsvc.server import supervisor
from feedsvc.server.shared_folder import WorkerSlots
from feedsvc.server.supervisor import Supervisor, WorkerPlan, _Generation
from feedsvc.server.worker import Worker
from feedsvc.settings import Settings


@dataclass
class Dying:
    """A worker that lived for so many seconds."""

    lived: float
    slot: int = 0
    retired: bool = False
    process: Any = field(default_factory=lambda: SimpleNamespace(pid=1))

    @property
    def started(self) -> float:
        return time.monotonic() - self.lived

    async def ended(self) -> int:
        return 1


async def test_the_pause_between_deaths_grows_and_is_short_again_after_a_good_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything is told to stop, so that each pause is over at once; the log has its length."""
    plan = WorkerPlan(["true"], Path("none"), 2)
    workers = Supervisor(
        plan, cast("WorkerContext", None), cast("WorkerSlots", SimpleNamespace(give_back=id))
    )
    workers.stop()
    generation = _Generation(Settings(), 2)
    for lived in (*[1.0] * 9, 11.0, 1.0):
        await workers._supervise(cast("Worker", Dying(lived)), generation)
    pauses = [float(found[1]) for found in map(re.compile(r"in ([\d.]+) s").search, caplog.messages)
              if found is not None]  # fmt: skip
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1]


class Beginning:
    """A worker that is ready when the test says so, and ends when it is stopped."""

    made: ClassVar[list["Beginning"]] = []

    def __init__(self, *_: Any) -> None:
        self.slot, self.is_ready, self.stops, self.retired = 0, False, 0, False
        self.says_ready, self._stopped = asyncio.Event(), asyncio.Event()
        self.made.append(self)

    async def ready(self, _: float) -> None:
        await self.says_ready.wait()
        self.is_ready = True

    def stop(self) -> None:
        self.stops, self.retired = self.stops + 1, True
        self._stopped.set()

    async def ended(self) -> int:
        await self._stopped.wait()
        return 0


@pytest.mark.parametrize("turns", range(12))
async def test_a_stop_beside_a_workers_readiness_ends_it(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each turn of the loop between its word and its being counted among the others."""
    monkeypatch.setattr(Beginning, "made", [])
    monkeypatch.setattr(supervisor, "Worker", Beginning)
    monkeypatch.setenv("FEEDSVC_AUTH__KEY", "k" * 40)
    (file := tmp_path / "feedsvc.toml").write_text("")
    slots = SimpleNamespace(give_back=id, take=int)
    workers = Supervisor(
        WorkerPlan(["true"], file, 1),
        cast("WorkerContext", None),
        cast("WorkerSlots", slots),
    )
    reloading = asyncio.create_task(workers.reload())
    async with asyncio.timeout(30):
        while not Beginning.made:
            await asyncio.sleep(0)
        Beginning.made[0].says_ready.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        workers.stop()
        await reloading
        await workers.wait()
    assert Beginning.made[0].stops == 1


async def test_a_worker_is_replaced_though_at_first_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [BlockingIOError(errno.EAGAIN, "no process is left")]

    def started(*given: Any) -> Beginning:
        if faults:
            raise faults.pop()
        return Beginning(*given)

    monkeypatch.setattr(Beginning, "made", [])
    monkeypatch.setattr(supervisor, "Worker", started)
    slots = WorkerSlots(None)
    workers = Supervisor(WorkerPlan(["true"], None, 1), cast("WorkerContext", None), slots)
    workers._backoff = 0.0
    workers._present = _Generation(Settings(), 1)
    replacing = asyncio.create_task(workers._replace(workers._present))
    async with asyncio.timeout(60):
        while not Beginning.made and not replacing.done():
            await asyncio.sleep(0)
        if Beginning.made:
            Beginning.made[0].says_ready.set()
        await replacing
        assert "no process is left" in caplog.text
        assert slots.take() == 1, "the slot that the first one had is the second one's"
        workers.stop()
        await workers.wait()


async def test_a_reload_is_refused_while_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def started(*_: Any) -> Beginning:
        raise BlockingIOError(errno.EAGAIN, "no process is left")

    monkeypatch.setattr(supervisor, "Worker", started)
    monkeypatch.setenv("FEEDSVC_AUTH__KEY", "k" * 40)
    (file := tmp_path / "feedsvc.toml").write_text("")
    slots = WorkerSlots(None)
    workers = Supervisor(WorkerPlan(["true"], file, 1), cast("WorkerContext", None), slots)
    await workers.reload()
    assert re.search("reload refused: .*no process is left", caplog.text)
    assert slots.take() == 0


async def test_a_worker_that_can_not_be_started_leaves_no_socket_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = socket.socketpair()
    monkeypatch.setattr(socket, "socketpair", lambda: pair)
    workplace = SimpleNamespace(arguments=lambda _slot: [], descriptors=list)
    with pytest.raises(FileNotFoundError):
        Worker([str(tmp_path / "gone")], 1, cast("WorkerContext", workplace), 0)
    assert [end.fileno() for end in pair] == [-1, -1]
