"""Figures in files that all workers share: continued by the next worker in a dead one's slot."""

import os
import resource
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString

from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cells import Buckets, Cells, Count
from feedsvc.server.shared_folder import WorkerSlots, worker_folder

Start = Callable[[int], "Worker"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with worker_folder() as made:
        assert made is not None
        yield made


class Worker:
    """A few figures of one worker."""

    def __init__(self, folder: Path, slot: int) -> None:
        self.cells = Cells()
        self.parked: Count = self.cells.count(d.PARKED, "clients")
        self.running: Count = self.cells.count(d.RUNNING)
        self.up: Count = self.cells.count(d.DATABASE_UP)
        self.lag: Buckets = self.cells.buckets(d.LOOP_LAG)
        self.cells.open(folder, slot)

    def adds(self, number: float) -> None:
        self.parked.value += number
        self.running.value = number
        self.up.value = 1
        self.lag.counts[2] += number
        self.lag.total += number / 1_000
        self.cells.write()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a worker in this slot; their files are closed in the end."""
    started: list[Worker] = []

    def make(slot: int) -> Worker:
        started.append(Worker(folder, slot))
        return started[-1]

    yield make
    for worker in started:
        worker.cells._close_files()


def together(folder: Path) -> dict[str, float]:
    """The samples that Prometheus would get."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_series_has_the_librarys_key() -> None:
    cells = Cells()
    cells.buckets(d.STAGE_SECONDS, "clients", "db")
    parts = [
        *(("bucket", {"le": floatToGoString(edge)}) for edge in (*d.STAGE_SECONDS.bounds, inf)),
        ("sum", {}),
    ]
    name, text = d.STAGE_SECONDS.name, d.STAGE_SECONDS.help
    assert list(cells.series()) == [
        mmap_key(
            name,
            f"{name}_{part}",
            ["dataset", "stage", *more],
            ["clients", "db", *more.values()],
            text,
        )
        for part, more in parts
    ]


def test_workers_are_added_up(folder: Path, start: Start) -> None:
    for slot, number in enumerate((3, 4)):
        start(slot).adds(number)
    now = together(folder)
    assert now["feedsvc_parked_streams_total"] == 7
    assert now["feedsvc_requests_running"] == 7
    assert now["feedsvc_database_up"] == 1
    assert now["feedsvc_loop_lag_seconds_count"] == 7
    assert now["feedsvc_loop_lag_seconds_bucket0.00025"] == 0
    assert now["feedsvc_loop_lag_seconds_bucket0.0005"] == 7
    assert now["feedsvc_loop_lag_seconds_sum"] == pytest.approx(0.007)


def test_a_new_worker_goes_on_where_the_dead_one_had_come_to(folder: Path, start: Start) -> None:
    slots = WorkerSlots(folder)
    first, second = slots.take(), slots.take()
    assert (first, second) == (0, 1)
    start(first).adds(3)
    start(second).adds(4)
    slots.give_back(first)
    dead = together(folder)
    assert dead["feedsvc_parked_streams_total"] == 7, "what was counted stays"
    assert dead["feedsvc_requests_running"] == 4, "what it was is over"
    files = len(list(folder.iterdir()))
    for _ in range(5):
        slot = slots.take()
        assert slot == first
        start(slot).adds(1)
        slots.give_back(slot)
    assert len(list(folder.iterdir())) == files
    assert together(folder)["feedsvc_parked_streams_total"] == 12
    assert together(folder)["feedsvc_loop_lag_seconds_count"] == 12
    assert together(folder)["feedsvc_loop_lag_seconds_sum"] == pytest.approx(0.012)


def test_nothing_is_exposed_of_a_file_that_is_not_whole(folder: Path, start: Start) -> None:
    (folder / "counter_7.new").touch()
    start(0).adds(1)
    assert together(folder)["feedsvc_parked_streams_total"] == 1


def test_a_disk_that_is_full_is_met_when_files_are_made_and_not_later(folder: Path) -> None:
    """A limit on files stands in for the disk; a write into a mapped hole would be a SIGBUS."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            Worker(folder, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert together(folder) == {}


def test_labels_that_a_metric_does_not_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="feedsvc_parked_streams has the labels"):
        Cells().count(d.PARKED)


def test_a_folder_that_a_killed_service_left_is_swept_and_one_in_use_is_not(
    folder: Path, tmp_path: Path
) -> None:
    left = folder.with_name("feedsvc-workers-left")
    beside = folder.with_name("feedsvc-workers-link")
    try:
        left.mkdir()
        (left / "counter_0.db").touch()
        beside.symlink_to(tmp_path)
        for path in (left, folder):
            os.utime(path, (1, 1))
        with worker_folder():
            assert not left.exists()
            assert folder.exists()
            assert tmp_path.exists()
    finally:
        beside.unlink()
    new = folder.with_name("feedsvc-workers-new")
    new.mkdir()
    with worker_folder():
        assert new.exists(), "its service may be about to lock it"
    new.rmdir()


def test_no_folder_where_none_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("feedsvc.server.shared_folder._MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with worker_folder() as made:
        assert made is None
    WorkerSlots(None).give_back(0)
