"""The growth of a process while something runs, as Linux counts it (proc(5))."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

MIB: Final = 1_048_576
_HIGHEST: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_FORGET_HIGHEST: Final = "5"


def growth(pid: int, run: Callable[[], object]) -> float:
    """The process's highest resident memory during `run` above that before it, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_HIGHEST)
    before = _highest(pid)
    run()
    return (_highest(pid) - before) / MIB


def _highest(pid: int) -> int:
    found = _HIGHEST.search(Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1_024
