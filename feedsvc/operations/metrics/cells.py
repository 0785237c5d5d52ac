"""Cells: counters in memory, and the files through which every worker can read them.

A count is a Python number, for a write into a file with each request would cost as much as the
rest of its observation. What has changed goes into the files once a second. They are those of
prometheus-client's multiprocess mode, made here and not by its own metrics, which would decide
when they are imported, from the environment, what this process is.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from feedsvc.operations.metrics.declarations import Metric

T = TypeVar("T")

_ROOM: Final = 4_096  # bytes beside the entries themselves
_AN_ENTRY: Final = 40  # bytes of an entry beside its key, at most
_LAST_BOUND: Final = float("inf")
_ANY_BOUND: Final = "<bound>"  # no label's value


class Count:
    """A counter or a gauge."""

    __slots__ = ("file", "key", "value", "written")

    def __init__(self, file: str, key: str) -> None:
        self.file = file
        self.key = key
        self.value = 0.0
        self.written = 0.0


class Buckets:
    """A histogram: how many values lay in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "keys", "sum_key", "total", "written")

    def __init__(self, bounds: Sequence[float], keys: Sequence[str], sum_key: str) -> None:
        self.bounds = bounds
        self.keys = keys
        self.sum_key = sum_key
        self.counts: list[float] = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.written: list[float] = [*self.counts]


class Cells:
    """All figures of one worker."""

    def __init__(self) -> None:
        self._counts: list[Count] = []
        self._histograms: list[Buckets] = []
        self._files: dict[str, MmapedDict] = {}

    def count(self, metric: Metric, *labels: str) -> Count:
        """A new counter or gauge with these labels."""
        file = "counter" if metric.kind == "counter" else f"gauge_{metric.across}"
        (sample,) = metric.samples()
        made = Count(file, _key(metric, sample, labels))
        self._counts.append(made)
        return made

    def buckets(self, metric: Metric, *labels: str) -> Buckets:
        """A new histogram with these labels."""
        # Keys of one histogram differ in the bound alone, and to encode each costs a start 25 ms.
        key = _key(metric, f"{metric.name}_bucket", (*labels, _ANY_BOUND), "le")
        before, _, behind = key.partition(_ANY_BOUND)
        keys = [f"{before}{bound}{behind}" for bound in _written(metric.bounds)]
        made = Buckets(metric.bounds, keys, _key(metric, f"{metric.name}_sum", labels))
        self._histograms.append(made)
        return made

    def open(self, folder: Path, slot: int) -> None:
        """Keep the figures in files, on from the counts of the slot's last worker.

        Raises OSError. The room is taken at once: a disk that fills up later would end the
        process, for that is what becomes of a write into a file that is mapped (mmap(2), SIGBUS).
        """
        keys: dict[str, list[str]] = {}
        for count in self._counts:
            keys.setdefault(count.file, []).append(count.key)
        for histogram in self._histograms:
            keys.setdefault("histogram", []).extend((*histogram.keys, histogram.sum_key))
        try:
            for name, wanted in keys.items():
                self._files[name] = _opened(folder / f"{name}_{slot}.db", wanted)
        except OSError:
            self._close_files()
            raise
        self._go_on()

    def write(self) -> None:
        """Write what has changed into the files."""
        for count in self._counts:
            if count.value != count.written and count.file in self._files:
                self._files[count.file].write_value(count.key, count.value, 0.0)
                count.written = count.value
        if (file := self._files.get("histogram")) is None:
            return
        for histogram in self._histograms:
            if histogram.counts != histogram.written:
                for key, value in zip(histogram.keys, histogram.counts, strict=True):
                    file.write_value(key, value, 0.0)
                file.write_value(histogram.sum_key, histogram.total, 0.0)
                histogram.written = [*histogram.counts]

    def close(self) -> None:
        """Write for the last time."""
        self.write()
        self._close_files()

    def series(self) -> Iterator[str]:
        """The keys of all series."""
        for count in self._counts:
            yield count.key
        for histogram in self._histograms:
            yield from (*histogram.keys, histogram.sum_key)

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _go_on(self) -> None:
        for count in self._counts:
            if count.file == "counter":
                count.value = count.written = self._files["counter"].read_value(count.key)[0]
        for histogram in self._histograms:
            file = self._files["histogram"]
            histogram.counts = [file.read_value(key)[0] for key in histogram.keys]
            histogram.total = file.read_value(histogram.sum_key)[0]
            histogram.written = [*histogram.counts]


def _key(metric: Metric, sample: str, values: Sequence[str], *more_labels: str) -> str:
    names = [*metric.labels, *more_labels]
    if len(names) != len(values):
        raise ValueError(f"{metric.name} has the labels {names}")
    return mmap_key(metric.name, sample, names, list(values), metric.help)


@cache
def _written(bounds: tuple[float, ...]) -> list[str]:
    """The buckets' upper edges as Prometheus has them, the last one with them."""
    return [floatToGoString(bound) for bound in (*bounds, _LAST_BOUND)]


def _opened(path: Path, keys: Sequence[str]) -> MmapedDict:
    """The file with room for each key, renamed to its name once it is whole."""
    if path.exists():
        return MmapedDict(str(path))
    unfinished = path.with_suffix(".new")
    with unfinished.open("wb") as file:
        size = _ROOM + sum(len(key.encode()) + _AN_ENTRY for key in keys)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
    made = MmapedDict(str(unfinished))
    for key in keys:
        made.read_value(key)
    unfinished.rename(path)
    return made


def add_to(buckets: Buckets, value: float) -> None:
    """Count a value in its bucket."""
    buckets.counts[bisect_left(buckets.bounds, value)] += 1
    buckets.total += value


def each(
    make: Callable[..., T], metric: Metric, labels: Sequence[str], values: Iterable[str]
) -> dict[str, T]:
    """A cell for each value of the last label, behind the others."""
    return {value: make(metric, *labels, value) for value in values}
