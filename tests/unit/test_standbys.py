"""Standbys are given to the pools of the primary, and only they stop being read from."""

from feedsvc.backends.postgres.pool import Operation, Pool, PoolSet
from feedsvc.backends.postgres.replicas import Replicas
from feedsvc.settings import Settings

URL = "postgresql://nowhere/app"
SETTINGS = Settings.model_validate({"database": {"url": URL, "replicas": [URL]}})


class Chosen:
    """Standbys that always have room, with the operations that they were asked for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.asked: list[Operation] = []

    def choose(self, operation: Operation) -> Pool | None:
        self.asked.append(operation)
        return self._pool


async def test_a_pool_of_the_primary_has_the_standbys_that_it_was_given() -> None:
    standby = Pool("bulk", SETTINGS.pools.bulk, SETTINGS.database)
    standbys = Chosen(standby)
    assert PoolSet(SETTINGS, standbys=standbys)["bulk"].standby() is standby
    assert standbys.asked == ["bulk"]
    assert standby.standby() is None


async def test_a_read_that_fails_on_a_standby_takes_it_out_of_use() -> None:
    (replica,) = Replicas(SETTINGS).all
    replica.pools["bulk"].failed()
    assert (replica.state, replica.fault) == ("away", "a read from it failed")


async def test_no_standby_is_chosen_for_writes() -> None:
    replicas = Replicas(SETTINGS)
    assert replicas.choose("write") is None
