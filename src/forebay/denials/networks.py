"""Networks to look an address up in: one look for each length of prefix that occurs, however many networks there are.

An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) is the IPv4 one: a socket that takes both kinds shows it so.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

BITS_4 = 32
BITS_6 = 128
MAPPED = 0xFFFF
"""The first 96 bits of an IPv4-mapped address."""

NETWORK_FORM = "an address or a network, such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/48"


class Network(NamedTuple):
    """A network, or a single address.

    Attributes:
        bits: the length of its addresses, 32 or 128.
        shift: the bits of an address that differ within the network.
        prefix: the other ones.
    """

    bits: int
    shift: int
    prefix: int


def read_network(text: str) -> Network:
    """Return the network of a text as `write_network` makes it.

    `ipaddress` would take a second for a full list.

    Raises:
        ValueError: it is no such text.
    """
    address, slash, length = text.partition("/")
    bits, number = _read_address(address)
    if slash and not (length.isascii() and length.isdigit() and int(length) <= bits):
        raise ValueError(f"it is not {NETWORK_FORM}")
    return _make_network(bits, number, int(length) if slash else bits)


def write_network(text: str) -> str:
    """Return a person's text for an address or a network in the form that the list has.

    Raises:
        ValueError: it is neither, has a zone, or has more bits than its network.
    """
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"is not {NETWORK_FORM}") from None
    given = ipaddress.ip_address(text.partition("/")[0])
    if isinstance(given, IPv6Address) and given.scope_id is not None:
        raise ValueError("has a zone, which other machines do not know")
    if given != network.network_address:
        raise ValueError(f"has more bits than its network; {network} may be meant")
    bits, shift, prefix = _make_network(network.max_prefixlen, int(given), network.prefixlen)
    kind = IPv4Network if bits == BITS_4 else IPv6Network
    shown: IPv4Network | IPv6Network = kind((prefix << shift, bits - shift))
    return str(shown if shift else shown.network_address)


class Networks:
    """Networks, each with the time at which it leaves, in seconds since 1970."""

    def __init__(self, ends: Iterable[tuple[Network, float]]) -> None:
        found: dict[int, dict[int, dict[int, float]]] = {BITS_4: {}, BITS_6: {}}
        for (bits, shift, prefix), end in ends:
            found[bits].setdefault(shift, {})[prefix] = end
        self._tables = {bits: list(tables.items()) for bits, tables in found.items()}
        self._is_empty = not any(self._tables.values())

    def contain(self, address: str, now: float) -> bool:
        """Return whether an address lies in one of them; a text that is no address does not."""
        if self._is_empty:
            return False
        try:
            bits, number = _read_address(address.partition("%")[0])
        except ValueError:
            return False
        bits, _, number = _make_network(bits, number, bits)
        return any(now < table.get(number >> shift, 0) for shift, table in self._tables[bits])


def _read_address(text: str) -> tuple[int, int]:
    """Return the length of an address in bits, and the address as a number."""
    bits = BITS_6 if ":" in text else BITS_4
    try:
        packed = socket.inet_pton(socket.AF_INET6 if bits == BITS_6 else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"it is not {NETWORK_FORM}") from None
    return bits, int.from_bytes(packed)


def _make_network(bits: int, address: int, length: int) -> Network:
    shift = bits - length
    if bits == BITS_6 and shift <= BITS_4 and address >> BITS_4 == MAPPED:
        bits, address = BITS_4, address & (1 << BITS_4) - 1
    return Network(bits, shift, address >> shift)
