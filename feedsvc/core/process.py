"""What a process that serves is given by whoever starts it."""

import socket
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Sockets that listen already, and what workers share (`feedsvc.server.shared_folder`)."""

    listener: socket.socket
    metrics_listener: socket.socket | None = None
    """For whoever may read the metrics without a token; None where nobody may."""
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
        """What a worker in this slot is told of it on its command line."""
        told = [f"--listen-fd={self.listener.fileno()}", f"--slot={slot}"]
        if self.metrics_listener is not None:
            told.append(f"--metrics-fd={self.metrics_listener.fileno()}")
        if self.folder is not None:
            told.append(f"--folder={self.folder}")
        return told

    def descriptors(self) -> list[int]:
        """The sockets that a worker inherits."""
        sockets = (self.listener, self.metrics_listener)
        return [each.fileno() for each in sockets if each is not None]
