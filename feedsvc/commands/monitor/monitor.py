"""Looks at a service again and again, and shows or prints what it sees."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
from rich.console import Console
from rich.live import Live

from feedsvc.commands.monitor.history import RateHistory
from feedsvc.commands.monitor.screen import Screen
from feedsvc.commands.monitor.source import Glance, ServiceClient


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """Options of `feedsvc monitor`: `interval` in seconds, `count` None until Ctrl-C."""

    url: str
    token: str
    interval: float
    count: int | None


async def show(wish: MonitorOptions) -> bool:
    """Show it on the terminal; whether the last look was answered. Raises RefusedError."""
    answered = False
    console, history = Console(), RateHistory()
    plain = console.options.ascii_only
    with Live(console=console, screen=True, auto_refresh=False) as live:
        async for glance in _glances(wish):
            history.add(glance)
            size = console.size
            screen = Screen(wish.url, size.width, size.height, plain)
            live.update(screen.draw(glance, history), refresh=True)
            answered = bool(glance.answers)
    return answered


async def export(wish: MonitorOptions) -> bool:
    """Print a JSON object a line; whether the last look was answered. Raises RefusedError."""
    answered = False
    async for glance in _glances(wish):
        sys.stdout.write(orjson.dumps(glance.plain()).decode() + "\n")
        sys.stdout.flush()
        answered = bool(glance.answers)
    return answered


async def _glances(wish: MonitorOptions) -> AsyncIterator[Glance]:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(wish.url) as session:
        source, left = ServiceClient(session, wish.token), wish.count
        while left is None or left > 0:
            began = loop.time()
            yield await source.look()
            left = None if left is None else left - 1
            if left != 0:
                await asyncio.sleep(max(0.0, wish.interval - (loop.time() - began)))
