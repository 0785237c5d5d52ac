"""Rights that a whole route asks for."""

from feedsvc.core.principal import Principal
from feedsvc.core.problems import Forbidden


def only_operators(principal: Principal) -> None:
    """Raises Forbidden for every other caller, a tenant's admin among them."""
    if not principal.operator or principal.client is not None:
        raise Forbidden("This is for operators of the service alone.")
