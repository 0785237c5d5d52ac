"""Rivals in JavaScript: a folder with their package.json and their server.js."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feedsvc.commands.demo.embedded import cache_folder
from tests.performance.processes import ended, listening


def installed(source: Path) -> Path | None:
    """The folder of its packages; None, and a line that says so, without npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        sys.stderr.write("bench: no node and npm here, so nothing is held against fastify\n")
        return None
    versions = json.loads((source / "package.json").read_text())["dependencies"]
    named = "-".join(f"{name}-{version}" for name, version in versions.items())
    folder = cache_folder() / f"bench-{named}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "package.json", folder)
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run([npm, "install", *options], cwd=folder, check=True, timeout=300)
        (folder / "installed").touch()
    shutil.copy(source / "server.js", folder)
    return folder


@contextmanager
def running(folder: Path, arguments: Sequence[str]) -> Iterator[str]:
    """The URL of the server in the folder; its first argument is the listening socket's number."""
    with listening() as (listener, port):
        process = subprocess.Popen(
            ["node", "server.js", str(listener.fileno()), *arguments],
            cwd=folder,
            env={**os.environ, "NODE_ENV": "production"},
            pass_fds=(listener.fileno(),),
        )
        with ended(process):
            yield f"http://127.0.0.1:{port}"
