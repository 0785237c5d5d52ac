"""The service's own endpoints, requested all at once for the monitor."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from feedsvc.core.json_object import Json

_DEADLINE: Final = 3.0  # seconds
_PATHS: Final[Mapping[str, str]] = {
    "metrics": "/api/performance/metrics?range=1h",
    "pools": "/api/performance/pools",
    "cache": "/api/performance/cache",
    "health": "/api/performance/health",
    "alerts": "/api/performance/alerts",
}


class RefusedError(Exception):
    """The service refused: the token is not an operator's, or not valid."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The answers at one moment (seconds since 1970), and the reasons of those that failed."""

    at: float
    answers: Mapping[str, Json] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> Json:
        """As a JSON object."""
        return {"at": round(self.at, 3), **self.answers, "faults": dict(self.faults)}


class ServiceClient:
    """A service, to be asked again and again."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"}

    async def look(self) -> Glance:
        """Its present answers. Raises RefusedError."""
        at = time.time()
        answers = await asyncio.gather(*(self._ask(path) for path in _PATHS.values()))
        named = dict(zip(_PATHS, answers, strict=True))
        return Glance(
            at,
            answers={name: answer for name, answer in named.items() if isinstance(answer, dict)},
            faults={name: answer for name, answer in named.items() if isinstance(answer, str)},
        )

    async def _ask(self, path: str) -> Json | str:
        """The answer, or why there is none."""
        try:
            async with (
                asyncio.timeout(_DEADLINE),
                self._session.get(path, headers=self._headers, allow_redirects=False) as answer,
            ):
                if answer.status in (401, 403):
                    raise RefusedError(await _detail(answer))
                if answer.status != 200:
                    return await _detail(answer)
                answered: Json = await answer.json()
                return answered
        except TimeoutError:
            return f"no answer within {_DEADLINE:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__


async def _detail(answer: aiohttp.ClientResponse) -> str:
    try:
        problem = await answer.json(content_type=None)
        return f"{answer.status}: {problem['detail']}"
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return f"{answer.status}: {answer.reason}"
