"""Whatever a client writes: it never decides its own address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import Rejection
from forebay.intake.addresses import HOPS_MAX, TrustedProxies, normalize
from forebay.intake.proxy_protocol import HEADER_BYTES_MAX, SIGNATURE, ProxyHeader, read_proxy_header
from forebay.setting_values import ForwardedHeader

unhurried = settings(deadline=None, max_examples=300)

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
TRUSTED = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="fd00::/8"))
ANY_ADDRESS = st.ip_addresses()
CLIENTS = ANY_ADDRESS.filter(
    lambda address: not any((getattr(address, "ipv4_mapped", None) or address) in network for network in NETWORKS)
)
HEADERS = st.sampled_from(ForwardedHeader)
# The characters that these headers are made of come more often.
JUNK = st.one_of(st.text(st.characters(max_codepoint=255)), st.text(alphabet='for=",;\\:[]. 1\t_%unknow'))
FORGED = st.lists(st.builds("{}{}".format, st.sampled_from(["", "for=", 'for="']), st.one_of(TRUSTED, ANY_ADDRESS)))
WRITTEN = st.one_of(JUNK, FORGED.map(", ".join))


@unhurried
@given(
    header=HEADERS,
    peer=st.one_of(CLIENTS.map(str), st.text()),
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"X-Forwarded-For", b"forwarded", b"x-real-ip", b"x-forwarded-host"]),
            st.one_of(st.binary(), ANY_ADDRESS.map(lambda address: str(address).encode())),
        )
    ),
)
def test_nobody_believes_a_peer_that_is_not_trusted(
    header: ForwardedHeader, peer: str, lines: list[tuple[bytes, bytes]]
) -> None:
    proxies = TrustedProxies(NETWORKS, header)
    if not proxies.trusts(peer):
        assert proxies.find_client(peer, lines) == peer


@unhurried
@given(
    written=WRITTEN,
    client=CLIENTS,
    hops=st.lists(TRUSTED, max_size=5),
    header=HEADERS,
    with_port=st.booleans(),
    host=JUNK,
    lines=st.integers(1, 3),
)
def test_nothing_that_a_client_writes_changes_the_address_that_a_proxy_adds(
    written: str,
    client: IPv4Address | IPv6Address,
    hops: list[IPv4Address | IPv6Address],
    header: ForwardedHeader,
    with_port: bool,  # noqa: FBT001 - Hypothesis passes names
    host: str,
    lines: int,
) -> None:
    added = [node(address, header, host, with_port=with_port) for address in (client, *hops)]
    # The proxies write one line, or lines of their own.
    cut = min(lines, len(added)) - 1
    values = [", ".join([written, *added[:cut]]), ", ".join(added[cut:])]
    proxies = TrustedProxies(NETWORKS, header)
    found = proxies.find_client("10.0.0.1", [(header.value.encode(), value.encode("latin-1")) for value in values])
    assert found == normalize(str(client))


def node(address: IPv4Address | IPv6Address, header: ForwardedHeader, host: str, *, with_port: bool) -> str:
    text = (
        f"[{address}]" if address.version == 6 and (with_port or header is ForwardedHeader.FORWARDED) else f"{address}"
    )
    text += ":4711" if with_port else ""
    if header is ForwardedHeader.X_FORWARDED_FOR:
        return text
    escaped = host.replace("\\", "\\\\").replace('"', '\\"')
    return f'proto=http;for="{text}";host="{escaped}";by="[fd00::1]"'


@unhurried
@given(header=HEADERS, values=st.lists(st.one_of(JUNK, ANY_ADDRESS.map(str)), max_size=2 * HOPS_MAX))
def test_what_is_found_is_always_an_address(header: ForwardedHeader, values: list[str]) -> None:
    lines = [(header.value.encode(), ",".join(values).encode("latin-1"))]
    found = TrustedProxies(NETWORKS, header).find_client("10.0.0.1", lines)
    assert found == normalize(found)


# The PROXY protocol


PORTS = st.integers(0, 0xFFFF)
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


@st.composite
def lines_of_version_1(draw: st.DrawFn) -> tuple[bytes, str | None]:
    if draw(st.integers(0, 3)) == 0:
        rest = draw(st.binary(max_size=90).filter(lambda rest: b"\r\n" not in rest and not rest.endswith(b"\r")))
        return b"PROXY UNKNOWN%b\r\n" % (rest and b" " + rest), None
    source, target = draw(PAIRS)
    text = f"PROXY TCP{source.version} {source} {target} {draw(PORTS)} {draw(PORTS)}\r\n"
    return text.encode(), normalize(str(source))


@st.composite
def headers_of_version_2(draw: st.DrawFn) -> tuple[bytes, str | None]:
    source, target = draw(PAIRS)
    family = {4: 1, 6: 2}[source.version] if draw(st.booleans()) else draw(st.sampled_from([0, 3]))
    protocol = draw(st.integers(0, 2))
    is_local = draw(st.booleans())
    block = source.packed + target.packed + draw(PORTS).to_bytes(2) + draw(PORTS).to_bytes(2)
    if family in (0, 3):
        block = bytes(216)
    block += draw(st.binary(max_size=HEADER_BYTES_MAX - 16 - len(block)))
    head = SIGNATURE + bytes([0x20 if is_local else 0x21, family << 4 | protocol]) + len(block).to_bytes(2)
    named = not is_local and family in (1, 2) and protocol != 0
    return head + block, normalize(str(source)) if named else None


@unhurried
@given(
    made=st.one_of(lines_of_version_1(), headers_of_version_2()),
    behind=st.binary(max_size=50),
    pieces=st.lists(st.integers(1, 60)),
)
def test_a_header_is_read_whatever_pieces_it_comes_in(
    made: tuple[bytes, str | None], behind: bytes, pieces: list[int]
) -> None:
    header, address = made
    data = header + behind
    for size in [sum(pieces[:count]) for count in range(len(pieces) + 1)] + [len(data)]:
        wanted = ProxyHeader(address, len(header)) if size >= len(header) else None
        assert read_proxy_header(data[:size]) == wanted


@unhurried
@given(
    made=st.one_of(lines_of_version_1(), headers_of_version_2(), st.tuples(st.binary(), st.none())),
    changes=st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=3), st.integers(0, 2)), max_size=3),
)
def test_a_spoilt_header_is_read_refused_or_waited_for_and_more_bytes_change_no_decision(
    made: tuple[bytes, str | None], changes: list[tuple[int, bytes, int]]
) -> None:
    data = made[0]
    for place, text, removed in changes:
        data = data[:place] + text + data[place + removed :]
    decision = decide(data)
    if decision is None:
        assert len(data) < HEADER_BYTES_MAX
    if isinstance(decision, ProxyHeader):
        assert decision.size <= len(data)
        assert decision.address is None or str(ip_address(decision.address)) == decision.address
    for size in range(len(data)):
        assert decide(data[:size]) in (None, decision)


def decide(data: bytes) -> ProxyHeader | str | None:
    try:
        return read_proxy_header(data)
    except Rejection as refusal:
        return refusal.detail
