"""The figures in PostgreSQL of a range and of the one before it, merged.

Most of it is what it was when it was last asked for, so it is kept here by blocks of time, packed,
and only blocks in which a row has come or gone are read anew.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from feedsvc.operations.performance.figures import Figures, readable
from feedsvc.operations.performance.store import Store

_IN_A_RANGE: Final = 24
"""The number of blocks of a range and the one before it, more or less."""

_Block: TypeAlias = tuple[int, bool]
"""Its number, and whether it is of the range itself."""


class PastFigures(NamedTuple):
    """The range, as much of the time before it, and which rows are in there."""

    figures: Figures
    before: Figures
    ids: frozenset[str]


class PastRange:
    """A range of so many seconds."""

    def __init__(self, store: Store, seconds: int) -> None:
        self._store = store
        self._seconds = seconds
        self._size = 2 * seconds // _IN_A_RANGE
        self._kept: dict[_Block, tuple[frozenset[str], bytes]] = {}

    async def read(self, begins: float) -> PastFigures:
        """The figures from `begins` on, and of as many seconds before. Raises Problem."""
        async with self._store.reading() as reader:
            rows = await reader.listed(begins - self._seconds)
            blocks: dict[_Block, set[str]] = {}
            for name, at in rows:
                blocks.setdefault((int(at // self._size), at >= begins), set()).add(name)
            changed = {
                block: names for block, names in blocks.items() if not self._is_kept(block, names)
            }
            packed = await reader.figures([name for names in changed.values() for name in names])
        figures, before = await asyncio.to_thread(self._merged, blocks, changed, packed)
        return PastFigures(figures, before, frozenset(name for name, _ in rows))

    def _is_kept(self, block: _Block, names: set[str]) -> bool:
        return block in self._kept and self._kept[block][0] == names

    def _merged(
        self,
        blocks: Mapping[_Block, set[str]],
        changed: Mapping[_Block, set[str]],
        packed: Mapping[str, bytes],
    ) -> tuple[Figures, Figures]:
        figures, before = Figures(), Figures()
        kept: dict[_Block, tuple[frozenset[str], bytes]] = {}
        for block, names in blocks.items():
            if block in changed:
                merged = merge(names, packed)
                kept[block] = frozenset(names), merged.pack()
            else:
                kept[block] = self._kept[block]
                merged = Figures.unpack(kept[block][1])
            (figures if block[1] else before).merge(merged)
        self._kept = kept
        return figures, before


def merge(names: Iterable[str], packed: Mapping[str, bytes]) -> Figures:
    """The figures of these rows, as far as they can be read."""
    merged = Figures()
    for name in names:
        if name in packed:
            merged.merge(readable(name, packed[name]))
    return merged
