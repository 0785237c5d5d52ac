"""The address of a request's client: written by proxies, or forged as if by them."""

from ipaddress import IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from feedsvc.web.client_address import (
    Address,
    ConnectionCounter,
    TooManyConnectionsError,
    TrustedNetworks,
    behind_proxies,
    client_address,
)

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PROXY = "10.1.2.3"

addresses = st.ip_addresses()
proxies = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="fd00::/8"))
strangers = addresses.filter(lambda address: not any(address in network for network in PROXIES))
clients = strangers.filter(lambda a: not isinstance(a, IPv6Address) or a.ipv4_mapped is None)
# Whatever a client may write itself, commas and addresses of proxies included.
forged = st.lists(st.one_of(st.text(max_size=20), addresses.map(str), proxies.map(str)), max_size=4)
no_address = st.text(st.sampled_from("ghxyz <>%;='\"_-é"), max_size=20)


@given(clients, forged)
def test_a_stranger_is_never_believed(peer: Address, written: list[str]) -> None:
    assert behind_proxies(str(peer), written, PROXIES) == peer


@given(clients, forged)
def test_without_proxies_no_header_is_believed(peer: Address, written: list[str]) -> None:
    assert behind_proxies(str(peer), written, ()) == peer


@given(st.lists(proxies, min_size=1, max_size=4), clients, forged)
def test_behind_proxies_the_client_is_found_whatever_it_wrote_itself(
    chain: list[Address], client: Address, written: list[str]
) -> None:
    """Each proxy appends whom it was asked by."""
    *before, peer = chain
    fields = [*written, str(client), *(str(proxy) for proxy in before)]
    wanted = behind_proxies(str(peer), fields, PROXIES)
    assert wanted == client
    assert behind_proxies(str(peer), [", ".join(fields)], PROXIES) == client


@given(proxies, proxies, no_address, forged)
def test_behind_what_is_no_address_the_last_good_hop_is_known(
    peer: Address, hop: Address, garbage: str, written: list[str]
) -> None:
    assert behind_proxies(str(peer), [*written, garbage, str(hop)], PROXIES) == hop
    assert behind_proxies(str(peer), [*written, garbage], PROXIES) == peer


@given(st.lists(proxies, min_size=1, max_size=4))
def test_where_all_are_proxies_the_first_of_them_asked(chain: list[Address]) -> None:
    *before, peer = [str(proxy) for proxy in chain]
    assert str(behind_proxies(peer, before, PROXIES)) == chain[0].compressed


@given(proxies, st.lists(st.text(max_size=60), max_size=4))
def test_nothing_that_may_stand_there_raises(peer: Address, written: list[str]) -> None:
    assert behind_proxies(str(peer), written, PROXIES) is not None


@pytest.mark.parametrize(
    ("peer", "written", "found"),
    [
        (None, ["192.0.2.1"], None),
        ("192.0.2.9", ["192.0.2.1"], "192.0.2.9"),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, 198.51.100.7"], "198.51.100.7"),
        (PROXY, ["192.0.2.1", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        (PROXY, ["192.0.2.1:4711"], "192.0.2.1"),
        (PROXY, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1]"], "2001:db8::1"),
        (PROXY, ["::ffff:192.0.2.1"], "192.0.2.1"),
        (f"::ffff:{PROXY}", ["192.0.2.1"], "192.0.2.1"),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["2001:db8::1%<script>"], PROXY),
        (PROXY, ["fe80::1%<script>"], "fe80::1"),
        ("fe80::1%eth0", [], "fe80::1"),
    ],
)
def test_what_proxies_write(peer: str | None, written: list[str], found: str | None) -> None:
    address = behind_proxies(peer, written, PROXIES)
    assert (None if address is None else str(address)) == found


def test_an_address_has_so_many_connections_and_no_more() -> None:
    crowd = ConnectionCounter(2, ())
    first, _ = crowd.admit("192.0.2.1"), crowd.admit("192.0.2.1")
    with pytest.raises(TooManyConnectionsError):
        crowd.admit("192.0.2.1")
    assert crowd.admit("192.0.2.2") is not None
    assert first is not None
    crowd.leave(first)
    assert crowd.admit("::ffff:192.0.2.1") == first
    with pytest.raises(TooManyConnectionsError):
        crowd.admit("192.0.2.1")


def test_one_ipv6_network_is_one_address() -> None:
    crowd = ConnectionCounter(1, ())
    crowd.admit("2001:db8::1")
    with pytest.raises(TooManyConnectionsError):
        crowd.admit("2001:db8::2")
    crowd.admit("2001:db8:0:1::1")


def test_a_trusted_proxy_is_not_counted() -> None:
    crowd = ConnectionCounter(1, (IPv4Network("10.0.0.0/8"),))
    assert [crowd.admit(PROXY) for _ in range(9)] == [None] * 9


@pytest.mark.parametrize(("trusted", "found"), [((), PROXY), (PROXIES, "198.51.100.7")])
def test_a_requests_address_is_found_by_the_settings(trusted: TrustedNetworks, found: str) -> None:
    fields = CIMultiDict(
        (("X-Forwarded-For", "192.0.2.1, 198.51.100.7"), ("X-Forwarded-For", "10.9.9.9"))
    )
    assert client_address(PROXY, CIMultiDictProxy(fields), trusted) == found
    assert client_address("", CIMultiDictProxy(fields), trusted) is None
