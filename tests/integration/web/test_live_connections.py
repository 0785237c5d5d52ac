"""Connections that outlive their requests, over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from feedsvc.settings import CallerLimits, Limits
from feedsvc.web.live.subscriber import LiveSubscriber
from tests.support.live import LOOPS, eventually, listen, live_world, on_loop

if TYPE_CHECKING:
    from aiohttp import web

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def event(number: int, size: int = 20) -> bytes:
    return b"event: change\nid: %d\ndata: %b\n\n" % (number, b"x" * size)


def one_limit(streams: int) -> Limits:
    """So many streams for the caller."""
    return Limits(member=CallerLimits(streams=streams))


def test_a_subscriber_gets_what_is_published_and_costs_no_task(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            before = len(asyncio.all_tasks())
            listeners = [await listen(world) for _ in range(5)]
            await eventually(lambda: world.subscribers.count == 5 and world.connections == 0)
            await eventually(lambda: len(asyncio.all_tasks()) == before)
            assert (world.counted, world.ended) == (5, [])
            for number in range(3):
                world.broadcast.publish(event(number))
            for listener in listeners:
                body = await listener.until(b"id: 2")
                assert body == world.beginning + event(0) + event(1) + event(2)
                listener.close()
            await eventually(lambda: world.subscribers.count == 0)
            assert (world.counted, world.broadcast.count) == (0, 0)

    on_loop(loop, scenario)


def test_what_is_published_between_hand_over_and_release_arrives_by_itself(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:

            async def publish() -> None:
                world.broadcast.publish(event(1))

            world.behind_hand_over = publish
            listener = await listen(world)
            assert await listener.until(b"id: 1") == world.beginning + event(1)
            listener.close()

    on_loop(loop, scenario)


def test_the_request_ends_with_the_stream_and_not_with_its_handler(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            world.broadcast.publish(event(1))
            await listener.until(b"id: 1")
            assert world.ended == []
            clock = asyncio.get_running_loop().time
            received = clock()
            await eventually(lambda: clock() > received)  # uvloop's clock counts milliseconds
            listener.close()
            await eventually(lambda: len(world.ended) == 1)
            (ended,) = world.ended
            assert (ended.status, ended.result, ended.route) == (499, "cancelled", "/live")
            assert ended.size >= len(event(1))
            assert 0 < ended.followed <= ended.seconds
            assert world.reasons == ["left"]

    on_loop(loop, scenario)


def test_nothing_of_the_request_stays_in_memory(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            requests: list[weakref.ref[web.Request]] = []
            answer = world.answer

            async def remember() -> None:
                task = asyncio.current_task()
                assert task is not None
                frame = task.get_stack()[-1]
                requests.append(weakref.ref(frame.f_locals["request"]))

            world.behind_hand_over = remember
            assert answer is not None
            listener = await listen(world)
            await eventually(lambda: world.connections == 0)
            await eventually(lambda: gc.collect() >= 0 and requests[0]() is None)
            kept = [each for each in gc.get_objects() if isinstance(each, LiveSubscriber)]
            assert len(kept) == 1
            listener.close()

    on_loop(loop, scenario)


def test_limits_count_a_subscriber_until_it_ends(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(limits=one_limit(2)) as world:
            first, second = await listen(world), await listen(world)
            await eventually(lambda: world.connections == 0)
            refused = await asyncio.open_connection(*world.url)
            refused[1].write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 429 " in await refused[0].readline()
            refused[1].close()
            first.close()
            await eventually(lambda: world.subscribers.count == 1)
            third = await listen(world)
            for each in (second, third):
                each.close()

    on_loop(loop, scenario)


@pytest.mark.parametrize("is_late", [True, False])
def test_the_service_refuses_one_too_many_with_503(loop: str, is_late: bool) -> None:
    async def scenario() -> None:
        async with live_world(subscribers=2 if is_late else 1) as world:
            first = await listen(world)
            if is_late:
                world.subscribers._wheel.lateness = 1_000.0  # and takes a while to fall off
            await eventually(lambda: world.connections == 0)
            reader, writer = await asyncio.open_connection(*world.url)
            writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 503 " in head
            assert b"Retry-After: " in head
            writer.close()
            first.close()

    on_loop(loop, scenario)


def test_requests_behind_a_live_one_are_discarded(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            pages = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" * 3
            listener = await listen(world, behind=pages)
            listener.writer.write(pages)
            await eventually(lambda: world.connections == 0)
            world.broadcast.publish(event(1))
            world.broadcast.end(b"event: reset\ndata: {}\n\n")
            body, _, retry = (await listener.to_the_end()).partition(b"retry: ")
            assert body == world.beginning + event(1) + b"event: reset\ndata: {}\n\n"
            assert retry.rstrip().isdigit()
            assert listener.is_whole
            listener.close()

    on_loop(loop, scenario)


def test_a_client_that_floods_is_cut(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            await eventually(lambda: world.connections == 0)
            listener.writer.write(b"x" * 2_000_000)
            await eventually(lambda: world.subscribers.count == 0)
            listener.close()

    on_loop(loop, scenario)


def test_a_client_that_closes_its_side_has_left(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            await eventually(lambda: world.connections == 0)
            listener.writer.write_eof()
            await eventually(lambda: world.subscribers.count == 0)
            listener.close()

    on_loop(loop, scenario)


def test_a_handler_that_fails_behind_the_hand_over_leaves_nothing_counted(loop: str) -> None:
    async def fail() -> None:
        raise ConnectionResetError

    async def scenario() -> None:
        async with live_world(limits=one_limit(1)) as world:
            world.behind_hand_over = fail
            for _ in range(3):
                listener = await listen(world)
                await listener.to_the_end()
                listener.close()
                await eventually(lambda: world.subscribers.count == 0 == world.counted)
            assert not world.drain.running_now

    on_loop(loop, scenario)


def test_a_client_that_leaves_between_hand_over_and_release_leaves_nothing(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(limits=one_limit(1)) as world:
            waits = asyncio.Event()

            async def wait() -> None:
                waits.set()
                await asyncio.Event().wait()

            world.behind_hand_over = wait
            for _ in range(3):
                listener = await listen(world)
                await waits.wait()
                waits.clear()
                assert world.subscribers.count == 1
                listener.close()
                await eventually(lambda: world.subscribers.count == 0 == world.counted)

    on_loop(loop, scenario)


def test_the_service_answers_on_beside_its_subscribers(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            reader, writer = await asyncio.open_connection(*world.url)
            for _ in range(3):
                writer.write(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(4) == b"page"
            writer.close()
            listener.close()

    on_loop(loop, scenario)


def test_connections_that_cannot_be_handed_over_are_served_by_their_handlers(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(is_extended=False, limits=one_limit(2)) as world:
            first, second = await listen(world), await listen(world)
            world.broadcast.publish(event(1))
            await first.until(b"id: 1")
            first.close()
            await eventually(lambda: world.subscribers.count == 1)
            world.broadcast.end(b"event: reset\ndata: {}\n\n")
            assert b"event: reset\ndata: {}\n\nretry: " in await second.to_the_end()
            second.close()
            await eventually(lambda: world.subscribers.count == 0 == world.connections)
            await eventually(lambda: len(world.ended) == 2)
            assert sorted(each.result for each in world.ended) == ["cancelled", "complete"]
            third = await listen(world)
            third.close()

    on_loop(loop, scenario)
