"""Subscribers that are slow, stalled, vanished, idle or at their end, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web

from feedsvc.core.problems import Reset
from feedsvc.settings import CallerLimits, Limits
from tests.support import sse
from tests.support.live import (
    LOOPS,
    LiveWorld,
    eventually,
    listen,
    live_world,
    on_loop,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)
SMALL = 4_096  # bytes that a slow client's kernel takes


def event(number: int, size: int = 20) -> bytes:
    return b"event: change\nid: %d\ndata: %b\n\n" % (number, b"x" * size)


def ids(body: bytes) -> list[str]:
    """The ids of a body's changes."""
    return [each.last_id for each in sse.parse(body).of_type("change")]


async def handed_over(world: LiveWorld, count: int = 1) -> None:
    await eventually(lambda: world.subscribers.count == count and world.connections == 0)


async def fill(world: LiveWorld, numbers: range, size: int = 4_000) -> None:
    """Publish events until no subscriber that does not read has room for another."""
    for number in numbers:
        world.broadcast.publish(event(number, size))
        await asyncio.sleep(0)


def test_a_slow_one_gets_all_from_the_ring_in_order_and_slows_none(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow, quick = await listen(world, receive_buffer=SMALL), await listen(world)
            await handed_over(world, 2)
            numbers = range(150)
            for number in numbers:
                world.broadcast.publish(event(number, 6_000))
                await quick.until(b"id: %d\n" % number)
            assert world.subscribers.is_sending()
            body = await slow.until(b"id: 149\n")
            await slow.until(b"x\n\n")
            assert ids(body)[:149] == [str(n) for n in numbers[:149]]
            assert world.behind == 0
            for each in (slow, quick):
                each.close()

    on_loop(loop, scenario)


def test_a_connection_that_is_paused_at_its_hand_over_stays_so(loop: str) -> None:
    size = 3_000_000

    def pause(request: web.Request) -> None:
        """Write more of the beginning than the kernel takes, as a body does that is behind."""
        assert request.transport is not None
        request.transport.set_write_buffer_limits(high=1)
        request.transport.write(b"%x\r\n%b\r\n" % (size, b"y" * size))

    async def scenario() -> None:
        async with live_world() as world:
            world.before_hand_over = pause
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            (subscriber,) = world.subscribers._subscribers
            for number in range(3):
                world.broadcast.publish(event(number))
            await eventually(lambda: not world.broadcast.has_waiting)
            assert subscriber.unsent() > 0
            assert subscriber.sent == 0
            body = await slow.until(b"id: 2\n")
            assert body == world.beginning + b"y" * size + b"".join(event(n) for n in range(3))
            slow.close()

    on_loop(loop, scenario)


def test_an_event_larger_than_all_buffers_arrives_whole(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            world.broadcast.publish(event(1, 700_000))
            world.broadcast.publish(event(2))
            await eventually(world.subscribers.is_sending)
            (subscriber,) = world.subscribers._subscribers
            assert subscriber.unsent() <= 32_768
            body = await slow.until(b"id: 2\n")
            assert body.startswith(world.beginning + event(1, 700_000))
            slow.close()

    on_loop(loop, scenario)


def test_one_that_is_behind_the_ring_gets_what_stands_in_the_place_of_it(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            await fill(world, range(1_000))
            assert world.broadcast.first > 500
            world.may_catch_up.clear()
            reading = asyncio.create_task(slow.until(b"id: net\n"))
            await eventually(lambda: len(world.caught_up) == 1)
            world.broadcast.publish(event(1_000))  # which the net events have
            world.may_catch_up.set()
            await reading
            world.broadcast.publish(event(1_001))
            found = ids(await slow.until(b"id: 1001\n") + b"\n\n")
            place = found.index("net")
            assert found[:place] == [str(n) for n in range(place)]
            assert world.caught_up == [place]
            assert found[place + 1 :] == ["1001"]
            assert world.behind == 1
            slow.close()

    on_loop(loop, scenario)


@pytest.mark.parametrize("how", ["large", "reset", "fails", "stays"])
def test_one_that_can_not_catch_up_is_to_come_back(loop: str, how: str) -> None:
    async def catch_up(number: int) -> tuple[Sequence[bytes], int]:
        if how == "reset":
            raise Reset("expired")
        if how == "fails":
            raise RuntimeError(how)
        return ([], number) if how == "stays" else ([event(0, 70_000)], number + 1)

    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            await fill(world, range(1_000))
            world.__dict__["catch_up"] = catch_up
            parsed = sse.parse(await slow.to_the_end())
            assert slow.is_whole
            last = parsed.events[-1]
            assert (last.type, last.data) == ("end", '{"reason":"behind"}')
            assert last.last_id == str(world.caught_up[0] - 1), "so nothing is lost"
            slow.close()
            await eventually(lambda: world.subscribers.count == 0)
            assert world.reasons == ["behind"]

    on_loop(loop, scenario)


def test_one_that_leaves_while_it_catches_up_is_forgotten(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            await fill(world, range(1_000))
            world.may_catch_up.clear()
            reading = asyncio.create_task(slow.to_the_end())
            await eventually(lambda: len(world.caught_up) == 1)
            reading.cancel()
            await asyncio.wait([reading])
            slow.close()
            await eventually(lambda: world.subscribers.count == 0)
            world.may_catch_up.set()
            await eventually(lambda: not world.subscribers._catching_up)

    on_loop(loop, scenario)


@pytest.mark.parametrize(
    ("events", "ping"), [(20, 1), (600, 3_600)], ids=["in the kernel", "in the process"]
)
def test_one_that_takes_nothing_is_cut_and_one_that_takes_little_is_not(
    loop: str, events: int, ping: int
) -> None:
    async def scenario() -> None:
        async with live_world(stall_timeout=2, ping_interval=ping) as world:
            stalled = await listen(world, receive_buffer=SMALL)
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world, 2)
            await fill(world, range(events))

            async def read_little() -> None:
                while world.reasons != ["stalled"]:
                    await slow.reader.read(600)
                    await asyncio.sleep(0.05)

            reading = asyncio.create_task(read_little())
            await eventually(lambda: world.reasons == ["stalled"])
            await eventually(lambda: world.subscribers.count == 1)
            assert [each.result for each in world.ended] == ["cancelled"]
            await reading
            for each in (stalled, slow):
                each.close()

    on_loop(loop, scenario)


def test_an_idle_one_has_a_heartbeat_with_the_newest_id(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=0.5) as world:
            listener = await listen(world)
            await handed_over(world)
            world.broadcast.publish(event(0))
            world.broadcast.publish(event(1))
            body = await listener.until(b"event: sync\nid: 2\n")
            assert ids(body) == ["0", "1"]
            listener.body = b""
            await listener.until(b"event: sync\nid: 2\n")
            assert world.reasons == []
            listener.close()

    on_loop(loop, scenario)


def test_one_that_is_behind_has_no_heartbeat_before_its_events(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=0.3) as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            await fill(world, range(100))
            await asyncio.sleep(1)  # several heartbeats were due
            body = await slow.until(b"id: 99\n")
            before = sse.parse(body[: body.index(b"id: 99\n")])
            assert [each for each in before.of_type("sync") if each.last_id == "100"] == []
            await slow.until(b"event: sync\nid: 100\n")
            slow.close()

    on_loop(loop, scenario)


def test_connections_rotate_with_a_clean_end_and_a_retry_at_random(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(rotate_after=0.5, ping_interval=3_600) as world:
            world.broadcast.publish(event(7))  # before the first of them may have rotated
            listeners = [await listen(world) for _ in range(8)]
            retries = set()
            for listener in listeners:
                parsed = sse.parse(await listener.to_the_end())
                assert listener.is_whole
                assert b"Connection: close" in listener.head
                assert [e.type for e in parsed.events[-2:]] == ["sync", "end"]
                last = parsed.events[-1]
                assert (last.data, last.last_id) == ('{"reason":"rotation"}', "1")
                assert parsed.retry is not None
                retries.add(parsed.retry)
                listener.close()
            assert len(retries) > 1
            assert all(1_000 <= retry < 30_000 for retry in retries)
            await eventually(lambda: world.subscribers.count == 0)
            assert {each.result for each in world.ended} == {"complete"}

    on_loop(loop, scenario)


def test_a_stream_ends_with_its_token(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=3_600) as world:
            world.token_seconds = 0.5
            listener = await listen(world)
            last = sse.parse(await listener.to_the_end()).events[-1]
            assert (last.type, last.data) == ("end", '{"reason":"token"}')
            assert listener.is_whole
            listener.close()
            await eventually(lambda: world.reasons == ["token"])

    on_loop(loop, scenario)


def test_a_stream_ends_where_the_quota_does(loop: str) -> None:
    async def scenario() -> None:
        few = Limits(member=CallerLimits(bytes_per_hour=50_000))
        async with live_world(limits=few, ping_interval=0.3) as world:
            listener = await listen(world)
            await handed_over(world)
            world.broadcast.publish(event(1, 100_000))
            last = sse.parse(await listener.to_the_end()).events[-1]
            assert (last.type, last.data) == ("end", '{"reason":"limits"}')
            listener.close()

    on_loop(loop, scenario)


def test_a_drain_ends_all_and_waits_for_them(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listeners = [await listen(world) for _ in range(300)]
            await handed_over(world, 300)
            world.broadcast.publish(event(1))
            draining = asyncio.create_task(world.drain.run(60))
            for listener in listeners:
                parsed = sse.parse(await listener.to_the_end())
                assert [e.type for e in parsed.events[-2:]] == ["sync", "end"]
                assert parsed.events[-1].data == '{"reason":"draining"}'
                assert parsed.of_type("change")
                assert listener.is_whole
                listener.close()
            await asyncio.wait_for(draining, 60)
            assert world.subscribers.count == 0

    on_loop(loop, scenario)


def test_a_hand_over_to_other_workers_ends_all_and_those_that_come(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            first = await listen(world)
            await handed_over(world)
            world.drain.announce()
            world.broadcast.publish(event(1))
            await first.until(b"id: 1\n")
            assert world.reasons == [], "while it is only announced, it goes on"
            world.drain.leave()
            second = await listen(world)
            for listener in (first, second):
                parsed = sse.parse(await listener.to_the_end())
                assert parsed.events[-1].data == '{"reason":"draining"}'
                listener.close()

    on_loop(loop, scenario)


def test_one_that_does_not_take_its_last_words_is_cut_at_the_drain_s_end(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            await fill(world, range(50))
            await asyncio.wait_for(world.drain.run(0.3), 60)
            assert world.subscribers.count == 0
            slow.close()

    on_loop(loop, scenario)


def test_a_second_signal_still_says_so(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            await handed_over(world)
            interrupting = asyncio.create_task(world.drain.interrupt_all())
            parsed = sse.parse(await listener.to_the_end())
            assert parsed.events[-1].data == '{"reason":"draining"}'
            listener.close()
            await interrupting

    on_loop(loop, scenario)


def test_the_end_waits_for_the_event_that_is_being_sent(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            world.broadcast.publish(event(1, 1_000_000))
            world.broadcast.publish(event(2, 1_000))
            await eventually(world.subscribers.is_sending)
            world.drain.leave()
            parsed = sse.parse(await slow.to_the_end())
            assert [(e.type, len(e.data)) for e in parsed.of_type("change")] == [
                ("change", 1_000_000)
            ]
            last = parsed.events[-1]
            assert (last.type, last.last_id) == ("end", "1"), "so the second is not lost"
            assert slow.is_whole
            slow.close()

    on_loop(loop, scenario)


def test_a_client_that_does_not_close_behind_the_last_words_is_closed(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=3_600) as world:
            listener = await listen(world)
            await handed_over(world)
            world.broadcast.end(b"event: reset\ndata: {}\n\n")
            await listener.to_the_end()
            await eventually(lambda: world.subscribers.count == 0)
            assert [each.result for each in world.ended] == ["complete"]
            listener.close()

    on_loop(loop, scenario)


def test_those_that_end_together_come_back_at_different_times(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=3_600) as world:
            listeners = [await listen(world) for _ in range(8)]
            await handed_over(world, 8)
            world.broadcast.end(b"event: reset\nid: reset\ndata: {}\n\n")
            retries = {sse.parse(await listener.to_the_end()).retry for listener in listeners}
            assert len(retries) > 1
            assert all(retry is not None and retry >= 1_000 for retry in retries)
            for listener in listeners:
                listener.close()
            drawn = [world.subscribers.retry_ms(5_000) for _ in range(200)]
            assert max(drawn) > 15_000, "more of them, over a longer time"

    on_loop(loop, scenario)


def test_a_broadcast_that_fails_breaks_its_answers_off(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            await handed_over(world)
            world.broadcast.end(b"event: error\ndata: {}\n\n", "not-set-up")
            assert (await listener.to_the_end()).endswith(b"event: error\ndata: {}\n\n")
            assert not listener.is_whole
            listener.close()
            await eventually(lambda: len(world.ended) == 1)
            assert (world.ended[0].result, world.ended[0].why) == ("failed", "not-set-up")

    on_loop(loop, scenario)


def test_one_that_fails_while_the_process_leaves_is_one_that_failed(loop: str) -> None:
    async def scenario() -> None:
        async with live_world() as world:
            listener = await listen(world)
            await handed_over(world)
            world.broadcast.end(b"event: error\ndata: {}\n\n", "not-set-up")
            world.drain.leave()  # before the round that brings the event
            assert (await listener.to_the_end()).endswith(b"event: error\ndata: {}\n\n")
            assert not listener.is_whole
            listener.close()
            await eventually(lambda: len(world.ended) == 1)
            assert (world.reasons, world.ended[0].why) == (["closed"], "not-set-up")

    on_loop(loop, scenario)


def test_a_large_event_is_not_kept_for_a_stalled_one_alone(loop: str) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=0.3) as world:
            slow = await listen(world, receive_buffer=SMALL)
            await handed_over(world)
            world.broadcast.publish(event(1, 900_000))
            await eventually(world.subscribers.is_sending)
            world.broadcast.publish(event(2, 900_000))  # the ring has no room for both
            await eventually(lambda: world.subscribers.count == 0)
            slow.close()

    on_loop(loop, scenario)


def test_a_channel_whose_heartbeat_fails_ends_no_other(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with live_world(ping_interval=0.3) as world:
            first = await listen(world)
            await handed_over(world)
            (broken,) = world.subscribers._subscribers

            def fail() -> bytes:
                raise RuntimeError("no heartbeat")

            broken.channel.__dict__["heartbeat"] = fail
            second = await listen(world)
            await second.until(b"event: sync")
            await eventually(lambda: world.subscribers.count == 1)
            for each in (first, second):
                each.close()

    on_loop(loop, scenario)
    assert "a look at a subscriber failed, so it is cut" in caplog.text
