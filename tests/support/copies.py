"""A copy of a feed as a careful client keeps it: whole answers or none, proven by their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MODULUS: Final = 1 << 64


class BrokenAnswerError(Exception):
    """An answer that is not whole, or does not lead to the state that it names."""


def row_digest(line: bytes) -> int:
    """A row's part of the state's digest (contract, `digest=1`)."""
    return int.from_bytes(hashlib.sha256(line).digest()[:8], "big")


@dataclass
class Copy:
    """Rows as lines of NDJSON by their key, and the digest that grows and shrinks with them."""

    key: str
    rows: dict[Any, bytes] = field(default_factory=dict)
    digest: int = 0
    cursor: str = ""

    def replace(self, key: Any, line: bytes | None) -> None:
        """Put a row in a key's place, or none."""
        if (former := self.rows.pop(key, None)) is not None:
            self.digest = (self.digest - row_digest(former)) % MODULUS
        if line is not None:
            self.rows[key] = line
            self.digest = (self.digest + row_digest(line)) % MODULUS

    def copy(self) -> Copy:
        """Another one with the same rows."""
        return Copy(self.key, dict(self.rows), self.digest, self.cursor)

    def apply(self, body: bytes) -> None:
        """Apply a delta with a digest. Raises BrokenAnswerError, and nothing is applied then."""
        tried = self.copy()
        try:
            sync = tried._applied(body)
            counted = (sync["rows"], sync["digest"])
            self_cursor = str(sync["cursor"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BrokenAnswerError(f"{type(error).__name__}: {error}") from error
        if counted != (len(tried.rows), tried.digest):
            raise BrokenAnswerError("the digest is another")
        self.rows, self.digest, self.cursor = tried.rows, tried.digest, self_cursor

    def _applied(self, body: bytes) -> Mapping[str, Any]:
        *lines, last = body.split(b"\n")[:-1]
        for line in lines:
            frame = json.loads(line)
            if "upsert" in frame:
                # The row's own bytes: what the digest is of.
                self.replace(frame["upsert"][self.key], line.removeprefix(b'{"upsert":')[:-1])
            else:
                self.replace(frame["delete"][self.key], None)
        sync: Mapping[str, Any] = json.loads(last)["sync"]
        return sync
