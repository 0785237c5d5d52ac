"""The processor time of processes while something runs."""

from collections.abc import Callable, Sequence

import psutil

from tests.performance.slices import processor_time


def seconds_of(parents: Sequence[int], run: Callable[[], object]) -> float:
    """Seconds of processor, of these processes and their children, user and system together.

    A child that ends meanwhile is not counted, so it has to be one that stays.
    """
    before = _seconds(parents)
    run()
    after = _seconds(parents)
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _seconds(parents: Sequence[int]) -> dict[int, float]:
    spent: dict[int, float] = {}
    for parent in map(psutil.Process, parents):
        for process in (parent, *parent.children(recursive=True)):
            try:
                spent[process.pid] = processor_time(process.pid)
            except psutil.NoSuchProcess:
                continue
    return spent
