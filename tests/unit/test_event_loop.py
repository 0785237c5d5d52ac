"""The event loop's monitor: health, readiness, metrics and sampling read the same lags."""

import asyncio
import time

from feedsvc.operations.event_loop import EventLoopMonitor

BLOCKED = 0.5  # seconds


async def test_a_blocked_loop_is_seen_at_once_and_reported_once() -> None:
    monitor = EventLoopMonitor()
    woke = asyncio.Event()
    seen: list[float] = []

    def on_wake(lag: float, now: float) -> None:
        assert now <= time.monotonic()
        seen.append(lag)
        woke.set()

    monitor.on_wake = on_wake
    running = asyncio.create_task(monitor.run())
    await asyncio.wait_for(woke.wait(), 30)
    before = time.monotonic()
    time.sleep(BLOCKED)
    overdue = monitor.worst()
    assert overdue >= BLOCKED - 0.2, "it is late now, though it has not woken yet"
    woke.clear()
    await asyncio.wait_for(woke.wait(), 30)
    running.cancel()
    late = [lag for lag in monitor.since(before) if lag >= BLOCKED - 0.2]
    assert late == [lag for lag in seen[1:] if lag >= BLOCKED - 0.2] != []
    assert monitor.since(time.monotonic()) == []
    assert monitor.worst() >= max(seen)
