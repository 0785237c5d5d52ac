"""Clients' addresses, also behind proxies, and the number of connections from each.

An address is personal data: it is counted and handed to the audit, never logged.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from multidict import CIMultiDictProxy, istr

Address = IPv4Address | IPv6Address
TrustedNetworks = Sequence[IPv4Network | IPv6Network]

# What some proxies write: an IPv4 address with a port, an IPv6 address in brackets with or without.
_WITH_PORT: Final = re.compile(r"(\d[\d.]*):\d{1,5}|\[([0-9a-fA-F:.]+)\](?::\d{1,5})?", re.ASCII)
_FORWARDED_FOR: Final = istr("X-Forwarded-For")
_MOST_REMEMBERED: Final = 4_096
_IPV6_HOUSEHOLD: Final = 64  # bits; within such a network one host may take any address


def client_address(
    peer: str | None, fields: CIMultiDictProxy[str], trusted: TrustedNetworks
) -> str | None:
    """The client's address, None where its connection is gone already.

    The peer, or behind proxies of `server.trusted_proxies` the address that they name. An
    X-Forwarded-For from elsewhere may be the client's own invention.
    """
    if not trusted:
        return _text(peer)
    found = behind_proxies(peer, fields.getall(_FORWARDED_FOR, ()), trusted)
    return None if found is None else str(found)


def behind_proxies(
    peer: str | None, forwarded_for: Iterable[str], trusted: TrustedNetworks
) -> Address | None:
    """The first address, counted from the service, that is no trusted proxy.

    Each trusted hop vouches for the one that it has written down. Where that is no address, or
    nothing is left, the hop itself is the last that is known.
    """
    hop = _parsed(peer or "")
    if hop is None or not _is_among(hop, trusted):
        return hop
    for field in reversed(",".join(forwarded_for).split(",")):
        named = _parsed(_without_port(field.strip()))
        if named is None:
            break
        hop = named
        if not _is_among(hop, trusted):
            break
    return hop


class ConnectionCounter:
    """The connections of each address in this process. Trusted proxies are not counted."""

    def __init__(self, limit: int, trusted: TrustedNetworks) -> None:
        self._limit = limit
        self._trusted = trusted
        self._connections: Counter[str] = Counter()

    def admit(self, peer: str | None) -> str | None:
        """Count one more connection; what is returned is to be given to `leave` at its end.

        Raises CrowdedError where the address has as many as it may.
        """
        address = _parsed(peer or "")
        if address is None or _is_among(address, self._trusted):
            return None
        who = _household(address)
        if self._connections[who] >= self._limit:
            raise TooManyConnectionsError
        self._connections[who] += 1
        return who

    def leave(self, who: str) -> None:
        """One connection has ended."""
        self._connections[who] -= 1
        if self._connections[who] <= 0:
            del self._connections[who]


class TooManyConnectionsError(Exception):
    """An address has as many connections as it may."""


def _household(address: Address) -> str:
    """The network that counts as one address: an IPv6 host has 2 to the power of 64 of them."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_HOUSEHOLD), strict=False))
    return str(address)


@lru_cache(_MOST_REMEMBERED)
def _text(peer: str | None) -> str | None:
    found = _parsed(peer or "")
    return None if found is None else str(found)


@lru_cache(_MOST_REMEMBERED)
def _parsed(text: str) -> Address | None:
    # Behind a percent sign `ip_address` takes any text for a zone.
    if "%" in text and not text.startswith("fe80:"):
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A listener for both families sees an IPv4 client like this.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(text: str) -> str:
    match = _WITH_PORT.fullmatch(text)
    return (match[1] or match[2]) if match else text


def _is_among(address: Address, networks: TrustedNetworks) -> bool:
    return any(address in network for network in networks)
