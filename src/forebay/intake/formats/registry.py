"""The list of wire formats, and their addresses: a new format is a file of its own and a line here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote_from_bytes, unquote_to_bytes

import httptools

from forebay.errors import Rejection
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.beacon import FormBeacon, TextBeacon
from forebay.intake.formats.cloudevents import BatchedCloudEvents, BinaryCloudEvent, StructuredCloudEvent
from forebay.intake.formats.format import TOKEN, Format, FormatOfHead
from forebay.intake.formats.lines import EventLines
from forebay.intake.formats.otlp import OtlpJson, OtlpProtobuf
from forebay.intake.formats.segment import SegmentBatch, SegmentCall
from forebay.intake.formats.segment_call import CALLS
from forebay.intake.formats.single import SingleEvent
from forebay.intake.formats.ubi import UbiEvents, UbiQueries

FORMATS: tuple[Format, ...] = (
    SingleEvent(),
    EventBatch(),
    EventLines(),
    UbiEvents(),
    UbiQueries(),
    StructuredCloudEvent(),
    BatchedCloudEvents(),
    BinaryCloudEvent(),
    SegmentBatch(),
    *map(SegmentCall, CALLS),
    OtlpJson(),
    OtlpProtobuf(),
)

_TOKEN_IN_PATH = re.compile(rb"/ubi/([^/]+)(/ubi_(?:events|queries))")
"""The addresses of a client that sends no token of its own accord."""

Formats = Mapping[bytes, Format]
"""The formats of one address, by the media type of their bodies, or by the header line that tells one which is in the
head. The first also takes bodies without a type."""

Addresses = Mapping[bytes, Formats]


def list_addresses(paths_extra: Iterable[str] = ()) -> Addresses:
    """Return all addresses with their formats; each extra path stands for the first one, and for those below it."""
    paths = dict.fromkeys(path for form in FORMATS for path in form.paths)
    addresses = {path.encode(): _list_formats(path) for path in paths}
    first = FORMATS[0].paths[0]
    for path in paths:
        if path == first or path.startswith(f"{first}/"):
            addresses |= {f"{extra}{path[len(first) :]}".encode(): addresses[path.encode()] for extra in paths_extra}
    return addresses


def _list_formats(path: str) -> Formats:
    forms = [form for form in FORMATS if path in form.paths]
    # A page that is being closed can send the first one also as plain text or in a form.
    forms += [TextBeacon(forms[0]), FormBeacon(forms[0])]
    return {(form.marker if isinstance(form, FormatOfHead) else form.media_type.encode()): form for form in forms}


def with_token(path: str) -> str:
    """Return the form of an address that has a token in it, written `{access_token}`; empty if there is none."""
    named = f"/ubi/{{{TOKEN}}}{path}"
    return named if _TOKEN_IN_PATH.fullmatch(named.encode()) else ""


def resolve(url: bytes) -> tuple[bytes, bytes]:
    """Return the path of a request, and its query. A token in the path is moved into the query.

    Raises:
        Rejection: 400 if it is not an address.
    """
    try:
        # Also the absolute form, which a server must accept (RFC 9112, section 3.2.2).
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.path is None:
        raise Rejection(HTTPStatus.BAD_REQUEST, "the address of the request is not valid")
    path, query = unquote_to_bytes(parsed.path), parsed.query or b""
    named = _TOKEN_IN_PATH.fullmatch(path)
    if named is None:
        return path, query
    # From here on it is in the query, as that of a beacon.
    token = b"%b=%b" % (TOKEN.encode(), quote_from_bytes(named[1], safe="").encode())
    return named[2], b"%b&%b" % (query, token) if query else token
