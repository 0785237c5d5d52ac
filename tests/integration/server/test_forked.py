"""Forked services behave as the command that production starts."""

import asyncio
import os
import re
import signal
from collections.abc import Callable

import psutil
import pytest

from feedsvc.core import identifiers
from tests.integration.commands.test_check import environment
from tests.support import forked
from tests.support.service import NO_REDIS, Running, serving


@pytest.mark.parametrize(
    ("workers", "is_forked"),
    [
        pytest.param(1, True, id="1-forked"),
        pytest.param(2, True, id="2-forked"),
        pytest.param(1, False, id="1-started", marks=pytest.mark.soak),
        pytest.param(2, False, id="2-started"),
    ],
)
async def test_a_service_ends_by_signal_with_status_0(
    world_url: str, workers: int, *, is_forked: bool
) -> None:
    settings = {**NO_REDIS, "FEEDSVC_SERVER__WORKERS": str(workers)}
    with serving(world_url, settings=settings, is_forked=is_forked) as running:
        children = psutil.Process(running.pid).children()
        assert len(children) == (0 if workers == 1 else workers)
        assert all(os.getsid(child.pid) == child.pid for child in children)
        assert os.getpgid(running.pid) == os.getpgid(0)
        running.terminate()
        assert await asyncio.to_thread(running.process.wait, 60) == 0
    assert not any(child.is_running() for child in children)
    assert any("drained" in line for line in running.log)


async def test_one_that_is_killed_has_that_signal_as_its_status(world_url: str) -> None:
    """As `Popen` has it."""
    with serving(world_url, settings=NO_REDIS) as running:
        running.process.kill()
        assert await asyncio.to_thread(running.process.wait, 60) == -signal.SIGKILL
        assert running.process.poll() == -signal.SIGKILL


def test_a_mistake_has_the_same_lines_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment("", FEEDSVC_SERVER__PORTS="1", FEEDSVC_LOG__LEVEL="LOUD")
    by_fork = forked.feedsvc("serve", env=env)
    monkeypatch.delenv(forked.ADDRESS)
    started = forked.feedsvc("serve", env=env)
    assert (by_fork.returncode, by_fork.stdout, by_fork.stderr) == (
        started.returncode, started.stdout, started.stderr
    )  # fmt: skip
    assert by_fork.returncode != 0


def test_a_variable_that_imports_may_read_asks_for_a_real_start() -> None:
    env = environment("")
    assert forked.may_be_forked(env)
    assert not forked.may_be_forked({**env, "PYTHONWARNINGS": "error"})
    assert not forked.may_be_forked({name: env[name] for name in env if name != "PATH"})


@pytest.mark.parametrize("named", [identifiers.new_hex, identifiers.new_uuid])
def test_a_forked_process_gives_names_of_its_own(named: Callable[[], str]) -> None:
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, named().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs, ours = os.read(read, 100).decode(), named()
    os.close(read)
    os.close(write)
    assert theirs != ours
    assert re.fullmatch(r"[0-9a-f-]{32,36}", theirs)


def test_tests_fork_by_default(service: Running) -> None:
    assert isinstance(service.process, forked.Forked)
