"""Rights that a whole route asks for."""

from feedsvc.auth.principal import Principal
from feedsvc.errors import Forbidden


def only_admins(principal: Principal) -> None:
    """Raises Forbidden for everybody else."""
    if principal.role != "admin" or principal.client is not None:
        raise Forbidden("This is for admins alone.")
