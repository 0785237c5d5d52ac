"""The share of random examples that is drawn: a quarter in `make test`, all in `make soak`."""

import os
from typing import Final

import pytest

DRAWN: Final = pytest.mark.drawn
"""The mark of a test that `make soak` repeats at full length, each of Hypothesis's among them."""
SHARES: Final = 4
_IS_WHOLE: Final = os.environ.get("FEEDSVC_TEST_DRAWN") == "whole"


def share(examples: int, part: int = SHARES) -> int:
    """The examples of `examples` that this run draws: one of `part`, or all."""
    return examples if _IS_WHOLE else max(1, examples // part)
