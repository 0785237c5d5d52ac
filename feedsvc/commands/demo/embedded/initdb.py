"""initdb: how a new PostgreSQL data folder is made."""

import subprocess
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.binaries import PostgresBinaries
from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.demo.embedded.processes import run_tool
from feedsvc.commands.demo.embedded.serverlog import why

SUPERUSER = "postgres"
SECONDS = 120.0
FIRST_WITH_BUILTIN_LOCALES = 17


def initdb(binaries: PostgresBinaries, account: Account, data: Path, password_file: Path) -> None:
    """Fill the empty folder `data`; the account must be able to read `password_file`.

    Raises:
        EmbeddedError: initdb's own reason.
    """
    argv: list[str | Path] = [
        binaries.folder / "initdb",
        "--pgdata",
        data,
        "--pwfile",
        password_file,
    ]
    argv += ["--username", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8"]
    argv += ["--no-sync", "--no-instructions"]
    output = ""
    for locale in _locales(binaries.major):
        try:
            done = run_tool([*argv, *locale], account, data.parent, seconds=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"initdb failed: {error}") from error
        if done.returncode == 0:
            return
        output = done.stdout
        if "locale" not in output:
            break
    raise EmbeddedError(f"initdb failed in {data.parent}: {why(output)}")


def _locales(major: int) -> tuple[tuple[str, ...], ...]:
    if major >= FIRST_WITH_BUILTIN_LOCALES:
        builtin = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        return (builtin,)
    return ("--locale=C.UTF-8",), ("--locale=C",)  # macOS and old glibcs have no C.UTF-8
