"""A hook of schemathesis: requests are by these callers in turn, so that one run is for all.

FEEDSVC_TEST_CALLERS has their Authorization headers as a JSON list, "" for none.
"""

import itertools
import json
import os
from typing import Any

import schemathesis

CALLERS = "FEEDSVC_TEST_CALLERS"
_IN_TURN = itertools.cycle(json.loads(os.environ.get(CALLERS, '[""]')))


@schemathesis.hook
def before_call(_context: object, case: Any, _arguments: object) -> None:
    """Put the next caller's header into a request."""
    case.headers.pop("Authorization", None)
    if header := next(_IN_TURN):
        case.headers["Authorization"] = header
