"""The seam between the events of a live feed and the connections that they are sent on."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from feedsvc.core.broadcast import Broadcast

EndReason: TypeAlias = Literal["rotation", "token", "draining", "behind", "limits", "closed"]
"""Why a live answer ended. `behind`: what the client lacks is too much to be held for it, so it is
to come back with its last id; `closed`: the broadcast itself ended."""


class LiveChannel(Protocol):
    """The events of one admitted request, once its beginning has been written."""

    @property
    def broadcast(self) -> Broadcast:
        """The events that the subscriber shares with others."""
        ...

    @property
    def number(self) -> int:
        """The number of the first event that the beginning lacks."""
        ...

    def heartbeat(self) -> bytes:
        """An event, unframed, for one that has all the broadcast's events: with the newest id.

        Called often, and for many in a row.
        """
        ...

    async def catch_up(self, number: int) -> tuple[Sequence[bytes], int]:
        """The net events, unframed, in the place of those from `number` on, which are not kept.

        And the number of the broadcast's event to go on with. Any error ends the subscriber, whose
        client then comes back with its last id.
        """
        ...


class LastWords(NamedTuple):
    """The last event of a connection, unframed.

    `problem` is the name of a failure's: behind it the answer breaks off without the final chunk,
    so that its client notices.
    """

    data: bytes
    problem: str | None = None


Farewell: TypeAlias = Callable[[EndReason, int], LastWords]
"""Makes the last words by the reason and the milliseconds until a retry."""


def end_event(reason: EndReason, retry_ms: int) -> LastWords:
    """`event: end`. It has no id, so a client keeps the one of what it has got."""
    return LastWords(
        b'event: end\nretry: %d\ndata: {"reason":"%b"}\n\n' % (retry_ms, reason.encode())
    )
