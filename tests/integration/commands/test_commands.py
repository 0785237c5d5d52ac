"""The console commands around the service: settings, tokens, the state of the migrations."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import aiohttp
import asyncpg
import jwt
import pytest

from feedsvc.commands import main
from tests.integration.commands.test_check import environment
from tests.support.servers import as_login
from tests.support.service import KEY, REPOSITORY

NOWHERE = "postgresql://feedsvc:s3cret@127.0.0.1:1/nothing?password=s3cret"
SECRETS = ("s3cret", KEY, "r3dis")


@dataclass(frozen=True)
class Done:
    """A command's exit status and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def feedsvc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the console script's function with these arguments, in an environment of its own.

    A process for each would be nothing but imports; test_check.py starts real ones.
    """
    monkeypatch.chdir(REPOSITORY)

    def run(*arguments: str, env: Mapping[str, str]) -> Done:
        argv = ["feedsvc", *arguments]
        with (
            mock.patch.dict(os.environ, env, clear=True),
            mock.patch.object(sys, "argv", argv),
            # The loop of this thread belongs to the tests.
            ThreadPoolExecutor(1) as thread,
        ):
            error = thread.submit(main.main).exception()
        assert error is None or isinstance(error, SystemExit), error
        status = error.code if isinstance(error, SystemExit) else 0
        return Done(int(status or 0), *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("toml", "variables", "lines"),
    [
        (
            "[servers]\nport = 1\n[server]\nprot = 1\nworkers = 0\n[pools.read]\nsize = 0\n",
            {},
            ["{file}: servers: there is no such setting",
             "{file}: server.prot: there is no such setting",
             "{file}: server.workers: ", "{file}: pools.read.size: "],
        ),
        ("[server\n", {}, ["{file}: "]),
        (None, {}, ["{file}: there is no such settings file"]),
        (
            "",
            {"FEEDSVC_SERVER__PROT": "1", "FEEDSVC_STREAM__PAGE_SIZE": "1"},
            ["FEEDSVC_SERVER__PROT: there is no such setting",
             "FEEDSVC_STREAM__PAGE_SIZE: there is no such setting"],
        ),
        (
            "",
            {"FEEDSVC_SERVER_WORKERS": "1", "FEEDSVC_POOLS_READ__SIZE": "1",
             "FEEDSVC_REDIS_URL": "redis://:r3dis@a",
             # As Kubernetes sets them for services named feedsvc, feedsvc-server.
             "FEEDSVC_SERVICE_HOST": "10.0.0.1", "FEEDSVC_SERVER_PORT": "tcp://10.0.0.2:80"},
            ["FEEDSVC_SERVER_WORKERS: there is no such setting; write FEEDSVC_SERVER__WORKERS",
             "FEEDSVC_REDIS_URL: there is no such setting; write FEEDSVC_REDIS__URL",
             "FEEDSVC_POOLS_READ__SIZE: there is no such setting; write FEEDSVC_POOLS__READ__SIZE"],
        ),
        (
            "",
            {"FEEDSVC_STREAMS__PAGE_SIZE": "many", "FEEDSVC_POOLS__READ__SIZE": "-1"},
            ["FEEDSVC_STREAMS__PAGE_SIZE: ", "FEEDSVC_POOLS__READ__SIZE: "],
        ),
        (
            "",
            {"FEEDSVC_AUTH__KEY": "short"},
            ["auth.key has no usable key: a secret must be at least 32 bytes long"],
        ),
        (
            '[redis]\nurl = "redis+sentinel://:r3dis@a"',
            {},
            ["{file}: redis.url: Value error, redis.url names no service: write redis+sentinel://"],
        ),
        (
            "",
            {"REDIS_URL": "redis://:r3dis/@a"},
            ["REDIS_URL: Value error, redis.url has a character that a password must write as %2F"],
        ),
        (
            "",
            {"FEEDSVC_REDIS__URL": "http://r3dis@a", "REDIS_URL": "redis://a"},
            ["FEEDSVC_REDIS__URL: Value error, redis.url must begin with redis://, rediss://"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_stops_the_start_by_name(
    feedsvc: Command,
    tmp_path: Path,
    toml: str | None,
    variables: dict[str, str],
    lines: list[str],
) -> None:
    file = tmp_path / "own.toml"
    if toml is not None:
        file.write_text(toml)
    (tmp_path / "datasets.toml").touch()
    done = feedsvc("check", "--config", str(file), env=environment(NOWHERE, **variables))
    assert (done.returncode, done.stdout) == (1, "")
    # Settings that can be read are held against the database too.
    said = [line for line in done.stderr.splitlines() if "does not answer" not in line]
    for line in lines:
        start = f"feedsvc: {line.format(file=file)}"
        assert sum(given.startswith(start) for given in said) == 1, said
    assert len(said) == len(lines)
    assert not any(secret in done.stderr for secret in SECRETS)


def test_a_database_that_does_not_answer_is_named_without_its_password(feedsvc: Command) -> None:
    done = feedsvc("check", env=environment(NOWHERE))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("feedsvc: ")
    assert "s3cret" not in done.stderr


def test_the_version_is_that_of_the_package(feedsvc: Command) -> None:
    done = feedsvc("--version", env=environment(""))
    assert (done.returncode, done.stdout) == (0, f"feedsvc {version('feedsvc')}\n")


def test_the_help_has_no_command_that_only_a_supervisor_gives(feedsvc: Command) -> None:
    listed = feedsvc("--help", env=environment("")).stdout
    assert "migrate" in listed
    assert "worker" not in listed
    assert "-fd" not in feedsvc("serve", "--help", env=environment("")).stdout


def test_config_shows_what_is_in_force_and_no_secret(feedsvc: Command, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[server]\nport = 9\nhost = "::1"\n[datasets]\nfile = "mine.toml"\n')
    env = environment(NOWHERE, REDIS_URL="redis://:r3dis@127.0.0.1:2/0", FEEDSVC_LOG__LEVEL="DEBUG")
    done = feedsvc("config", "--config", str(file), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["server"]["host"] == "::1"
    assert shown["server"]["port"] == 0, "the environment overrides the file"
    assert shown["log"]["level"] == "DEBUG"
    assert shown["datasets"]["file"] == str(tmp_path / "mine.toml")
    assert shown["database"]["url"] == "postgresql://feedsvc:***@127.0.0.1:1/nothing?***"
    assert shown["redis"]["url"] == "redis://:***@127.0.0.1:2/0"
    assert not any(secret in done.stdout for secret in SECRETS)


async def test_a_signed_token_opens_its_tenants_feeds(
    feedsvc: Command, http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    client = await world.fetchval("SELECT min(id) FROM wedding.clients WHERE tenant_id = 'zephyr'")
    env = environment(NOWHERE)
    asked = ("--tenant", "zephyr", "--role", "member", "--client", str(client), "--ttl", "30m")
    done = feedsvc("token", *asked, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    claims = jwt.decode(done.stdout.strip(), KEY, algorithms=["HS256"], audience="feedsvc")
    assert claims["exp"] - claims["iat"] == 1800
    assert "operator" not in claims
    headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
    url = "/v1/feeds/clients?columns=tenant_id,id"
    async with http.get(url, headers=headers) as answer:
        assert answer.status == 200
        assert await answer.json() == [{"tenant_id": "zephyr", "id": client}]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--tenant", "a", "--role", "member", "--ttl", "1 hour"], 1, "--ttl can't be '1 hour'"),
        (["--tenant", "a", "--role", "member", "--ttl", "-1h"], 1, "--ttl can't be '-1h'"),
        (["--tenant", "", "--role", "admin"], 1, "--tenant and --client must be"),
        (["--tenant", "a\nb", "--role", "admin"], 1, "--tenant and --client must be"),
        (["--tenant", "a", "--role", "owner"], 2, "owner"),
        (["--role", "admin"], 2, "--tenant"),
        (
            ["--tenant", "a", "--role", "member", "--client", "1", "--operator"],
            1,
            "--operator and --client exclude each other",
        ),
    ],
)
def test_a_token_that_can_not_be(
    feedsvc: Command, arguments: list[str], status: int, said: str
) -> None:
    done = feedsvc("token", *arguments, env=environment(NOWHERE))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_the_migrations_state_is_printed_before_and_after(feedsvc: Command, database: str) -> None:
    env = environment(as_login(database), MIGRATION_DATABASE_URL=database)

    def reported(*arguments: str) -> tuple[int, str]:
        done = feedsvc("migrate", *arguments, env=env)
        assert done.stderr == ""
        return done.returncode, done.stdout

    head = _head(reported("status"))
    assert reported("verify") == (1, f"service: no revision applied, the head is {head}\n")
    made = "triggers: up to date\n"
    status, text = reported("up")
    assert status == 0
    assert text.startswith("apply 0001_tickets\n")
    assert text.endswith(f"service: at {head}\n{made}")
    assert reported("up") == (0, f"service: at {head}\n{made}")
    assert reported("up", "--plan") == (0, "service: nothing is pending\n")
    assert reported("status") == (0, f"service: at {head}, head is {head}\n")
    assert reported("verify") == (0, "service: no findings\n")
    status, text = reported("down")
    assert (status, text.splitlines()[-1]) == (0, "service: all migrations reverted")
    assert reported("up", "--plan")[1].splitlines()[0] == "0001_tickets"


def _head(reported: tuple[int, str]) -> str:
    """The head that `status` names for an empty database, where everything is pending."""
    status, text = reported
    first, *pending = text.splitlines()
    assert status == 0
    assert first.startswith("service: at no revision, head is ")
    head = first.rpartition(" ")[2]
    assert pending[-1] == f"  pending: {head}"
    return head


@pytest.mark.parametrize("variables", [{}, {"MIGRATION_DATABASE_URL": NOWHERE}])
def test_migrations_that_can_not_run_say_why(
    feedsvc: Command, variables: Mapping[str, str]
) -> None:
    done = feedsvc("migrate", "status", env=environment("", **variables))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("feedsvc: ")
    assert "s3cret" not in done.stderr
