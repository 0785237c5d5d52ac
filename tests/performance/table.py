"""The table that a run ends with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.performance.timing import Round, medians, ratios

_HEADINGS: Final = ("", "median", "min-max", "target", "", "measured")


@dataclass(frozen=True, slots=True)
class Target:
    """The range of a median, both ends included."""

    most: float
    least: float | None = None

    def admits(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and value <= self.most

    def __str__(self) -> str:
        if self.least is not None and math.isinf(self.most):
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.least is None else f"{self.least:g} - {self.most:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: `values` are of the rounds, ratios or in `unit`; `detail` is what they are of."""

    subject: str
    values: Sequence[float]
    detail: str
    target: Target | None = None
    unit: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def is_over(self) -> bool:
        return self.target is not None and not self.target.admits(self.value)

    def cells(self) -> tuple[str, ...]:
        """The cells of the table's columns."""
        verdict = "" if self.target is None else "over" if self.is_over else "ok"
        spread = f"{min(self.values):.2f}-{max(self.values):.2f}" if len(self.values) > 1 else ""
        target = "" if self.target is None else f"{self.target} {self.unit}".rstrip()
        return (
            self.subject,
            f"{self.value:.2f} {self.unit}".rstrip(),
            spread,
            target,
            verdict,
            self.detail,
        )


def rendered(lines: Sequence[Line]) -> str:
    """The lines as a table of plain text."""
    rows = [_HEADINGS, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def ratio(
    subject: str,
    measured: list[Round],
    name: str,
    against: str,
    target: Target | None = None,
    unit: str = "s",
) -> Line:
    """The figure of a pair: one contender's seconds for one second of another, by round."""
    typical, factor = medians(measured), 1_000 if unit == "ms" else 1
    detail = " : ".join(f"{typical[each] * factor:.2f}" for each in (name, against))
    return Line(subject, ratios(measured, name, against), f"{detail} {unit}", target)
