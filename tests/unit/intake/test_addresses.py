"""The client's address is that of its connection, unless a trusted proxy names another one."""

from __future__ import annotations

import time
from ipaddress import ip_network

import pytest

from forebay.intake.addresses import TrustedProxies, cut, limited_part, normalize
from forebay.setting_values import ForwardedHeader

NETWORKS = [ip_network(text) for text in ("10.0.0.0/8", "192.0.2.7", "fd00::/8")]
PROXY = "10.1.2.3"
CLIENT = "203.0.113.9"


def find(value: str, header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR, peer: str = PROXY) -> str:
    lines = [(b"Host", b"x"), (header.value.title().encode(), value.encode("latin-1"))]
    return TrustedProxies(NETWORKS, header).find_client(peer, lines)


def forwarded(value: str) -> str:
    return find(value, ForwardedHeader.FORWARDED)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        # The one beside the trusted proxies is the client, whatever stands on its left.
        ("203.0.113.9", CLIENT),
        ("1.1.1.1, 203.0.113.9", CLIENT),
        ("1.1.1.1, 203.0.113.9, 10.9.9.9,192.0.2.7", CLIENT),
        ("junk, 203.0.113.9, 10.9.9.9", CLIENT),
        ("10.0.0.1, 203.0.113.9, fd00::1", CLIENT),
        ('"1.1.1.1, 203.0.113.9', CLIENT),
        (", 203.0.113.9 ,\t, ,", CLIENT),
        # If all are trusted, it is the first.
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        # Ports, brackets and quotes.
        ("203.0.113.9:4711", CLIENT),
        ("203.0.113.9:_port", CLIENT),
        ('"203.0.113.9:4711"', CLIENT),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ('"[2001:db8::1]:4711"', "2001:db8::1"),
        ("::ffff:203.0.113.9", CLIENT),
        ("::ffff:cb00:7109", CLIENT),
        ("1.1.1.1, ::ffff:10.0.0.1", "1.1.1.1"),
        ("fe80::1%eth0", "fe80::1"),
        # Something else ends the list, and the last good one before it is the client.
        ("", PROXY),
        (" , ,", PROXY),
        ("unknown", PROXY),
        ("1.1.1.1, unknown", PROXY),
        ("1.1.1.1, unknown, 10.9.9.9", "10.9.9.9"),
        ("1.1.1.1, _hidden, 10.9.9.9", "10.9.9.9"),
        ("1.1.1.1, 203.0.113.999", PROXY),
        ("1.1.1.1, 203.0.113.09", PROXY),
        ("1.1.1.1, 0x7f.0.0.1", PROXY),
        ("1.1.1.1, 203.0.113.9:", PROXY),
        ("1.1.1.1, 203.0.113.9:123456", PROXY),
        ("1.1.1.1, [203.0.113.9", PROXY),
        ("1.1.1.1, [2001:db8::1", PROXY),
        ("1.1.1.1, 2001:db8::1]", PROXY),
        ("1.1.1.1, []", PROXY),
        ("1.1.1.1, [::1]x", PROXY),
        ("1.1.1.1, 203.0.113.9 10.9.9.9", PROXY),
        ("1.1.1.1, proxy.example", PROXY),
        ("1.1.1.1, ２０３.0.113.9".encode().decode("latin-1"), PROXY),
        ("1.1.1.1, for=203.0.113.9", PROXY),
        ('1.1.1.1, "', PROXY),
        ('1.1.1.1, ""', PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(value: str, client: str) -> None:
    assert find(value) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.9", CLIENT),
        ("For=203.0.113.9;proto=https;by=10.0.0.1", CLIENT),
        ('proto=https ; host="a,b;c" ; FOR="203.0.113.9:4711"', CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ('for="[2001:db8::1]"', "2001:db8::1"),
        ("for=[2001:db8::1]", "2001:db8::1"),
        (r'for="203.\0.113.9"', CLIENT),
        ("for=1.1.1.1, for=203.0.113.9, for=10.9.9.9", CLIENT),
        ("for=203.0.113.9,,", CLIENT),
        ("for=203.0.113.9;", CLIENT),
        # A quote that a client leaves open takes nothing of a proxy's with it.
        ('for="1.1.1.1, for=203.0.113.9', CLIENT),
        ('for="1.1.1.1, for="[2001:db8::1]"', "2001:db8::1"),
        ('for=1.1.1.1;x=", for="[2001:db8::1]"', "2001:db8::1"),
        ('for=1.1.1.1;x="\\, for="[2001:db8::1]"', "2001:db8::1"),
        (r'for=203.0.113.9;host="a\", for=1.1.1.1"', CLIENT),
        (r'for=1.1.1.1, for=203.0.113.9;host="a\", b"', CLIENT),
        ('for=203.0.113.9;host="evil, for=1.1.1.1;x="', CLIENT),
        # Something else ends the list.
        ("203.0.113.9", PROXY),
        ("for=unknown", PROXY),
        ("for=_hidden, for=10.9.9.9", "10.9.9.9"),
        ('for="_hidden:_port"', PROXY),
        ("by=203.0.113.9", PROXY),
        ("for=1.1.1.1;for=203.0.113.9", PROXY),
        ("for = 203.0.113.9", PROXY),
        ("for=203.0.113.9 x", PROXY),
        ('for="203.0.113.9"x', PROXY),
        ("for=1.1.1.1, for=203.0.113.9;x", PROXY),
        ('for=1.1.1.1, for="203.0.113.9', PROXY),
        ("for=", PROXY),
        ('for=""', PROXY),
    ],
)
def test_forwarded_is_read_from_the_right(value: str, client: str) -> None:
    assert forwarded(value) == client


