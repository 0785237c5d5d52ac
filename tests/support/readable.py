"""Waits for a file to be readable, whatever its number: `select` takes none above 1,023."""

import select
from typing import Any


def is_readable(file: Any, timeout: float | None) -> bool:
    """Return whether it is, or has ended, within so many seconds."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1_000))
