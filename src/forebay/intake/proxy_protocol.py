"""The PROXY protocol: a proxy that passes on bytes alone names its client before the first of them.

Both versions, after HAProxy's specification of 2020/03/05. The header is read only from trusted proxies, and from those
it must come: a receiver that guesses believes anybody.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from forebay.errors import Rejection
from forebay.intake.addresses import normalize

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of a header of version 2."""

FIXED_BYTES = 16
"""Bytes of a header of version 2 before the addresses."""

HEADER_BYTES_MAX = 536
"""Most bytes of a header of version 2: any TCP segment holds so many. It may have fields behind the addresses."""

LINE_BYTES_MAX = 107
"""Most bytes of a header of version 1, which is a line."""

LOCAL = 0x20
PROXY = 0x21
"""Version and command of a header of version 2."""

IPV4 = 0x1
IPV6 = 0x2
ADDRESS_BYTES = {0x0: 0, IPV4: 12, IPV6: 36, 0x3: 216}
"""Bytes of the addresses and ports of each family: none, IPv4, IPv6 and sockets in files."""

PROTOCOLS = 3
"""Numbers of transport protocols: none, streams and datagrams."""

PORT_MAX = 0xFFFF

_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY TCP(?:4 ([0-9.]+) ([0-9.]+)|6 ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+)) %b %b" % (_PORT, _PORT))
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)


class ProxyHeader(NamedTuple):
    """A header of the PROXY protocol.

    Attributes:
        address: the client's; None if the proxy does not name one, as for its own checks.
        size: bytes of the header; those behind it are the client's.
    """

    address: str | None
    size: int


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the start of a connection's bytes; None if more of them are needed.

    Raises:
        Rejection: 400, these bytes begin no header; the connection has to be closed.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _read_binary(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _read_line(data)
    raise _malformed()


def _read_line(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:LINE_BYTES_MAX].partition(b"\r\n")
    if not end:
        if len(data) < LINE_BYTES_MAX:
            return None
        raise _malformed()
    size = len(line) + len(end)
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(None, size)
    match = _LINE.fullmatch(line)
    if match is None:
        raise _malformed()
    *addresses, source_port, target_port = (part.decode() for part in match.groups() if part is not None)
    if max(int(source_port), int(target_port)) > PORT_MAX:
        raise _malformed()
    version = IPv4Address if match[1] else IPv6Address
    try:
        source, _ = map(version, addresses)
    except AddressValueError:
        raise _malformed() from None
    return ProxyHeader(normalize(str(source)), size)


def _read_binary(data: bytes) -> ProxyHeader | None:
    command = data[12:13]
    if command and command[0] not in (LOCAL, PROXY):
        raise _malformed()
    if len(data) < FIXED_BYTES:
        return None
    size = FIXED_BYTES + int.from_bytes(data[14:16])
    family, protocol = divmod(data[13], 16)
    is_local = data[12] == LOCAL
    if size > HEADER_BYTES_MAX:
        raise _malformed()
    # A header of the proxy's own connection has a family that does not count.
    if not is_local and (
        family not in ADDRESS_BYTES or protocol >= PROTOCOLS or size < FIXED_BYTES + ADDRESS_BYTES[family]
    ):
        raise _malformed()
    if len(data) < size:
        return None
    address = None
    if not is_local and protocol and family == IPV4:
        address = str(IPv4Address(data[16:20]))
    elif not is_local and protocol and family == IPV6:
        address = normalize(str(IPv6Address(data[16:32])))
    return ProxyHeader(address, size)


def _malformed() -> Rejection:
    return Rejection(HTTPStatus.BAD_REQUEST, "a connection from this proxy must begin with a PROXY protocol header")
