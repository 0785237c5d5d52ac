"""The keys of the rows that a reader has, in a few bytes each."""

from array import array
from collections.abc import Mapping
from itertools import repeat
from typing import Final

_SEPARATOR: Final = " "  # stands in no token
_LEAST_NOTES: Final = 256


class KeySet:
    """Tokens of keys, each with a digest of its row where the log alone does not show changes.

    What is noted lies beside the rest until there is a quarter as much of it.
    """

    def __init__(self, digests: Mapping[str, int], most: int, *, has_digests: bool) -> None:
        """`digests` has the digests by token, all 0 without `has_digests`.

        `most` is how many keys there may be.
        """
        self.most = most
        self._count = 0
        self._packed = b""
        self._digests: array[int] | None = array("q") if has_digests else None
        self._notes: dict[str, bool] = {}
        self._pack(digests)

    def __len__(self) -> int:
        """The number of keys, and of those that were noted since they were packed."""
        return self._count + len(self._notes)

    @property
    def size(self) -> int:
        """The bytes that the packed keys take."""
        digests = self._digests
        return len(self._packed) + (0 if digests is None else digests.itemsize * len(digests))

    def digests(self) -> dict[str, int | None]:
        """The digests by token, None of a row that has changed since it was read."""
        tokens = self._packed.decode().split(_SEPARATOR) if self._count else []
        known: dict[str, int | None] = dict(
            zip(tokens, repeat(0) if self._digests is None else self._digests, strict=False)
        )
        for token, is_there in self._notes.items():
            if is_there:
                known[token] = 0 if self._digests is None else None
            else:
                known.pop(token, None)
        return known

    def note(self, changes: Mapping[str, bool]) -> None:
        """Take what has changed: whether there is a row of each key."""
        self._notes |= changes
        if len(self._notes) > max(_LEAST_NOTES, self._count // 4):
            self._pack({token: digest or 0 for token, digest in self.digests().items()})

    def _pack(self, digests: Mapping[str, int]) -> None:
        self._count = len(digests)
        self._packed = _SEPARATOR.join(digests).encode()
        if self._digests is not None:
            self._digests = array("q", digests.values())
        self._notes = {}
