"""Beacons: bodies that a browser sends without asking first, also while its page is closed.

`navigator.sendBeacon` sets no header, and a body of another type than these would need a preflight, for which a page
that is being closed has no time. So such a body holds JSON, and the token, if that is not in the address: in the form,
or beside the fields of a JSON object, each time as `access_token` (RFC 6750, sections 2.2 and 2.3).
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from forebay.errors import Rejection
from forebay.intake.formats.event import DECODING_ERRORS
from forebay.intake.formats.format import TOKEN, Decoded, Format, WrappedFormat
from forebay.intake.formats.json_split import WHITE_SPACE

DATA = "data"
FORM_FIELDS_MAX = 20

TEXT_TYPE = "text/plain"
FORM_TYPE = "application/x-www-form-urlencoded"

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class HoldsToken(Format):
    """A format whose bodies may hold the token."""

    def find_token(self, body: bytes) -> bytes | None:
        """Return the token in a body, if there is one.

        Raises:
            Rejection: 400, as by `decode`.
        """
        try:
            fields = _decode_object(body)
            token = fields[self.token_field] if self.token_field in fields else fields[TOKEN]
            return _decode_text(token).encode()
        except (*DECODING_ERRORS, KeyError, UnicodeEncodeError):
            return None


class TextBeacon(WrappedFormat, HoldsToken):
    """The JSON of another format, sent as plain text."""

    media_type = TEXT_TYPE

    def decode(self, body: bytes) -> Decoded:
        """Return the events, which keep no token.

        Raises:
            Rejection: 400, the body is not of this format.
        """
        return self._inner.decode(body)


class FormBeacon(TextBeacon):
    """The JSON of another format, as the field `data` of a form; or bare, as `curl -d` sends it by default."""

    media_type = FORM_TYPE

    def find_token(self, body: bytes) -> bytes | None:
        """Return the token of the form, or that in its JSON."""
        fields = _read_form(body)
        return fields[TOKEN] if TOKEN in fields else super().find_token(fields[DATA])

    def decode(self, body: bytes) -> Decoded:
        """Return the events in `data`."""
        return super().decode(_read_form(body)[DATA])


def _read_form(body: bytes) -> dict[str, bytes]:
    """Return the fields of a form; bare JSON is its `data`.

    Raises:
        Rejection: 400, `data` is missing, or there are too many fields.
    """
    if body.lstrip(WHITE_SPACE)[:1] in (b"{", b"["):
        return {DATA: body}
    try:
        # Bytes that are not percent-encoded, or encode no UTF-8, come out as they were.
        text = body.decode("latin-1")
        pairs = parse_qsl(text, keep_blank_values=True, encoding="latin-1", max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the form has more than {FORM_FIELDS_MAX} fields") from None
    fields = {name: value.encode("latin-1") for name, value in pairs}
    if DATA not in fields:
        raise Rejection(HTTPStatus.BAD_REQUEST, f"the form lacks the field {DATA}, which holds the JSON")
    return fields
