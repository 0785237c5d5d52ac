"""Rules that all routes of operators share."""

from aiohttp import web

from feedsvc.core.principal import Principal
from feedsvc.core.problems import Forbidden
from feedsvc.feeds import parameters


def only_operators(principal: Principal) -> None:
    """Raise Forbidden for every other caller, a tenant's admin among them."""
    if not principal.operator or principal.client is not None:
        raise Forbidden("This is for operators of the service alone.")


def refuse_parameters(request: web.Request) -> None:
    """Raise BadParameter for any parameter but a ticket."""
    parameters.refuse_unknown(parameters.parse(request.rel_url.raw_query_string), ("ticket",))
