"""Claims of pages whose request leaves before Redis has answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from feedsvc.backends.redis.link import RedisAwayError
from feedsvc.cache.redis_store import RedisStore

if TYPE_CHECKING:
    from feedsvc.cache.envelope import PageKey

DEADLINE = 60.0
KEY: PageKey = "key"


class HeldLink:
    """A link whose claims are answered when the test says so, and that records what is asked."""

    prefix = "test"

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.written = asyncio.Event()
        self.owner: object = None
        self.asked: list[tuple[object, ...]] = []

    async def write(self, *command: str | bytes | int) -> Any:
        self.owner = command[5]
        self.written.set()
        return await self.answer

    async def ask(self, *command: str | bytes | int) -> Any:
        self.asked.append(command[3:])
        return 1


async def cancelled(link: HeldLink) -> asyncio.Task[Any]:
    """A claim that was sent, and cancelled before its answer."""
    claiming = asyncio.create_task(RedisStore(cast("Any", link)).claim(KEY))
    await asyncio.wait_for(link.written.wait(), DEADLINE)
    claiming.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert link.asked == [], "a release could overtake the claim"
    return claiming


async def ended(claiming: asyncio.Task[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(claiming, DEADLINE)


async def test_a_claim_that_is_cancelled_is_released_behind_its_answer() -> None:
    link = HeldLink()
    claiming = await cancelled(link)
    link.answer.set_result([1, None])
    await ended(claiming)
    ((name, owner, lasts),) = link.asked
    assert str(name).endswith(":claim")
    assert (owner, lasts) == (link.owner, 0)


@pytest.mark.parametrize("answer", [[0, b"envelope"], RedisAwayError()])
async def test_what_was_not_granted_is_not_released(answer: object) -> None:
    link = HeldLink()
    claiming = await cancelled(link)
    if isinstance(answer, Exception):
        link.answer.set_exception(answer)
    else:
        link.answer.set_result(answer)
    await ended(claiming)
    assert link.asked == []


async def test_one_that_is_cancelled_again_waits_no_longer() -> None:
    """As where the cache is closed while Redis is silent."""
    link = HeldLink()
    claiming = await cancelled(link)
    claiming.cancel()
    await ended(claiming)
    assert link.answer.cancelled()
