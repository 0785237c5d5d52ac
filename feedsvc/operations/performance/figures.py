"""Figures of one worker's minute or of all workers in any time: they merge."""

import logging
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import orjson
import zstandard

from feedsvc.operations.performance.sketch import Sketch

FigureKey: TypeAlias = tuple[str, ...]
"""The figure's name and its labels: see `feedsvc.operations.performance.recorder`."""

logger = logging.getLogger(__name__)

_LEVEL: Final = 3
_MOST_BYTES: Final = 64 << 20  # of a packed row, unpacked


class FiguresError(ValueError):
    """Bytes that are no figures of this release."""


class Figures:
    """Sums, maxima and sketches, by key."""

    __slots__ = ("counts", "peaks", "sketches")

    def __init__(self) -> None:
        self.counts: dict[FigureKey, float] = {}
        self.peaks: dict[FigureKey, float] = {}
        self.sketches: dict[FigureKey, Sketch] = {}

    def add(self, key: FigureKey, number: float) -> None:
        """Add to a sum."""
        self.counts[key] = self.counts.get(key, 0) + number

    def peak(self, key: FigureKey, value: float) -> None:
        """Keep the larger of the two."""
        self.peaks[key] = max(value, self.peaks.get(key, value))

    def sketch(self, key: FigureKey) -> Sketch:
        """The sketch of this key, an empty one where there was none."""
        found = self.sketches.get(key)
        if found is None:
            found = self.sketches[key] = Sketch()
        return found

    def merge(self, other: "Figures") -> None:
        """Merge the other's figures into these."""
        for key, number in other.counts.items():
            self.add(key, number)
        for key, value in other.peaks.items():
            self.peak(key, value)
        for key, sketch in other.sketches.items():
            self.sketch(key).merge(sketch)

    def total(self, name: str, *rest: str | None) -> float:
        """The sum over keys that begin with this name and go on so; None is anything."""
        return sum(n for key, n in self.counts.items() if key[0] == name and _fits(key[1:], rest))

    def merged(self, name: str, *rest: str | None) -> Sketch:
        """The merged sketch of such keys."""
        made = Sketch()
        for key, sketch in self.sketches.items():
            if key[0] == name and _fits(key[1:], rest):
                made.merge(sketch)
        return made

    def highest(self, name: str, *rest: str | None) -> float | None:
        """The largest of such peaks, None where there is none."""
        found = (v for key, v in self.peaks.items() if key[0] == name and _fits(key[1:], rest))
        return max(found, default=None)

    def plain(self) -> dict[str, Any]:
        """The plain form, for JSON."""
        return {
            "counts": [[*key, round(number, 6)] for key, number in self.counts.items()],
            "peaks": [[*key, value] for key, value in self.peaks.items()],
            "sketches": [[*key, sketch.plain()] for key, sketch in self.sketches.items()],
        }

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> "Figures":
        """The figures from their plain form. Raises FiguresError."""
        made = cls()
        try:
            made.counts = {tuple(key): float(number) for *key, number in plain["counts"]}
            made.peaks = {tuple(key): float(value) for *key, value in plain["peaks"]}
            made.sketches = {tuple(key): Sketch.parse(bins) for *key, bins in plain["sketches"]}
        except (KeyError, TypeError, ValueError) as error:
            raise FiguresError("these are no figures") from error
        return made

    def pack(self) -> bytes:
        """The bytes of a row."""
        return zstandard.ZstdCompressor(_LEVEL).compress(orjson.dumps(self.plain()))

    @classmethod
    def unpack(cls, packed: bytes) -> "Figures":
        """The figures from a row's bytes. Raises FiguresError."""
        try:
            plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MOST_BYTES)
            return cls.parse(orjson.loads(plain))
        except (zstandard.ZstdError, orjson.JSONDecodeError, AttributeError) as error:
            raise FiguresError("these are no figures") from error


def readable(name: str, packed: bytes) -> Figures:
    """The figures of a row of this name; none, and a log line, where it can't be read."""
    try:
        return Figures.unpack(packed)
    except FiguresError:
        logger.warning("performance: the row %s can't be read", name)
        return Figures()


def _fits(key: FigureKey, wanted: tuple[str | None, ...]) -> bool:
    return all(want is None or want == have for want, have in zip(wanted, key, strict=False))
