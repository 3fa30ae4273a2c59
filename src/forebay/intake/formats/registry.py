"""The list of wire formats, and their addresses: a new format is a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import httptools

from forebay.errors import Rejection
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.format import Format
from forebay.intake.formats.lines import EventLines
from forebay.intake.formats.single import SingleEvent

FORMATS: Mapping[str, Format] = {
    "event": SingleEvent(),
    "batch": EventBatch(),
    "lines": EventLines(),
}
"""The formats by the names by which a token may be limited to them."""

Formats = Mapping[bytes, Format]
"""The formats of one address, by the media type of their bodies. The first also takes bodies without a type."""

ADDRESSES: Mapping[bytes, Formats] = {
    path.encode(): {form.media_type.encode(): form for form in FORMATS.values() if path in form.paths}
    for path in dict.fromkeys(path for form in FORMATS.values() for path in form.paths)
}


def resolve(url: bytes) -> tuple[bytes, bytes]:
    """Return the path of a request, and its query.

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
    return unquote_to_bytes(parsed.path), parsed.query or b""
