"""Services whose rows come by a source that the test names."""

import re
from pathlib import Path

from feedsvc.datasets.dataset import SourceName
from tests.support.fork_server import OTHER_CODE

SOURCES: tuple[SourceName, ...] = ("projection", "cursor", "copy")

COPY_AT_ONCE = {"FEEDSVC_STREAMS__COPY_AFTER": "0"}
"""Settings: what comes by COPY does so from its first row."""

_RELATION = re.compile(r"^relation = .*$", re.MULTILINE)
_NO_ENCODER = """
import sys
sys.modules["streams.encoder._native"] = None
"""


def by_source(declarations: str, source: SourceName) -> str:
    """The same datasets, each with its source forced."""
    return _RELATION.sub(lambda found: f'{found[0]}\nsource = "{source}"', declarations)


def without_encoder(folder: Path) -> dict[str, str]:
    """Environment for a service that finds no native encoder."""
    (folder / "sitecustomize.py").write_text(_NO_ENCODER)
    return {OTHER_CODE: str(folder)}