def test_only_the_header_that_is_set_counts() -> None:
    assert find("for=1.1.1.1", ForwardedHeader.FORWARDED) == "1.1.1.1"
    lines = [(b"x-forwarded-for", b"1.1.1.1"), (b"forwarded", b"for=2.2.2.2")]
    found = [TrustedProxies(NETWORKS, header).find_client(PROXY, lines) for header in ForwardedHeader]
    assert found == ["1.1.1.1", "2.2.2.2"]


def test_several_lines_are_one_list() -> None:
    proxies = TrustedProxies(NETWORKS, ForwardedHeader.X_FORWARDED_FOR)
    lines = [(b"X-Forwarded-For", b"1.1.1.1"), (b"host", b"x"), (b"x-forwarded-FOR", b"203.0.113.9,10.0.0.1")]
    assert proxies.find_client(PROXY, lines) == CLIENT
    assert proxies.find_client(PROXY, reversed(lines)) == "1.1.1.1"
    assert proxies.read_client([]) is None


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "192.0.2.7", "fd00::1", "fd00::1%eth0"])
def test_a_trusted_peer_is_believed(peer: str) -> None:
    assert find("1.1.1.1", peer=peer) == "1.1.1.1"


@pytest.mark.parametrize("peer", ["11.0.0.1", "192.0.2.8", "::1", "fe80::1", "", "/run/proxy.sock", "::10.0.0.1"])
def test_nobody_else_is_believed(peer: str) -> None:
    assert find("1.1.1.1", peer=peer) == peer


def test_a_head_full_of_trusted_addresses_costs_no_time() -> None:
    start = time.process_time()
    assert find("10.0.0.1," * 1_800) == "10.0.0.1"
    assert forwarded("for=10.0.0.1," * 1_200) == "10.0.0.1"
    for value in ('for="' * 3_000, '",' * 8_000, "for=a;" * 2_500, '"' * 16_000, "," * 16_000, "\\" * 16_000):
        assert forwarded(value) == PROXY
        assert find(value) == PROXY
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("address", "usual"),
    [
        ("203.0.113.9", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("localhost", None),
        ("1.2.3", None),
    ],
)
def test_an_address_has_one_form(address: str, usual: str | None) -> None:
    assert normalize(address) == usual


@pytest.mark.parametrize(
    ("address", "network", "limited"),
    [
        ("203.0.113.9", "203.0.113.0", "203.0.113.9"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0"),  # noqa: S104 - nothing listens
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::", "2001:db8:1:2::"),
        ("::1", "::", "::"),
    ],
)
def test_a_part_of_an_address_is_stored_and_limited(address: str, network: str, limited: str) -> None:
    assert (cut(address), limited_part(address)) == (network, limited)
