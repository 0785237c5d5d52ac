"""A small file that several processes write and read."""

import uuid
from pathlib import Path


def write_whole(file: Path, data: bytes) -> None:
    """Write the file anew; a reader finds the old one or the new one. Raises OSError.

    Under a name of its own first, for two that write at once would take each other's away.
    """
    unfinished = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
