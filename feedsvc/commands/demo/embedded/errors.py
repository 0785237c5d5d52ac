"""Errors of the embedded servers, a line each."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

ADVICE = {
    errno.ENOSPC: "free some space on this disk, or choose a folder elsewhere",
    errno.EDQUOT: "free some of your quota, or choose a folder elsewhere",
    errno.EACCES: "choose a folder of your own",
    errno.EPERM: "choose a folder of your own",
    errno.EROFS: "choose a folder that can be written to",
}


class EmbeddedError(Exception):
    """An embedded server can't be had; the message is one line: why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ServerDiedError(EmbeddedError):
    """A server ended while it was starting, or can't serve from the data that it was given."""


class PortTakenError(EmbeddedError):
    """Another process took the port between finding it free and binding to it."""


@contextmanager
def explained(task: str) -> Iterator[None]:
    """Turn what the operating system refuses during a task into an EmbeddedError."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "choose another folder")
        raise EmbeddedError(f"can't {task}: {error}: {advice}") from error
