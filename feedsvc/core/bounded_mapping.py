"""A mapping that is bounded in bytes; the oldest entries go first."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMapping(Generic[K, V]):
    """Entries with the size that their owner gives them. One that is thrown out is learned anew."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._values: OrderedDict[K, V] = OrderedDict()  # whose first entry is found at once
        self._sizes: dict[K, int] = {}
        self.size = 0
        """Bytes of all entries."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The entry; None where there is none."""
        return self._values.get(key)

    def put(self, key: K, value: V, size: int) -> None:
        """Keep the entry, in the place of the oldest ones where there is no room."""
        self.forget(key)
        if size > self._most:
            return
        while self.size + size > self._most:
            self.forget(next(iter(self._values)))
        self._values[key] = value
        self._sizes[key] = size
        self.size += size

    def forget(self, key: K) -> None:
        """Remove the entry if it is there."""
        self._values.pop(key, None)
        self.size -= self._sizes.pop(key, 0)
