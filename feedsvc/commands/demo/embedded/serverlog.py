"""Messages of a server or its tool that failed, cut down to the line with the reason."""

import re
from pathlib import Path

DISK_FULL = ("No space left on device", "Check free disk space")

# The first that finds a line has it; PostgreSQL logs a bad setting above a FATAL without it.
SERIOUS = (
    re.compile(r"LOG: +(.*configuration parameter.*|.*value for parameter.*)"),
    re.compile(r"(?:FATAL|PANIC|error): +(.*)"),
    re.compile(r"(.*(?:[Ff]atal|[Ee]rror|Failed).*)"),
)


def why_it_died(log: Path) -> str:
    """The most serious line of a log, else its last line, with advice where there is any."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"its log {log} can't be read: {error.strerror}"
    return why(text) or f"it said nothing in {log}"


def why(text: str) -> str:
    """The most serious line of an output, else its last line, with advice where there is any."""
    reason = _reason([line.strip() for line in text.splitlines() if line.strip()])
    if any(words in text for words in DISK_FULL):
        return f"{reason}: the disk is full: free some space, or choose a folder elsewhere"
    return reason


def _reason(lines: list[str]) -> str:
    for pattern in SERIOUS:
        found = [match[1] for line in lines if (match := pattern.search(line))]
        if found:
            return found[0]  # what follows a failure are its consequences
    return lines[-1] if lines else ""
