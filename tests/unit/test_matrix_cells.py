"""`.ci/matrix`: cells are named, skipped with a reason, and failed in a table at the end."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from tests.support.service import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


def matrix(*cells: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / ".ci" / "matrix"), *cells]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_cell_that_the_machine_lacks_is_skipped_with_its_reason(tmp_path: Path) -> None:
    run = matrix("postgresql15", POSTGRES_BIN=str(tmp_path))
    assert run.returncode == 0, run.stderr
    table = run.stdout.splitlines()[-1]
    assert re.fullmatch(r"postgresql15 +\d+ s  skipped: no postgres 15 in \S+", table)


def test_another_postgresql_than_the_cells_own_is_no_pass(tmp_path: Path) -> None:
    postgres = tmp_path / "postgres"
    postgres.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.3'\n")
    postgres.chmod(0o755)
    run = matrix("postgresql15", POSTGRES_BIN=str(tmp_path))
    assert "skipped: " in run.stdout.splitlines()[-1]
    assert "14.3" in run.stdout


def test_a_cell_of_no_such_name_fails_beside_the_others(tmp_path: Path) -> None:
    run = matrix("nonsense", "postgresql15", POSTGRES_BIN=str(tmp_path))
    assert run.returncode == 1
    assert [line.split()[0] for line in run.stdout.splitlines()[-2:]] == [
        "nonsense",
        "postgresql15",
    ]
    assert "failed (2)" in run.stdout.splitlines()[-2]


def test_each_supported_environment_of_the_readme_is_a_cell() -> None:
    script = (REPOSITORY / ".ci" / "matrix").read_text()
    (cells,) = re.findall(r"^cells=\(([^)]+)\)", script, re.MULTILINE)
    assert set(cells.split()) == {
        *("python3.11", "python3.12", "python3.13", "postgresql15", "postgresql18"),
        *("no-redis", "redis", "valkey", "cluster", "no-compiler", "fuzz"),
    }
