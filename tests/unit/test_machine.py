"""The system's figures of a process; also of one that has no file left to ask with."""

import os
import resource
import time

import psutil
import pytest

from feedsvc.operations.machine import Machine


def test_it_sees_what_there_is() -> None:
    began = time.monotonic()
    machine = Machine()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    machine.look()
    wall = time.monotonic() - began
    usage = machine.usage
    assert usage.memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert 0.8 * 0.2 / wall < usage.cpu_share < 4
    assert usage.open_files == pytest.approx(psutil.Process().num_fds(), abs=5)
    assert 0 < usage.machine_memory_free < usage.machine_memory


def test_without_a_file_left_it_knows_that_there_is_none() -> None:
    machine = Machine()
    before = machine.usage
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Descriptors are numbered from the lowest that is free.
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        machine.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert machine.usage == before._replace(open_files=lowest)
    machine.look()
    assert machine.usage.open_files != machine.most_open_files


def test_open_files_are_counted_where_the_kernel_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    by_kernel = machine.open_files()
    monkeypatch.setattr("feedsvc.operations.machine._counted_files", lambda: 0)
    assert machine.open_files() == pytest.approx(by_kernel, abs=1)  # to list them opens a folder
