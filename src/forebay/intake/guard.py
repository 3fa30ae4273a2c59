"""The guard in front: decides from the head of a request whether it may go on, and how its events are taken.

Everything is decided before the body is read, unless a beacon has its token in its body: such a request is undecided
until its body is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

from msgspec import Struct

from forebay.errors import FieldError, Rejection
from forebay.intake.formats.beacon import TOKEN, TextBeacon
from forebay.intake.formats.format import Format
from forebay.intake.formats.registry import Formats
from forebay.intake.heads import Grant
from forebay.intake.limits import RequestLimits, read_length
from forebay.intake.origins import Origins, forbidden
from forebay.model import Ack
from forebay.tokens import Claims, Scope, TokenVerifier

WRITE = Scope.WRITE

UNPROVEN_BODY_BYTES_MAX = 64 * 1024
"""Most bytes of a body whose sender has shown no token yet; browsers send no more in a beacon."""


class Head(Struct, frozen=True):
    """The head of a request for an event address.

    Attributes:
        formats: those of the address.
        query: the query of the address.
        headers: the header lines, with names in small letters.
    """

    formats: Formats
    query: bytes
    headers: Mapping[bytes, bytes]


class Guard:
    """Checks who sends, from where, and the size, the type and the coding that a head announces.

    Attributes:
        origins: the pages that may send.
    """

    def __init__(self, verifier: TokenVerifier, origins: Origins, ack: Ack, limits: RequestLimits) -> None:
        self._verifier = verifier
        self._ack = ack
        self._limits = limits
        self.origins = origins

    def check(self, head: Head) -> Grant | None:
        """Return the grant of a request; None if it is undecided until its body is there.

        Raises:
            Rejection: 401 or 403 for the sender, 413 for a body over the limit, 415 for one of a wrong type or a
                compressed one, 400 for the query.
        """
        authorization = _find_authorization(head)
        if authorization is None and isinstance(_find_format(head), TextBeacon):
            self._check_body(head, UNPROVEN_BODY_BYTES_MAX)
            return None
        return self._decide(head, authorization)

    def decide(self, head: Head, body: bytes) -> Grant:
        """Return the grant of a request that was undecided.

        Raises:
            Rejection: as by `check`.
        """
        authorization, form = _find_authorization(head), _find_format(head)
        if authorization is None and isinstance(form, TextBeacon):
            if len(body) > UNPROVEN_BODY_BYTES_MAX:
                raise self.too_large(UNPROVEN_BODY_BYTES_MAX)
            token = form.find_token(body)
            authorization = None if token is None else b"Bearer " + token
        return self._decide(head, authorization)

    def still_holds(self, grant: Grant, body_bytes: int) -> bool:
        """Return whether a head that got a grant would get it now, with a body of that size."""
        return body_bytes <= self._limits.body_bytes_max and time.time() < grant.claims.valid_until

    def too_large(self, bytes_max: int | None = None) -> Rejection:
        """Return the refusal of a body over a limit, by default the usual one."""
        detail = f"the body is larger than {bytes_max or self._limits.body_bytes_max} bytes"
        return Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)

    def _decide(self, head: Head, authorization: bytes | None) -> Grant:
        get = head.headers.get
        self.origins.check(head.headers)
        claims = self._verifier.verify(authorization, WRITE)
        self._check_body(head, self._limits.body_bytes_max)
        form = _find_format(head)
        if form is None:
            raise _wrong_type(head.formats)
        _check_claims(claims, form, get(b"origin"))
        sender = (claims.user_id, get(b"device-uuid"), get(b"app-version"), get(b"os-version"), get(b"user-agent"))
        ack = (_read_ack(head.query) if head.query else None) or self._ack
        return Grant(claims, form, sender, ack, self.origins.find_lines(head.headers))

    def _check_body(self, head: Head, bytes_max: int) -> None:
        length = head.headers.get(b"content-length")
        if length is not None and read_length(length) > bytes_max:
            raise self.too_large(bytes_max)
        coding = head.headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            detail = "the body must not be compressed"
            raise Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers=(("Accept-Encoding", "identity"),))


def _check_claims(claims: Claims, form: Format, origin: bytes | None) -> None:
    """Check the limits that a token has of its own.

    Raises:
        Rejection: 403, they do not allow the request.
    """
    if claims.origins is not None and (origin is None or origin.decode("latin-1") not in claims.origins):
        raise forbidden(origin, "may not send with this token")
    if claims.formats is not None and form.name not in claims.formats:
        allowed = " or ".join(sorted(claims.formats))
        raise Rejection(HTTPStatus.FORBIDDEN, f"this token is for the format {allowed}, not {form.name}")


def _find_authorization(head: Head) -> bytes | None:
    """Return the token in the head, as a value of `Authorization`."""
    authorization = head.headers.get(b"authorization")
    if authorization is None and head.query:
        tokens = parse_qs(head.query.decode("latin-1"), encoding="latin-1").get(TOKEN)
        return None if tokens is None else b"Bearer " + tokens[-1].encode("latin-1")
    return authorization


def _find_format(head: Head) -> Format | None:
    content_type = head.headers.get(b"content-type")
    if content_type is None:
        return next(iter(head.formats.values()))
    return head.formats.get(content_type) or head.formats.get(content_type.partition(b";")[0].strip().lower())


def _wrong_type(formats: Formats) -> Rejection:
    types = [media_type.decode() for media_type in formats]
    detail = f"the content type must be {', '.join(types[:-1])} or {types[-1]}"
    return Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers=(("Accept", ", ".join(types)),))


def _read_ack(query: bytes) -> Ack | None:
    named = parse_qs(query.decode("latin-1")).get("ack")
    if not named:
        return None
    try:
        return Ack(named[-1])
    except ValueError:
        allowed = " or ".join(Ack)
        error = FieldError("ack", f"must be {allowed}")
        raise Rejection(HTTPStatus.BAD_REQUEST, "the query is not valid", (error,)) from None
