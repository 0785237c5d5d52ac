"""Every state of a connection with every event, and the table's use by a connection."""

import asyncio

import pytest
from aiohttp import web

from feedsvc.settings import Server
from feedsvc.web.protocol.server import FeedServer
from feedsvc.web.protocol.states import (
    ADMITTED,
    PARSES,
    READS_BODY,
    TRANSITIONS,
    ForbiddenEventError,
    ReadEvent,
    State,
    after,
)
from tests.unit.test_answer_order import Transport

# A row for each state, a column for each event; `-` is forbidden.
TABLE = """
            ADMITTED TURNED_AWAY REQUEST_READ BODY_BEGUN LAST_REQUEST_READ LAST_BODY_BEGUN BODY_ENDED ENDED      LOST
NEW         HEAD     REFUSED     -            -          -                 -               -          -          CLOSED
HEAD        -        -           HEAD         BODY       LAST              LAST_BODY       -          DISCARDING CLOSED
BODY        -        -           -            -          -                 -               HEAD       DISCARDING CLOSED
LAST_BODY   -        -           -            -          -                 -               LAST       DISCARDING CLOSED
LAST        -        -           -            -          -                 -               -          DISCARDING CLOSED
DISCARDING  -        -           -            -          -                 -               -          DISCARDING CLOSED
REFUSED     -        -           -            -          -                 -               -          REFUSED    CLOSED
CLOSED      -        -           -            -          -                 -               -          CLOSED     CLOSED
"""  # noqa: E501 - a table is read in lines
EVENTS, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [
    (State[state], ReadEvent[event], None if cell == "-" else State[cell])
    for state, *cells in ROWS
    for event, cell in zip(EVENTS, cells, strict=True)
]

PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n"
BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"


def test_the_table_is_complete() -> None:
    assert {(state, event) for state, event, _ in CELLS} == {
        (s, e) for s in State for e in ReadEvent
    }
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(("state", "event", "expected"), CELLS)
def test_each_event_in_each_state(state: State, event: ReadEvent, expected: State | None) -> None:
    if expected is None:
        with pytest.raises(ForbiddenEventError, match=f"^{event.name} in the state {state.name}$"):
            after(state, event)
    else:
        assert after(state, event) is expected


def test_each_state_can_be_reached_and_left_for_the_end() -> None:
    reached, before = {State.NEW}, set[State]()
    while reached != before:
        before = set(reached)
        reached |= {later for state in before for later in TRANSITIONS[state].values()}
    assert reached == set(State)
    assert all(after(state, ReadEvent.LOST) is State.CLOSED for state in State)


def test_the_groups_of_states() -> None:
    assert READS_BODY < PARSES < ADMITTED
    assert set(State) - ADMITTED == {
        State.NEW,
        State.REFUSED,
        State.CLOSED,
    }


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], State.HEAD),
        ([PLAIN], State.HEAD),
        ([PLAIN[:9]], State.HEAD),
        ([BODY], State.BODY),
        ([BODY + b"abc"], State.HEAD),
        ([BODY, b"ab", b"c", PLAIN], State.HEAD),
        ([BODY, b"abc" + BODY], State.BODY),
        ([UPGRADE], State.LAST),
        ([UPGRADE, b"\x00"], State.LAST),
        ([b"nonsense\r\n\r\n"], State.DISCARDING),
        ([PLAIN.replace(b"x", b"?/")], State.DISCARDING),
        ([b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * 200_000], State.DISCARDING),
    ],
)
async def test_what_arrives_moves_the_connection(pieces: list[bytes], expected: State) -> None:
    connection = FeedServer(web.Server(_never), Server())()
    connection.connection_made(Closable())
    try:
        for piece in pieces:
            connection.data_received(piece)
        connection.data_received(b"")  # the end of a body is noticed with what comes next
        assert connection.state is expected
    finally:
        connection.connection_lost(None)
    assert connection.state is State.CLOSED
    connection.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_connection_too_many_is_refused_and_not_counted() -> None:
    server = FeedServer(web.Server(_never), Server(connections=16))
    admitted, refused, later = [server() for _ in range(16)], server(), server()
    for connection in (*admitted, refused):
        connection.connection_made(Closable())
    assert {each.state for each in admitted} == {State.HEAD}
    assert refused.state is State.REFUSED
    refused.data_received(PLAIN)
    refused.connection_lost(None)
    admitted.pop().connection_lost(None)
    later.connection_made(Closable())
    assert later.state is State.HEAD
    for connection in (*admitted, later):
        connection.connection_lost(None)


class Closable(Transport):
    """A transport whose writing side can't be closed alone, as with TLS."""

    def can_write_eof(self) -> bool:
        return False


async def _never(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError
