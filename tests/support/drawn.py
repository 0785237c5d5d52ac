"""How much of what is drawn at random is drawn: half in `make test`, all of it in `make soak`."""

import os
from typing import Final

import pytest

DRAWN: Final = pytest.mark.drawn
"""The mark of a test that `make soak` repeats at full length."""
_IS_WHOLE: Final = os.environ.get("FEEDSVC_TEST_DRAWN") == "whole"


def share(examples: int) -> int:
    """The examples of `examples` that this run draws."""
    return examples if _IS_WHOLE else examples // 2
