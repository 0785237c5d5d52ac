"""What a request and the application carry."""

from typing import Final

from aiohttp import web

from feedsvc.service import Service
from feedsvc.timing import Stages

SERVICE: Final = web.AppKey("service", Service)
REQUEST_ID: Final = web.RequestKey("request_id", str)
# Absent where the client was gone before it could be asked. For the audit, and for no log.
CLIENT_ADDRESS: Final = web.RequestKey("client_address", str)
STAGES: Final = web.RequestKey("stages", Stages)
