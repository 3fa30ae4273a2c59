"""The client's address: that of its connection, unless trusted proxies name another one.

Anybody can write a header field, so each proxy adds the address of its own peer at the end, and only the end can be
believed: the list is read from the right, as long as the peer is a trusted proxy. The first other one is the client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from forebay.setting_values import ForwardedHeader, IpNetwork

HOPS_MAX = 20
"""Most addresses of one head that are looked at: a client may write thousands of trusted ones."""

IpAddress: TypeAlias = IPv4Address | IPv6Address

_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE = re.compile(rf"\[(?P<bracketed>[^\]]*)\]{_PORT}|(?P<v4>[0-9.]+){_PORT}|(?P<bare>[^\[\]]+)")
"""An address, with or without a port: RFC 7239, section 6, and IPv6 without brackets, as in `X-Forwarded-For`."""

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, section 5.6.2
_PAIR = re.compile(
    rf'[ \t]*(?P<name>{_TOKEN})=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^";, \t]+))[ \t]*(?:;|$)', re.DOTALL
)
"""One part of an element of `Forwarded` (RFC 7239, section 4). Some proxies leave out the quotes that IPv6 needs."""


class TrustedProxies:
    """The proxies whose word counts, and the header field that they write."""

    def __init__(self, networks: Iterable[IpNetwork], header: ForwardedHeader) -> None:
        self._networks = tuple(networks)
        self._is_list = header is ForwardedHeader.X_FORWARDED_FOR
        self._name = header.value.encode()

    def find_client(self, peer: str, lines: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client that sent a head with these lines, over a connection from this peer."""
        return (self.read_client(lines) if self._networks and self.trusts(peer) else None) or peer

    def trusts(self, peer: str) -> bool:
        """Return whether a peer is one of these proxies."""
        address = _read_address(peer)
        return address is not None and self._includes(address)

    def read_client(self, lines: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the address that these proxies name in a head; None if they name none.

        If something else than an address is named, such as `unknown`, the client is the last one before it. Only to be
        asked about a head from a trusted peer.
        """
        # Several lines are one list (RFC 9110, section 5.3).
        value = ",".join(value.decode("latin-1") for name, value in lines if name.lower() == self._name)
        elements = reversed(value.split(",")) if self._is_list else _split_forwarded(value)
        client = None
        for _, element in zip(range(HOPS_MAX), filter(None, map(_trim, elements)), strict=False):
            address = _read_node(element if self._is_list else _read_forwarded(element))
            if address is None:
                break
            client = address
            if not self._includes(address):
                break
        return None if client is None else str(client)

    def _includes(self, address: IpAddress) -> bool:
        return any(address in network for network in self._networks)


def find_peer(transport: asyncio.BaseTransport) -> bytes:
    """Return the address of the other end of a connection; empty if it has none, as on a socket in a file."""
    peer = transport.get_extra_info("peername")
    return (normalize(peer[0]) or "").encode() if isinstance(peer, tuple) else b""


def normalize(address: str) -> str | None:
    """Return the usual form of an address; None if it is none.

    An IPv4 address within an IPv6 address, as a socket for both gives it, becomes itself; a zone is left out.
    """
    read = _read_address(address)
    return None if read is None else str(read)


def cut(address: str) -> str:
    """Return the first address of the network of an address: /24, or /48 of IPv6."""
    return _cut_v6(address, 48) if ":" in address else f"{address.rpartition('.')[0]}.0"


def limited_part(address: str) -> str:
    """Return the part of an address that is limited: of IPv6 /64, as a client has all the addresses within."""
    return _cut_v6(address, 64) if ":" in address else address


def _cut_v6(address: str, bits: int) -> str:
    return str(IPv6Network((address, bits), strict=False).network_address)


def _read_address(text: str) -> IpAddress | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _read_node(text: str) -> IpAddress | None:
    match = _NODE.fullmatch(_unquote(text))
    return _read_address(match[match.lastgroup]) if match and match.lastgroup else None


def _trim(text: str) -> str:
    return text.strip(" \t")


def _unquote(text: str) -> str:
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return _ESCAPED.sub(r"\1", text[1:-1])
    return text


def _split_forwarded(value: str) -> Iterator[str]:
    """Split at the commas outside of quotes, from the right: a quote that a client leaves open stays on its side."""
    element = ""
    is_quoted = False
    for part in reversed(value.split(",")):
        element = f"{part},{element}" if is_quoted else part
        is_quoted ^= _ESCAPED.sub("", part).count('"') % 2 == 1
        if not is_quoted:
            yield element
    if is_quoted:
        yield element


def _read_forwarded(element: str) -> str:
    """Return the client of an element of `Forwarded`; empty if there is none, or more than one."""
    clients = []
    start = 0
    while start < len(element):
        match = _PAIR.match(element, start)
        if match is None:
            return ""
        start = match.end()
        if match["name"].lower() == "for":
            clients.append(match["plain"] if match["quoted"] is None else _ESCAPED.sub(r"\1", match["quoted"]))
    return clients[0] if len(clients) == 1 else ""
