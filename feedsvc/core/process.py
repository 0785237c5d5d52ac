"""Sockets and the shared folder that a serving process gets at its start."""

import socket
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Sockets that listen already, and what workers share (`feedsvc.server.shared_folder`)."""

    listener: socket.socket
    metrics_listener: socket.socket | None = None
    """The port on which metrics need no token; None without one."""
    folder: Path | None = None
    slot: int = 0

    def copied(self) -> "WorkerContext":
        """The same with sockets of its own, which may be closed while these go on listening."""
        metrics = self.metrics_listener
        return replace(
            self,
            listener=self.listener.dup(),
            metrics_listener=None if metrics is None else metrics.dup(),
        )

    def arguments(self, slot: int) -> list[str]:
        """The options of `feedsvc worker` for a worker in this slot."""
        arguments = [f"--listen-fd={self.listener.fileno()}", f"--slot={slot}"]
        if self.metrics_listener is not None:
            arguments.append(f"--metrics-fd={self.metrics_listener.fileno()}")
        if self.folder is not None:
            arguments.append(f"--folder={self.folder}")
        return arguments

    def descriptors(self) -> list[int]:
        """The sockets that a worker inherits."""
        sockets = (self.listener, self.metrics_listener)
        return [each.fileno() for each in sockets if each is not None]
