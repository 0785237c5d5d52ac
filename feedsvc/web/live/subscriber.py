"""A connection that takes a broadcast's events: a place in them, without a task or a queue."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from feedsvc.core.broadcast import chunk
from feedsvc.core.events import RequestEnded
from feedsvc.web.live.channel import EndReason, Farewell, LiveChannel
from feedsvc.web.send_queue import outstanding

_PIECE: Final = 32_768  # bytes that one write hands over at most, and so wait in this process
_MOST_HELD: Final = 65_536  # bytes that are held for one subscriber alone
_MOST_DISCARDED: Final = 1_048_576  # bytes that a client may send, all of which are discarded
_LINGER: Final = 1.0  # seconds that a client gets to close behind all that it has acknowledged
_FINAL_CHUNK: Final = b"0\r\n\r\n"  # RFC 9112, section 7.1


class SubscriberTerms(NamedTuple):
    """The conditions of one subscription; all times are the loop's, in seconds.

    `until` is the time of its end, for the reason `then`. `charge` takes the bytes that were sent
    since the last time; False if no more may be sent.
    """

    began: float

    heartbeat: float
    stall: float
    until: float
    then: EndReason
    farewell: Farewell
    charge: Callable[[int], bool]


class SubscriberHost(Protocol):
    """The part of the service that all subscribers belong to."""

    def begun(self, subscriber: "LiveSubscriber") -> None:
        """The subscriber has its connection."""
        ...

    def retry_ms(self, together: int = 0) -> int:
        """The milliseconds after which a client is to come back, of so many that end together."""
        ...

    def fell_behind(self, subscriber: "LiveSubscriber", number: int) -> None:
        """The event with this number is not kept any more: see to what stands in its place."""
        ...

    def left(self, subscriber: "LiveSubscriber", outcome: EndReason | None) -> None:
        """The connection is closed, behind last words for this reason or without any."""
        ...

    def stalled(self, subscriber: "LiveSubscriber") -> None:
        """The subscriber has taken nothing for too long, and is cut."""
        ...

    def look_at(self, subscriber: "LiveSubscriber", at: float) -> None:
        """Let `look` be called at this time, in the place of any other."""
        ...


class LiveSubscriber(asyncio.Protocol):
    """The protocol of one connection, from its hand-over until it is closed.

    It is `_paused` while its transport has bytes that the kernel has not taken; then it takes no
    event, and goes on from its place when they have left.
    """

    __slots__ = (
        "_catching", "_channel", "_charged", "_event", "_host", "_is_over", "_last_words",
        "_next_at", "_number", "_offset", "_paused", "_reason", "_received", "_sent",
        "_stalled_since", "_taken", "_terms", "_transport", "ended", "on_close", "place", "problem",
    )  # fmt: skip

    def __init__(self, host: SubscriberHost, channel: LiveChannel, terms: SubscriberTerms) -> None:
        self.place: int | None = None
        """See `Timed`."""
        self.on_close: Callable[[], None] | None = None
        """Undoes what the connection was counted as; called once, when it is closed."""
        self.ended: RequestEnded | None = None
        """The request's end as it was at the hand-over; None where it has been reported."""
        self.problem: str | None = None
        """The name of the problem in its last words."""
        self._host = host
        self._channel = channel
        self._terms = terms
        self._transport: asyncio.Transport | None = None
        self._number = channel.number
        self._event: bytes | None = None  # the one that is being sent, from `_offset` on
        self._offset = 0
        self._paused = self._catching = self._is_over = False
        self._last_words: bytes | None = None
        self._reason: EndReason | None = None
        self._received = 0
        self._sent = self._charged = 0  # bytes
        # Bytes that were acknowledged at the last look, and since when they are no more although
        # there are others on their way.
        self._taken = 0
        self._stalled_since = math.inf
        # When a heartbeat is due; behind the last words, when the connection is closed.
        self._next_at = 0.0

    @property
    def channel(self) -> LiveChannel:
        """The channel that its events come from."""
        return self._channel

    @property
    def terms(self) -> SubscriberTerms:
        """The conditions that it was admitted on."""
        return self._terms

    @property
    def reason(self) -> EndReason | None:
        """The reason in its last words; None where it has none, or its client left before."""
        return self._reason

    @property
    def sent(self) -> int:
        """The bytes that were written since the hand-over."""
        return self._sent

    def unsent(self) -> int:
        """The bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def is_open(self) -> bool:
        """True if it takes events."""
        return self._transport is not None and self._last_words is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over, and what the beginning did not have."""
        stream = cast("asyncio.Transport", transport)
        now = _now()
        self._transport = stream
        # The first heartbeat comes early, at random: many that come together stay apart.
        share = random.random()  # noqa: S311 - a guess gains nothing
        self._next_at = now + self._terms.heartbeat * share
        stream.set_write_buffer_limits(high=0)
        # Where the transport has paused its former protocol, it does not pause this one again.
        self._paused = stream.get_write_buffer_size() > 0
        stream.resume_reading()  # or the client's leaving would not be noticed
        self._channel.broadcast.subscribe(self)
        self._host.look_at(self, min(self._next_at, self._terms.until))
        self._host.begun(self)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; the second call changes nothing."""
        if self._transport is None:
            return
        self._transport = None
        self._channel.broadcast.unsubscribe(self)
        self._event = None
        if self.on_close is not None:
            self.on_close()
            self.on_close = None
        self._host.left(self, self._reason)

    def data_received(self, data: bytes) -> None:
        """Discard it: requests behind one that ends with its connection are not answered."""
        self._received += len(data)
        if self._received > _MOST_DISCARDED:
            self.cut()

    def eof_received(self) -> bool | None:
        """The client has left: asyncio closes the transport."""
        return None

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._paused = True
        if self._stalled_since == math.inf:
            now, terms = _now(), self._terms
            self._stalled_since = now
            self._host.look_at(self, min(now + terms.stall, self._next_at, terms.until))

    def resume_writing(self) -> None:
        """All that was written has left."""
        self._paused = False
        self._pump()

    def wake(self) -> bool:
        """See `Subscriber`."""
        if self._paused or self._last_words is not None:  # within an event it is paused
            return False
        transport = self._transport
        if transport is None or self._catching:
            return False
        broadcast, number = self._channel.broadcast, self._number
        if number == broadcast.next - 1 and not broadcast.ended:
            event = broadcast.newest
            if len(event) <= _PIECE:  # as nearly always
                self._number = number + 1
                self._sent += len(event)
                transport.write(event)
                return True
        before = self._sent
        self._pump()
        return self._sent > before

    def end(self, reason: EndReason) -> None:
        """Send the last words and close, behind the event that is being sent; once."""
        if self.is_open:
            self._pump()  # the last round may not have come to it yet
        if not self.is_open:  # the broadcast's own end may just have
            return
        words = self._terms.farewell(reason, self._host.retry_ms())
        newest = chunk(self._channel.heartbeat()) if self._has_everything() else b""
        final, self.problem = b"" if words.problem else _FINAL_CHUNK, words.problem
        self._end_with(newest + chunk(words.data) + final, reason)

    def abandon(self) -> None:
        """Forget it, for its connection was lost before it could be handed over."""
        if self._transport is None:
            self._host.left(self, None)

    def cut(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def caught_up(self, events: Sequence[bytes], number: int) -> None:
        """Take the events that stand in the place of those that are not kept, and go on."""
        self._catching = False
        if not self.is_open:
            return
        framed = b"".join(chunk(event) for event in events if event)
        stays = number <= self._number and not framed
        if stays or len(framed) > _MOST_HELD:
            self.end("behind")  # the answer to its next request comes at its own pace
            return
        self._number = number
        if framed:
            self._event, self._offset = framed, 0
        self._pump()

    def look(self, now: float) -> float | None:
        """Cut it if it is stalled, end it or send a heartbeat if it is time; when to look again."""
        transport, terms = self._transport, self._terms
        if transport is None:
            return None
        left = outstanding(transport)
        self._note_progress(left, now)
        if now - self._stalled_since >= terms.stall:
            self._host.stalled(self)
            self.cut()
        elif self._last_words is not None:
            self._close_behind_last_words(transport, left, now)
        elif self._holds_too_much():
            self.cut()  # within an event there can be no last words
        elif now >= terms.until:
            self.end(terms.then)
        elif not self._is_charged():
            self.end("limits")
        elif now >= self._next_at:
            self._beat(now)
        at = min(self._next_at, terms.until) if self.is_open else self._next_at
        return min(at, self._stalled_since + terms.stall)

    def _note_progress(self, left: int, now: float) -> None:
        """Note whether the client acknowledges; `left` bytes are on their way."""
        taken = self._sent - left
        if left == 0:
            self._stalled_since = math.inf
        elif taken > self._taken or self._stalled_since == math.inf:
            self._stalled_since = now
        self._taken = taken

    def _beat(self, now: float) -> None:
        """Send a heartbeat, unless events are on their way."""
        self._next_at = now + self._terms.heartbeat
        if not self._paused and self._has_everything():
            self._write(chunk(self._channel.heartbeat()))
            self._stalled_since = min(self._stalled_since, now)

    def _has_everything(self) -> bool:
        """True if every event of the broadcast has been written, or is being written."""
        return self._number == self._channel.broadcast.next

    def _holds_too_much(self) -> bool:
        """True if a large event is kept for this one alone, which others have long taken."""
        event, oldest = self._event, self._channel.broadcast.first
        return event is not None and len(event) > _MOST_HELD and self._number <= oldest

    def _is_charged(self) -> bool:
        """Charge the bytes that have been sent; False if no more may be."""
        size, self._charged = self._sent - self._charged, self._sent
        return self._terms.charge(size)

    def _pump(self) -> None:
        """Write what is next for as long as the kernel takes it."""
        while not self._paused and self._transport is not None:
            if self._event is not None:
                self._write_piece(self._event)
            elif self._last_words is not None:
                self._write_last_words(self._transport)
                return
            elif self._catching or not self._take_more():
                return

    def _take_more(self) -> bool:
        """Take the next events as one; False where there is none, or it is not kept."""
        broadcast = self._channel.broadcast
        events = broadcast.since(self._number)
        if events is None:
            self._catching = True
            self._host.fell_behind(self, self._number)
            return False
        if not events:
            if broadcast.ended:
                self.problem = broadcast.problem
                # The last event is the same for all, and they are not to come back at one time.
                retry = chunk(b"retry: %d\n\n" % self._host.retry_ms(broadcast.ended_for))
                self._end_with(b"" if self.problem else retry + _FINAL_CHUNK, "closed")
            return broadcast.ended
        some, size = 1, len(events[0])
        while some < len(events) and size + len(events[some]) <= _PIECE:
            size += len(events[some])
            some += 1
        # Of one alone the bytes are shared with all other subscribers.
        self._event = events[0] if some == 1 else b"".join(events[:some])
        self._offset, self._number = 0, self._number + some
        return True

    def _write_piece(self, event: bytes) -> None:
        """Write the next part of the event that is being sent.

        A part of a large one is a copy, or a stalled transport would keep all of it.
        """
        begin = self._offset
        self._offset = begin + _PIECE
        if self._offset >= len(event):
            self._event = None
        self._write(event[begin : self._offset])

    def _write(self, data: bytes) -> None:
        self._sent += len(data)
        if self._transport is not None:
            self._transport.write(data)

    def _end_with(self, data: bytes, reason: EndReason) -> None:
        """Close behind these bytes, once what is being sent has left."""
        self._last_words, self._reason = data, reason
        self._channel.broadcast.unsubscribe(self)
        self._next_at = _now() + _LINGER
        self._host.look_at(self, self._next_at)
        self._pump()

    def _write_last_words(self, transport: asyncio.Transport) -> None:
        """Write them, once, and wait for the client to close.

        To close a socket with unread bytes resets the connection, and the last words may be lost.
        """
        if self._is_over:
            return
        self._is_over = True
        if self._last_words:
            self._write(self._last_words)
            self._last_words = b""
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        else:
            transport.close()

    def _close_behind_last_words(self, transport: asyncio.Transport, left: int, now: float) -> None:
        if left == 0 and now >= self._next_at:
            transport.close()
        self._next_at = max(self._next_at, now + _LINGER)


def _now() -> float:
    return asyncio.get_running_loop().time()
