"""The pause before a worker that died is replaced."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedsvc.core.process import WorkerContext
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
