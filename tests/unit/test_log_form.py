"""The log is text on a terminal and JSON objects elsewhere, unless `log.format` says."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from feedsvc.core import logs


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def own_root() -> Iterator[None]:
    """Give the root logger its handlers and level back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("text", False, False),
        ("json", True, True),
    ],
)
def test_the_form_is_chosen_by_where_the_log_goes(
    form: logs.Form, terminal: bool, is_json: bool
) -> None:
    stream = Stream(terminal=terminal)
    logs.configure("INFO", form, stream)
    logging.getLogger("feedsvc.tests").warning("a line of %d", 7)
    (line,) = stream.getvalue().splitlines()
    if is_json:
        plain = json.loads(line)
        assert (plain["level"], plain["logger"]) == ("WARNING", "feedsvc.tests")
        assert plain["message"] == "a line of 7"
    else:
        assert line.endswith("WARNING feedsvc.tests: a line of 7")
