"""A folder for embedded servers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.servers import quickest_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that other accounts can pass through, which pytest's tmp_path is not."""
    folder = Path(tempfile.mkdtemp(prefix="feedsvc-test-", dir=quickest_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
