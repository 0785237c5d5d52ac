"""Tickets that are made up cost a hash, and neither a connection nor a question."""

import time
from base64 import urlsafe_b64encode
from typing import Any, cast

import pytest

from feedsvc.access import tickets as module
from feedsvc.access.service_key import ServiceKey
from feedsvc.access.tickets import Tickets
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.redis.link import RedisLink
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Unauthorized

ANN = Principal("rosewood", "member", "7", 1e10, "ann", operator=True)
PATH = "/v1/feeds/clients"
KEY = ServiceKey(b"the key of these tests")


class Untouchable:
    """A pool that must not be asked for a connection."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


class OneShelf:
    """A Redis of one kind of value. What is kept there, the test may change."""

    prefix = "p"

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked = 0

    async def write(self, _verb: str, key: str, value: bytes, *_more: object) -> None:
        self.kept[key] = value

    async def ask(self, _verb: str, key: str) -> bytes | None:
        self.asked += 1
        return self.kept.pop(key, None)


def with_redis(key: ServiceKey = KEY) -> tuple[Tickets, OneShelf]:
    shelf = OneShelf()
    return Tickets(cast("Pool", Untouchable()), cast("RedisLink", shelf), key), shelf


async def test_a_ticket_gives_its_principal_back_once() -> None:
    tickets, shelf = with_redis()
    ticket = await tickets.issue(PATH, ANN)
    assert await tickets.redeem(ticket, PATH) == ANN
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await tickets.redeem(ticket, PATH)
    assert shelf.asked == 1, "a ticket that was used is not asked for again"


async def test_a_made_up_ticket_asks_no_store() -> None:
    tickets, shelf = with_redis()
    good = await tickets.issue(PATH, ANN)
    theirs = await with_redis(ServiceKey(b"another service's"))[0].issue(PATH, ANN)
    made_up = [
        "", "r", "p", "r" * 56, "p" * 56, "x" * 10_000, "pü" + "a" * 54,
        good[:-1], good + "A", "p" + good[1:], good[:5] + "AAAA" + good[9:], theirs,
        "p" + theirs[1:], "p" + urlsafe_b64encode(bytes(41)).rstrip(b"=").decode(), "\udcff" * 56,
    ]  # fmt: skip
    for ticket in made_up:
        with pytest.raises(Unauthorized):
            await tickets.redeem(ticket, PATH)
    with pytest.raises(Unauthorized):
        await tickets.redeem(good, "/v1/feeds/budgets")
    assert shelf.asked == 0
    assert await tickets.redeem(good, PATH) == ANN


async def test_a_ticket_that_is_long_over_asks_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets, shelf = with_redis()
    ticket = await tickets.issue(PATH, ANN)
    later = time.time() + module.LIFETIME + module._CLOCKS_APART + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unauthorized):
        await tickets.redeem(ticket, PATH)
    assert shelf.asked == 0


async def test_what_another_has_written_to_redis_is_no_ticket() -> None:
    """A writer there knows each ticket's name, and still has no seal."""
    tickets, shelf = with_redis()
    forger, forged = with_redis(ServiceKey(b"the forger's"))
    for value in (
        b"", b"{}", b'{"tenant": "lotus-and-vine", "role": "admin", "client": null}',
        b"x" * 16 + b'{"tenant": "lotus-and-vine", "role": "admin", "client": null}',
    ):  # fmt: skip
        ticket = await tickets.issue(PATH, ANN)
        shelf.kept = dict.fromkeys(shelf.kept, value)
        with pytest.raises(Unauthorized):
            await tickets.redeem(ticket, PATH)
    ticket = await tickets.issue(PATH, ANN)
    await forger.issue(PATH, ANN)
    (shelf.kept,) = [dict.fromkeys(shelf.kept, value) for value in forged.kept.values()]
    with pytest.raises(Unauthorized):
        await tickets.redeem(ticket, PATH)
    first, second = await tickets.issue(PATH, ANN), await tickets.issue("/v1/feeds/tasks", ANN)
    names, values = list(shelf.kept), list(shelf.kept.values())
    shelf.kept = dict(zip(names, reversed(values), strict=True))
    for ticket, path in ((first, PATH), (second, "/v1/feeds/tasks")):
        with pytest.raises(Unauthorized):
            await tickets.redeem(ticket, path)
