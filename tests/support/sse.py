"""A parser of event streams by WHATWG HTML, section 9.2.6, that knows nothing of the service."""

import re
from dataclasses import dataclass, field

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """An event as a browser would dispatch it; it would then send `last_id` as Last-Event-ID."""

    type: str
    data: str
    last_id: str


@dataclass
class EventStream:
    """Everything that a body came to. What no blank line ended was never dispatched."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry: int | None = None

    def of_type(self, kind: str) -> list[Event]:
        """The events of one type."""
        return [event for event in self.events if event.type == kind]


def parse(body: bytes) -> EventStream:
    """The events of a body, whole or cut anywhere."""
    stream = EventStream()
    # What stands behind the last line end is a line that has not arrived yet.
    *lines, _ = _LINE_END.split(body.decode("utf-8", "replace").removeprefix("\ufeff"))
    kind, data, last_id = "", list[str](), ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                stream.events.append(Event(kind or "message", "\n".join(data), last_id))
            kind, data = "", []
        elif not name:
            stream.comments.append(value)
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            stream.retry = int(value)
    return stream
