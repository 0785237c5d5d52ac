"""Where log lines go: standard error, one line each."""

import logging
import time
from typing import Literal

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def configure(level: Level) -> None:
    """Sets up the log of this process; times are UTC."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s")
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for every revision and statement is for whoever debugs alembic itself.
    logging.getLogger("alembic").setLevel(logging.WARNING)
