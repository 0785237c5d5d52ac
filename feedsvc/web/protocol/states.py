"""The states of a client's connection, as a table of states and events (as in h11).

The states are those of the bytes that arrive. Answers have none: aiohttp keeps their order.
"""

from enum import Enum, auto
from typing import Final


class State(Enum):
    """The treatment of a connection's next bytes."""

    NEW = auto()  # not connected yet
    HEAD = auto()  # they are a request's head, or its beginning
    BODY = auto()  # they are the body of the request that came last
    LAST_BODY = auto()  # as BODY, and no request is read behind it
    LAST = auto()  # they are discarded, the last request has been read whole
    DISCARDING = auto()  # they are discarded, the connection ends
    REFUSED = auto()  # they are discarded, the connection has not been admitted
    CLOSED = auto()  # there are none

    # The quick path looks at it for each request; Enum's own hash is a function in Python.
    __hash__ = object.__hash__


class ReadEvent(Enum):
    """An event in the life of a connection."""

    ADMITTED = auto()
    TURNED_AWAY = auto()  # there are too many connections
    REQUEST_READ = auto()  # a head without a body, or with one that has come whole
    BODY_BEGUN = auto()  # a head whose body is still to come
    LAST_REQUEST_READ = auto()  # as REQUEST_READ; what follows may be another protocol's
    LAST_BODY_BEGUN = auto()  # as BODY_BEGUN; what follows may be another protocol's
    BODY_ENDED = auto()
    ENDED = auto()  # no further request is read: a problem, a stop, a flood or a time-out
    LOST = auto()  # the transport is closed

    __hash__ = object.__hash__


class ForbiddenEventError(Exception):
    """An event that can't happen in the connection's state, and so a mistake of this service."""


TRANSITIONS: Final[dict[State, dict[ReadEvent, State]]] = {
    State.NEW: {
        ReadEvent.ADMITTED: State.HEAD,
        ReadEvent.TURNED_AWAY: State.REFUSED,
        ReadEvent.LOST: State.CLOSED,
    },
    State.HEAD: {
        ReadEvent.REQUEST_READ: State.HEAD,
        ReadEvent.BODY_BEGUN: State.BODY,
        ReadEvent.LAST_REQUEST_READ: State.LAST,
        ReadEvent.LAST_BODY_BEGUN: State.LAST_BODY,
        ReadEvent.ENDED: State.DISCARDING,
        ReadEvent.LOST: State.CLOSED,
    },
    State.BODY: {
        ReadEvent.BODY_ENDED: State.HEAD,
        ReadEvent.ENDED: State.DISCARDING,
        ReadEvent.LOST: State.CLOSED,
    },
    State.LAST_BODY: {
        ReadEvent.BODY_ENDED: State.LAST,
        ReadEvent.ENDED: State.DISCARDING,
        ReadEvent.LOST: State.CLOSED,
    },
    State.LAST: {
        ReadEvent.ENDED: State.DISCARDING,
        ReadEvent.LOST: State.CLOSED,
    },
    State.DISCARDING: {
        ReadEvent.ENDED: State.DISCARDING,
        ReadEvent.LOST: State.CLOSED,
    },
    State.REFUSED: {
        ReadEvent.ENDED: State.REFUSED,
        ReadEvent.LOST: State.CLOSED,
    },
    # The last answer may be finished behind the loss of the transport.
    State.CLOSED: {
        ReadEvent.ENDED: State.CLOSED,
        ReadEvent.LOST: State.CLOSED,
    },
}
"""The next state, by state and event; an event that a state lacks is forbidden there."""

READS_BODY: Final = frozenset({State.BODY, State.LAST_BODY})
PARSES: Final = frozenset({State.HEAD, State.BODY, State.LAST_BODY})
ADMITTED: Final = PARSES | {State.LAST, State.DISCARDING}


def after(state: State, event: ReadEvent) -> State:
    """The state behind an event. Raises ForbiddenEventError."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ForbiddenEventError(f"{event.name} in the state {state.name}") from None
