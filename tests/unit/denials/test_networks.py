"""Networks hold the addresses that Python's `ipaddress` finds in them, and an IPv4-mapped address is the IPv4 one."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.denials.networks import Networks, read_network, write_network

Address = IPv4Address | IPv6Address
Net = IPv4Network | IPv6Network

NOW = 1_000.0
LATER = 2_000.0

MAPPED = int(IPv6Address("::ffff:0:0"))


def near(numbers: list[int], bits: int) -> st.SearchStrategy[int]:
    """Return numbers that often differ in few of their last bits, so that networks and addresses meet."""
    flipped = st.tuples(st.sampled_from(numbers), st.integers(0, bits - 1), st.booleans())
    return st.integers(0, (1 << bits) - 1) | flipped.map(lambda found: found[0] ^ (found[2] << found[1]))


NUMBERS_4 = near([int(IPv4Address("192.0.2.77")), int(IPv4Address("10.0.0.0"))], 32)
NUMBERS_6 = near([int(IPv6Address("2001:db8::1")), MAPPED, MAPPED + int(IPv4Address("192.0.2.77"))], 128)
ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    NUMBERS_4.map(IPv4Address), NUMBERS_4.map(lambda number: IPv6Address(MAPPED + number)), NUMBERS_6.map(IPv6Address)
)


def network_of(made: tuple[Address, int]) -> Net:
    address, length = made
    return (
        ipaddress.ip_network((int(address), min(length, address.max_prefixlen)), strict=False)
        if isinstance(address, IPv4Address)
        else IPv6Network((int(address), length), strict=False)
    )


NETWORKS = st.tuples(ADDRESSES, st.integers(0, 128)).map(network_of)


def plain_address(address: Address) -> Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def plain_network(network: Net) -> Net:
    """Return a network of IPv4 for one of mapped addresses."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return IPv4Network((int(mapped), network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def is_in(address: Address, networks: list[Net]) -> bool:
    return any(plain_address(address) in plain_network(network) for network in networks)


@settings(deadline=None, max_examples=1_000)
@given(st.lists(NETWORKS, max_size=8), st.lists(ADDRESSES, min_size=1, max_size=8))
def test_an_address_is_found_exactly_if_it_lies_in_one_of_the_networks(
    networks: list[Net], addresses: list[Address]
) -> None:
    ours = Networks((read_network(write_network(str(network))), LATER) for network in networks)
    for address in [*addresses, *(network.network_address for network in networks)]:
        assert ours.contain(str(address), NOW) is is_in(address, networks), address


@settings(deadline=None, max_examples=500)
@given(NETWORKS)
def test_a_network_is_written_as_ipaddress_writes_it(network: Net) -> None:
    plain = plain_network(network)
    wanted = plain.network_address if plain.prefixlen == plain.max_prefixlen else plain
    assert write_network(str(network)) == str(wanted)


@settings(deadline=None, max_examples=500)
@given(st.text("0123456789abcdef:./%", max_size=24) | st.text(max_size=12))
def test_a_text_that_can_be_written_can_be_read_and_another_one_is_a_value_error(text: str) -> None:
    try:
        written = write_network(text)
    except ValueError:
        return
    assert write_network(written) == written
    read_network(written)


@pytest.mark.parametrize("function", [read_network, write_network])
@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "1.2.3.4/²", "x", "a b", "1.2.3.4\0"]
)
def test_a_text_that_is_no_address_is_a_value_error(function: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="not an address or a network"):
        function(text)


def test_a_network_with_more_bits_is_refused_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8 may be meant"):
        write_network("10.1.2.3/8")


def test_an_address_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        write_network("fe80::1%eth0")


def test_each_network_ends_at_its_own_time() -> None:
    networks = Networks([(read_network("10.0.0.0/8"), 10.0), (read_network("10.0.0.1"), 20.0)])
    assert [networks.contain("10.0.0.1", now) for now in (9.9, 10.0, 19.9, 20.0)] == [True, True, True, False]


def test_the_number_of_looks_is_that_of_the_lengths_and_not_of_the_networks() -> None:
    networks = Networks((read_network(f"10.{part >> 8}.{part & 255}.0/24"), LATER) for part in range(10_000))
    assert {bits: len(tables) for bits, tables in networks._tables.items()} == {32: 1, 128: 0}


def test_a_network_that_holds_the_mapped_addresses_and_more_is_one_of_ipv6() -> None:
    networks = Networks([(read_network("::ffff:10.0.0.1/64"), LATER)])
    assert [networks.contain(address, NOW) for address in ("::1", "10.0.0.1", "::ffff:10.0.0.1")] == [
        True,
        False,
        False,
    ]
