"""The parts of a worker that checks read and repairs act on."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feedsvc.access.tokens import Tokens
from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.backends.redis.link import RedisLink
from feedsvc.cache.pages import Pages
from feedsvc.changes.log_reader import LogReader
from feedsvc.changes.refreshes import RefreshedView
from feedsvc.core.process import WorkerContext
from feedsvc.feeds.live.tail import Tail
from feedsvc.operations.event_loop import EventLoopMonitor
from feedsvc.operations.health.clock import Clock
from feedsvc.operations.health.disks import Disks
from feedsvc.operations.health.jobs import Jobs
from feedsvc.operations.health.log_watch import LogWatch
from feedsvc.operations.health.primary import Primary
from feedsvc.operations.health.view_watch import ViewWatch
from feedsvc.operations.machine import Machine
from feedsvc.operations.peers import Peers
from feedsvc.settings import Settings


@dataclass(frozen=True, slots=True)
class HealthContext:
    """The parts, and the state that health keeps beside them."""

    settings: Settings
    workplace: WorkerContext
    pools: PoolSet
    replicas: Replicas
    pages: Pages
    changes: LogReader
    tokens: Tokens
    link: RedisLink | None
    tail: Tail
    refreshed: Sequence[RefreshedView] = ()
    peers: Peers = field(init=False)
    primary: Primary = field(init=False)
    disks: Disks = field(init=False)
    log: LogWatch = field(init=False)
    views: ViewWatch = field(init=False)
    loop: EventLoopMonitor = field(default_factory=EventLoopMonitor, init=False)
    machine: Machine = field(default_factory=Machine, init=False)
    clock: Clock = field(default_factory=Clock, init=False)
    jobs: Jobs = field(default_factory=Jobs, init=False)

    def __post_init__(self) -> None:
        disks = self.settings.health.disks or (Path(tempfile.gettempdir()),)
        object.__setattr__(self, "peers", Peers(self.workplace))
        object.__setattr__(self, "primary", Primary(self.pools.servers))
        object.__setattr__(self, "disks", Disks(disks))
        object.__setattr__(self, "log", LogWatch(self.pools, self.settings.changes))
        object.__setattr__(self, "views", ViewWatch(self.pools, self.refreshed))

    async def close(self) -> None:
        """End what is under way."""
        await self.peers.close()
        await self.jobs.close()
        await self.primary.close()
