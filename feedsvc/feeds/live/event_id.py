"""The ids of live events: a cursor, and within a snapshot the last row that was sent."""

from typing import NamedTuple

_SEPARATOR = ":"  # stands in no cursor, and in no token
_STEP = "step"


class EventId(NamedTuple):
    """A place in a live answer.

    A cursor alone is a state that the client has as a whole, and from which changes follow. Within
    the snapshot, whose cursor it is, `feed` counts the feeds that are whole, and `token` is that of
    the last row of the next one, None before its first. With `is_within_step` the client also has
    a part of what follows the cursor's state.
    """

    cursor: str
    feed: int | None = None
    token: str | None = None
    is_within_step: bool = False

    def __str__(self) -> str:
        if self.is_within_step:
            return f"{self.cursor}{_SEPARATOR}{_STEP}"
        if self.feed is None:
            return self.cursor
        place = f"{self.cursor}{_SEPARATOR}{self.feed}"
        return place if self.token is None else f"{place}{_SEPARATOR}{self.token}"

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """The place of an id. Raises ValueError; the cursor itself is not judged."""
        cursor, *place = text.split(_SEPARATOR, 2)
        if not place:
            return cls(cursor)
        feed, *token = place
        if feed == _STEP and not token:
            return cls(cursor, is_within_step=True)
        if not (feed.isascii() and feed.isdigit() and len(feed) <= 2):
            raise ValueError("the id of an event, or a cursor")
        return cls(cursor, int(feed), token[0] if token else None)
