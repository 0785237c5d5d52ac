"""A recorded sample of requests, and their exact percentiles.

`recorded_requests_us.txt` has the microseconds that 5,040 requests to the demo's world took, twelve
at a time: pages from the cache and past it, exports as CSV and NDJSON, refusals.
"""

from collections.abc import Sequence
from pathlib import Path

SECONDS = [
    int(line) / 1e6
    for line in Path(__file__).with_name("recorded_requests_us.txt").read_text().split()
]
RANKS = (0.5, 0.95, 0.99)


def exact(values: Sequence[float], rank: float) -> float:
    """The value at this rank, 0 to 1, of all values in order."""
    return sorted(values)[int(rank * (len(values) - 1))]
