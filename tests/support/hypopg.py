"""A PostgreSQL that has HypoPG: Debian's, or the one that `.ci/run` takes out of its packages."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from feedsvc.commands.demo.embedded import start_postgres
from feedsvc.commands.demo.embedded.binaries import BIN_VARIABLE, DISTRIBUTION_FOLDER
from tests.support.servers import throw_away_folder

_NAMED: Final = os.environ.get("FEEDSVC_TEST_HYPOPG")
_INSTALLED: Final = sorted(DISTRIBUTION_FOLDER.glob("*/lib/hypopg.so"), reverse=True)
BINARIES: Final = _NAMED or next((str(each.parents[1] / "bin") for each in _INSTALLED), None)
"""The folder of its `postgres`, `initdb` and `psql`."""
needed: Final = pytest.mark.skipif(
    BINARIES is None,
    reason="no PostgreSQL with HypoPG here (Debian's package postgresql-15-hypopg has it)",
)


@contextmanager
def hypopg_server() -> Iterator[str]:
    """The superuser's URL of a server whose databases may have the extension."""
    assert BINARIES is not None
    with throw_away_folder() as folder, ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(BIN_VARIABLE, BINARIES)
            server = stack.enter_context(start_postgres(folder))
        yield server.url()
