"""Entries in memory are bounded in bytes, with all that belongs to them."""

import gc

from aiohttp import web

from feedsvc.cache.memory import CacheEntry, Memory, ReadyAnswer, pages_share, requests_share
from feedsvc.core.bounded_mapping import BoundedMapping, RecentMapping
from feedsvc.settings import Server
from feedsvc.web.protocol.connection import ClientConnection
from feedsvc.web.protocol.server import FeedServer
from tests.unit import test_answer_order as order
from tests.unit.test_page import page


def test_the_oldest_entries_make_room() -> None:
    remembered: BoundedMapping[int, str] = BoundedMapping(100)
    for number in range(50):
        remembered.put(number, "x", 9)
        assert remembered.size <= 100
    assert [n for n in range(50) if remembered.get(n)] == list(range(39, 50))
    remembered.put(45, "y", 20)
    assert (remembered.get(45), remembered.size) == ("y", 92)


def test_the_least_recently_used_make_room() -> None:
    remembered: RecentMapping[int, str] = RecentMapping(3)
    for number in range(3):
        remembered.put(number, "x", 1)
    assert remembered.get(0) == "x"
    remembered.put(3, "x", 1)
    assert ([*remembered], remembered.size, remembered.evicted) == ([2, 0, 3], 3, 1)
    remembered.put(2, "y", 1)
    assert ([*remembered], remembered.get(1)) == ([0, 3, 2], None)
    remembered.clear()
    assert (len(remembered), remembered.size) == (0, 0)


def test_an_entry_that_is_larger_than_all_is_not_kept() -> None:
    remembered: BoundedMapping[int, str] = BoundedMapping(100)
    remembered.put(1, "x", 60)
    remembered.put(1, "y", 101)
    assert (len(remembered), remembered.size) == (0, 0)


def test_keys_and_heads_of_pages_count() -> None:
    plain = CacheEntry(page([b"{}"]), "k").size()
    assert CacheEntry(page([b"{}"]), "k" * 13_501).size() == plain + 13_500
    held = CacheEntry(page([b"{}"]), "k")
    held.answers["words", 200] = ReadyAnswer(b"x" * 700)
    assert held.size() >= plain + 700


def test_long_keys_throw_pages_out() -> None:
    memory = Memory(pages_share(4_000_000))
    for number in range(4_000):
        key = f"{number:05}" * 2_700
        memory.put(key, CacheEntry(page([b"{}"]), key))
    assert sum(len(key) for key in memory) < 4_000_000


def test_pages_and_requests_share_what_the_setting_gives() -> None:
    assert pages_share(1 << 26) + requests_share(1 << 26) == 1 << 26
    assert pages_share(0) == 0


async def test_a_connection_that_is_lost_waits_for_no_collector() -> None:
    """With requests that nobody has answered, and half of a head."""

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read())

    server = web.Server(handler, handler_cancellation=True)
    front = FeedServer(server, Server())
    gc.collect()
    gc.disable()
    try:
        connection = front()
        connection.connection_made(order.Transport())
        await order._settle()
        body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        connection.data_received(order._request("/cold") * 3 + body + b"123")
        connection.connection_lost(None)
        del connection
        await order._settle()
        assert not [each for each in gc.get_objects() if isinstance(each, ClientConnection)]
    finally:
        gc.enable()
