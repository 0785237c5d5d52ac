"""The pages that were asked for most before a restart, read again before anybody asks."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from feedsvc.auth.principal import Principal
from feedsvc.cache.page import Key, Wanted
from feedsvc.redis_link import RedisAwayError, RedisLink

logger = logging.getLogger(__name__)

_INTERVAL: Final = 30.0  # seconds between notes; what was asked for before counts half as much
_MOST_KEPT: Final = 5_000
_A_DAY: Final = 86_400

Recipe = dict[str, Any]
"""What a page is made of, as plain values: `dataset`, `given` and `scope`."""


class Warmth:
    """Keeps in Redis which pages are hot, and gives them back at a start."""

    def __init__(self, link: RedisLink | None, most: int) -> None:
        self._link = link
        self._most = most
        self._scores: dict[Key, float] = {}
        self._recipes: dict[Key, Recipe] = {}
        self._own = uuid.uuid4().hex

    def note(
        self, wanted: Wanted, format_name: str, given: Mapping[str, str], principal: Principal
    ) -> None:
        """The page was asked for once more."""
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
        """Warms once, then notes what is hot until it is cancelled."""
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
        """Notes what is hot."""
        hottest = sorted(self._scores, key=self._scores.__getitem__, reverse=True)[: self._most]
        if self._link is None or not hottest:
            return
        body = orjson.dumps([(self._scores[key], self._recipes[key]) for key in hottest])
        name = self._name()
        try:
            await self._link.write("HSET", name, self._own, body)
            await self._link.write("EXPIRE", name, _A_DAY)
        except RedisAwayError:
            logger.debug("cache: what is hot was not noted")

    async def _hottest(self) -> list[Recipe]:
        """What all workers noted, the hottest first; it is taken away, to be noted anew."""
        if self._link is None or not self._most:
            return []
        try:
            noted = await self._link.ask("HVALS", self._name())
        except RedisAwayError:
            return []
        return _merged(noted if isinstance(noted, list) else ())[: self._most]

    def _cool(self) -> None:
        kept = {key: score / 2 for key, score in self._scores.items() if score >= 1.0}
        self._scores = kept
        self._recipes = {key: self._recipes[key] for key in kept}

    def _name(self) -> str:
        return f"{self._link.prefix if self._link else ''}:hottest"


def _merged(notes: Any) -> list[Recipe]:
    scores: dict[bytes, float] = {}
    for note in notes:
        try:
            for score, recipe in orjson.loads(note):
                plain = orjson.dumps(recipe, option=orjson.OPT_SORT_KEYS)
                scores[plain] = scores.get(plain, 0.0) + float(score)
        except (ValueError, TypeError):
            logger.warning("cache: a note of what is hot was passed over, for it is damaged")
    return [orjson.loads(p) for p in sorted(scores, key=scores.__getitem__, reverse=True)]
