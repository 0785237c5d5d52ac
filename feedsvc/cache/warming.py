"""The pages that were asked for most before a restart, read again right after it."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from feedsvc.backends.redis.link import RedisAwayError, RedisLink
from feedsvc.cache.envelope import PageKey, PageRequest
from feedsvc.core.principal import Principal

logger = logging.getLogger(__name__)

_INTERVAL: Final = 30.0  # seconds between notes; what was asked for before counts half as much
_MOST_KEPT: Final = 5_000
_A_DAY: Final = 86_400

Recipe = dict[str, Any]
"""The request for a page as plain values: `dataset`, `given` and `scope`."""


class Warmth:
    """The list of the hottest pages, kept in Redis from one start to the next."""

    def __init__(self, link: RedisLink | None, most: int) -> None:
        self._link = link
        self._most = most
        self._scores: dict[PageKey, float] = {}
        self._recipes: dict[PageKey, Recipe] = {}
        self._own = uuid.uuid4().hex

    def note(
        self, wanted: PageRequest, format_name: str, given: Mapping[str, str], principal: Principal
    ) -> None:
        """Count a request for the page."""
        score = self._scores.get(wanted.key)
        if score is not None:
            self._scores[wanted.key] = score + 1.0
        elif self._link is not None and self._most and len(self._scores) < _MOST_KEPT:
            self._scores[wanted.key] = 1.0
            self._recipes[wanted.key] = {
                "dataset": wanted.dataset.name,
                "given": {k: v for k, v in given.items() if k != "export"}
                | {"format": format_name},
                "scope": principal.scope,
            }

    async def run(self, warm: Callable[[Recipe], Awaitable[None]]) -> None:
        """Warm the cache once, then note the hottest pages until cancelled."""
        for recipe in await self._hottest():
            try:
                await warm(recipe)
            except Exception as error:  # noqa: BLE001 - what can't be had now is read when asked for
                logger.info("cache: a page was not warmed: %s", type(error).__name__)
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.write()
            self._cool()

    async def write(self) -> None:
        """Write down the hottest pages."""
        hottest = sorted(self._scores, key=self._scores.__getitem__, reverse=True)[: self._most]
        if self._link is None or not hottest:
            return
        scored = [(self._scores[key], self._recipes[key]) for key in hottest]
        body = orjson.dumps({"at": time.time(), "pages": scored})
        name = self._name()
        try:
            await self._link.write("HSET", name, self._own, body)
            await self._link.write("EXPIRE", name, _A_DAY)
        except RedisAwayError:
            logger.debug("cache: the hottest pages were not noted")

    async def _hottest(self) -> list[Recipe]:
        """The hottest pages of all workers, hottest first. Notes of ended workers are deleted."""
        if self._link is None or not self._most:
            return []
        name = self._name()
        try:
            noted = _pairs(await self._link.ask("HGETALL", name))
            old = [owner for owner, note in noted if _pages_of(note) is None]
            if old:
                await self._link.write("HDEL", name, *old)
        except RedisAwayError:
            return []
        return _merged(note for _, note in noted)[: self._most]

    def _cool(self) -> None:
        kept = {key: score / 2 for key, score in self._scores.items() if score >= 1.0}
        self._scores = kept
        self._recipes = {key: self._recipes[key] for key in kept}

    def _name(self) -> str:
        return f"{self._link.prefix if self._link else ''}:hottest"


def _pairs(answer: object) -> list[tuple[bytes, bytes]]:
    """A hash's fields and values, which come one after the other."""
    listed = answer if isinstance(answer, list) else []
    return list(zip(listed[::2], listed[1::2], strict=False))


def _pages_of(note: bytes) -> list[tuple[float, Recipe]] | None:
    """The pages with their scores; None where the note is damaged, or of long ago."""
    try:
        plain = orjson.loads(note)
        if time.time() - float(plain["at"]) > _A_DAY:
            return None
        return [(float(score), dict(recipe)) for score, recipe in plain["pages"]]
    except (ValueError, TypeError, KeyError):
        logger.warning("cache: a damaged note of the hottest pages was passed over")
        return None


def _merged(notes: Iterable[bytes]) -> list[Recipe]:
    scores: dict[bytes, float] = {}
    for note in notes:
        for score, recipe in _pages_of(note) or ():
            plain = orjson.dumps(recipe, option=orjson.OPT_SORT_KEYS)
            scores[plain] = scores.get(plain, 0.0) + score
    return [orjson.loads(p) for p in sorted(scores, key=scores.__getitem__, reverse=True)]
