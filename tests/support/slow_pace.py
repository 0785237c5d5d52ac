"""A pace of one live feed in half a second, beside requests of the last hour.

For a service that imports it.
"""

from feedsvc.core import pace

pace._PERIOD = 0.5  # type: ignore[misc]
pace._TOGETHER = 1  # type: ignore[misc]
pace._LATELY = 3_600.0  # type: ignore[misc]
