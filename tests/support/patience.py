"""How long a test waits for what is promised within so many seconds."""

import os


def patience(seconds: float) -> float:
    """The seconds on an idle machine; as many times that as it has too much to do just now."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
