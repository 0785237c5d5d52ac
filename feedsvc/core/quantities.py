"""Spans of time and sizes, as sentences and screens write them."""

from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def span(seconds: float) -> str:
    """A span in its largest unit, such as `4.0 h`."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """A number of bytes in the unit that leaves it below a thousand, such as `192 KB`."""
    for unit in ("B", "KB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1_024
    return f"{count:.1f} GB"
