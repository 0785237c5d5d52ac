"""Messages to a webhook: signed, under a deadline, tried again until they arrive.

The signature is HMAC-SHA256 (RFC 2104) over the timestamp, a dot and the body, so that a holder
of the key can verify the sender and the time. A message may arrive twice, since an answer can be
lost; its `id` is then the same.
"""

import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import aiohttp
import orjson

from feedsvc.settings import Alerts

logger = logging.getLogger(__name__)

DeliveryOutcome: TypeAlias = Literal["delivered", "refused", "failed"]
"""`refused` messages would be refused forever, `failed` ones are tried again."""

_TRY_AGAIN: Final = frozenset({408, 425, 429})


class Webhook:
    """One address, and the key that it shares."""

    def __init__(self, settings: Alerts) -> None:
        if settings.webhook_url is None or settings.webhook_key is None:
            raise ValueError("a webhook has an address and a key")
        self._url = settings.webhook_url.get_secret_value()
        self._key = settings.webhook_key.get_secret_value().encode()
        self._timeout = settings.webhook_timeout

    async def deliver(self, message: Mapping[str, Any]) -> DeliveryOutcome:
        """Send the message once. Raises nothing that the other side could cause."""
        body = orjson.dumps(message)
        headers = {
            "Content-Type": "application/json",
            "Feedsvc-Delivery": str(message["id"]),
            **signed(self._key, body, int(time.time())),
        }
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._url, data=body, headers=headers, allow_redirects=False) as got,
            ):
                return self._judged(got.status)
        except TimeoutError:
            logger.warning("alerts: the webhook did not answer in %g s", self._timeout)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Nothing of the address, which may hold a secret: its exception quotes it.
            logger.warning("alerts: the webhook can't be reached (%s)", type(error).__name__)
        return "failed"

    @staticmethod
    def _judged(status: int) -> DeliveryOutcome:
        if 200 <= status < 300:
            return "delivered"
        if status in _TRY_AGAIN or status >= 500:
            logger.warning("alerts: the webhook answers %d; it is tried again", status)
            return "failed"
        logger.error("alerts: the webhook answers %d, so a message is lost", status)
        return "refused"


def signed(key: bytes, body: bytes, now: int) -> dict[str, str]:
    """The headers that vouch for a body at this time, in seconds since 1970."""
    digest = hmac.new(key, f"{now}.".encode() + body, "sha256").hexdigest()
    return {"Feedsvc-Timestamp": str(now), "Feedsvc-Signature": f"sha256={digest}"}
