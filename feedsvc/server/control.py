"""The connection between supervisor and worker: a JSON object a line.

The worker sends `{"ready": true}` or `{"failed": "why, line by line"}`, and gets
`{"hand_over": true}`, or `{"stop": true}` once or twice: signals that come too fast become one.
Either notices by the end of the line that the other one is gone.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import orjson

_MOST_WAITING: Final = 1_000_000  # bytes; no message is nearly as long


class ControlLine:
    """One end. `on_message` gets each message; `on_end` is called once, at the end of them."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting = b""
        self._on_end: Callable[[], None] | None = None
        self._on_message: Callable[[dict[str, Any]], None] | None = None

    def listen(
        self, on_message: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        """Begin to listen, on the event loop that runs."""
        self._on_message, self._on_end = on_message, on_end
        asyncio.get_running_loop().add_reader(self._end, self._read)

    def say(self, **message: Any) -> None:
        """Send a message, which is lost where the other end is gone."""
        try:
            self._end.send(orjson.dumps(message) + b"\n")
        except OSError:
            return  # its end is noticed by reading; one that takes nothing is not healthy, either

    def stop_listening(self) -> None:
        """Stop reading; messages may still be sent."""
        if self._on_end is not None:
            asyncio.get_running_loop().remove_reader(self._end)
            self._on_end = None

    def close(self) -> None:
        """Close the connection."""
        self.stop_listening()
        self._end.close()

    def _read(self) -> None:
        try:
            data = self._end.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._waiting) > _MOST_WAITING:
            on_end = self._on_end
            self.close()
            if on_end is not None:
                on_end()
            return
        *whole, self._waiting = (self._waiting + data).split(b"\n")
        for line in whole:
            message = orjson.loads(line)
            if self._on_message is not None:
                self._on_message(message)
