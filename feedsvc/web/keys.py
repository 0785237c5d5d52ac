"""What a request and the application carry."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from aiohttp import web

from feedsvc.core.logs import Tally
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.service import Service

SERVICE: Final = web.AppKey("service", Service)
SHORTAGES: Final = web.AppKey("shortages", dict[str, Tally])
"""What requests were refused for, however many they were, each once in a while in the log."""
REQUEST_ID: Final = web.RequestKey("request_id", str)
# Absent where the client was gone before it could be asked. For the audit, and for no log.
CLIENT_ADDRESS: Final = web.RequestKey("client_address", str)
STAGES: Final = web.RequestKey("stages", Stages)
STANDING: Final = web.RequestKey("standing", Mapping)
"""The headers that tell a caller what is left of its limits."""

RESUMES: Final = web.RequestKey("resumes", Principal)
"""In whose name a ticket has let a request in, which may come back with a cookie."""

Work: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]
"""What is left to do for a request that has been judged."""
