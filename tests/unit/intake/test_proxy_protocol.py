"""A header of the PROXY protocol names the client, and everything else is refused."""

from __future__ import annotations

import pytest

from forebay.errors import Rejection
from forebay.intake.proxy_protocol import HEADER_BYTES_MAX, SIGNATURE, read_proxy_header

IPV4 = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + b"\x12\x67\x00\x50"
IPV6 = bytes.fromhex("20010db8000000000000000000000001" + "20010db8000000000000000000000002") + b"\x12\x67\x00\x50"
REQUEST = b"GET /ping HTTP/1.1\r\n\r\n"


def binary(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2) + rest


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n", "203.0.113.9"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0"),  # noqa: S104 - nothing listens
        (b"PROXY TCP6 2001:DB8::1 ::1 4711 80\r\n", "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:10.0.0.1 4711 80\r\n", "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (b"PROXY UNKNOWN \x00\r\xff\n\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
        (binary(0x21, 0x11, IPV4), "203.0.113.9"),
        (binary(0x21, 0x12, IPV4), "203.0.113.9"),
        (binary(0x21, 0x21, IPV6), "2001:db8::1"),
        (binary(0x21, 0x22, IPV6), "2001:db8::1"),
        (binary(0x21, 0x21, bytes(10) + b"\xff\xff" + IPV4[:4] + bytes(20)), "203.0.113.9"),
        (binary(0x21, 0x11, IPV4 + b"\x04\x00\x02ab"), "203.0.113.9"),
        (binary(0x21, 0x11, IPV4 + bytes(HEADER_BYTES_MAX - 28)), "203.0.113.9"),
        (binary(0x21, 0x31, bytes(216)), None),
        (binary(0x21, 0x32, bytes(216)), None),
        (binary(0x21, 0x00, b""), None),
        (binary(0x21, 0x00, bytes(20)), None),
        (binary(0x21, 0x10, IPV4), None),
        (binary(0x21, 0x01, b""), None),
        # The proxy's own connection: addresses and families do not count.
        (binary(0x20, 0x00, b""), None),
        (binary(0x20, 0x11, IPV4), None),
        (binary(0x20, 0x11, b""), None),
        (binary(0x20, 0xFF, b"junk"), None),
    ],
)
def test_a_header_names_the_client_and_its_own_size(header: bytes, address: str | None) -> None:
    assert read_proxy_header(header + REQUEST) == (address, len(header))
    assert read_proxy_header(header) == (address, len(header))
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        REQUEST,
        b"\r\n" + REQUEST,
        b"proxy TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
        b"PROXY  TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
        b" PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 \r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n" + REQUEST,
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
        b"PROXY TCP4 203.0.113.09 10.0.0.1 4711 80\r\n",
        b"PROXY TCP4 203.0.113.256 10.0.0.1 4711 80\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0 4711 80\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 04711 80\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 80\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 +4711 80\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
        b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 80\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 4711 80\r\n",
        b"PROXY TCP6 :::1 ::1 4711 80\r\n",
        b"PROXY TCP6 ::1 ::g 4711 80\r\n",
        b"PROXY UDP4 203.0.113.9 10.0.0.1 4711 80\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 93,
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x22",
        SIGNATURE + b"\x31",
        SIGNATURE[:-1] + b"\r",
        binary(0x21, 0x41, IPV4),
        binary(0x21, 0x13, IPV4),
        binary(0x21, 0x11, IPV4[:-1]) + REQUEST,
        binary(0x21, 0x21, IPV6[:-1]) + REQUEST,
        binary(0x21, 0x31, bytes(215)) + REQUEST,
        binary(0x21, 0x11, IPV4 + bytes(HEADER_BYTES_MAX - 27)),
        binary(0x20, 0x00, bytes(HEADER_BYTES_MAX - 15)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Rejection) as raised:
        read_proxy_header(data)
    assert raised.value.status == 400
    assert raised.value.detail == "a connection from this proxy must begin with a PROXY protocol header"
