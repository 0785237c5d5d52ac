"""A Redis for a file's tests of limits and tickets."""

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RunningRedis, redis_running


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server
