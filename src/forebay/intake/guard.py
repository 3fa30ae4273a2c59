"""The guard in front: decides from the head of a request whether it may go on, and how its events are taken.

Everything is decided before the body is read, with two exceptions: a beacon may have its token in its body, and the key
of a token may have to be fetched. Such a request is undecided until its body is there. If the denial list changes or
the token expires until then, all is decided again: a client may take half a minute to send a body.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import parse_qs

from msgspec import Struct

from forebay.denials.denials import Denials
from forebay.errors import FieldError, KeyNotKnown, Rejection
from forebay.intake.addresses import TrustedProxies, cut, limited_part
from forebay.intake.formats.beacon import HoldsToken
from forebay.intake.formats.compressed import ACCEPTED_CODINGS, CODINGS, Compressed, Turns
from forebay.intake.formats.format import TOKEN, Format, FormatOfHead
from forebay.intake.formats.registry import Formats
from forebay.intake.heads import Grant
from forebay.intake.limits import BLANKS, COPIES_BYTES_MAX, RequestLimits, check_copies, read_length
from forebay.intake.origins import Origins, forbidden
from forebay.intake.rates import RateLimiter
from forebay.intake.senders import Sender, count_bytes, encode_sender
from forebay.model import Ack
from forebay.setting_values import StoreAddress
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Claims, Scope
from forebay.tokens.verifier import TokenVerifier

WRITE = Scope.WRITE

UNDECIDED = -1
"""The version of a grant before there is one, which no guard ever has."""


class Head(Struct, frozen=True):
    """The head of a request for an event address.

    Attributes:
        formats: those of the address.
        query: the query of the address.
        headers: the header lines, with names in small letters.
        client: the address of the client, empty if it has none.
    """

    formats: Formats
    query: bytes
    headers: Mapping[bytes, bytes]
    client: str = ""


class Guard:
    """Checks the sender of a head, its origin, and the size, the type and the coding that it announces.

    Attributes:
        origins: the pages that may send.
        proxies: those whose word counts about the address of a client.
        rates: count the events of each sender, once the body of a request is there.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        denials: Denials,
        settings: Settings,
        limits: RequestLimits,
        counters: Counters,
    ) -> None:
        self._verifier = verifier
        self._denials = denials
        self._ack = settings.ack
        self._body_bytes_max = limits.body_bytes_max
        self._batch_events_max = limits.batch_events_max
        self._store_address = settings.store_address
        self.rates = RateLimiter(settings)
        self._clients = counters.clients
        self.origins = Origins(settings.cors_origins)
        self.proxies = TrustedProxies(settings.trusted_proxies, settings.forwarded_header)
        self._unpacking = Turns()

    def check(self, head: Head) -> Grant:
        """Return the grant of a request; one of the version `UNDECIDED` if that has to wait for its body.

        Raises:
            Rejection: 401 or 403 for the sender, 413 for a body over the limit, 415 for one of a wrong type or
                coding, 400 for the query.
        """
        authorization = _find_authorization(head)
        if _find_holder(head, authorization) is None:
            # By the time that the body is there, the key may be there, too.
            with contextlib.suppress(KeyNotKnown):
                return self._decide(head, authorization)
        # No token can make up for these.
        self.origins.check(head.headers)
        form = self._check_content(head, self._undecided_bytes_max(head))
        self._check_denials(head)
        # It grants nothing, and is only to be refused in its format.
        return Grant(Claims("", frozenset(), 0.0), form, (b"", b""), Ack.DISK, version=UNDECIDED)

    def decide(self, head: Head, body: bytes, *, is_last_try: bool) -> Grant:
        """Return the grant of a request whose body is there, too.

        Raises:
            Rejection: as by `check`, or 503 if the key of its token cannot be had.
            KeyNotKnown: wait for the key of its token; not at the last try.
        """
        authorization = _find_authorization(head)
        holder = _find_holder(head, authorization)
        if holder is not None:
            token = holder.find_token(body)
            authorization = None if token is None else b"Bearer " + token
        return self._decide(head, authorization, is_last_try=is_last_try)

    def still_holds(self, grant: Grant, body_bytes: int) -> bool:
        """Return whether a head that got a grant would get it now, with a body of that size."""
        return (
            body_bytes <= self._body_bytes_max
            and time.time() < grant.claims.valid_until
            # The version, written out: this is asked for each event.
            and grant.version == self._verifier.generation + self._denials.version
        )

    @property
    def version(self) -> int:
        """Another number after each change of the keys and of the denial list."""
        return self._verifier.generation + self._denials.version

    def body_bytes_max(self, head: Head, grant: Grant) -> int:
        """Return how large the body of a request with a grant may be: smaller if it has to show the token itself."""
        return self._undecided_bytes_max(head) if grant.version == UNDECIDED else self._body_bytes_max

    def check_events(self, events: int, sender: Sender) -> None:
        """Check that a sender may have so many events in a request.

        Raises:
            Rejection: 413, they are too many for any sender, or for one with so much to say of itself.
        """
        if events > self._batch_events_max:
            detail = f"a batch has at most {self._batch_events_max} events, not {events}"
            raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        check_copies(events * count_bytes(sender), "the sender's header lines and user")

    def _decide(self, head: Head, authorization: bytes | None, *, is_last_try: bool = False) -> Grant:
        get = head.headers.get
        self.origins.check(head.headers)
        claims = self._verifier.verify(authorization, WRITE, is_last_try=is_last_try)
        form = self._check_content(head, self._body_bytes_max)
        _check_claims(claims, form, get(b"origin"))
        device = self._check_denials(head)
        # Two are enough to know that there is more than one.
        if len(self._clients) <= 1 and head.client and head.client not in self._clients:
            self._clients.append(head.client)
        # Users of different issuers may have the same name.
        user, part = f"{claims.issuer} {claims.user_id}", limited_part(head.client) if head.client else None
        limited_as = self.rates.identify(user, claims.rate_per_s, device, part)
        self.rates.check(limited_as)
        # A refusal, of which there may be thousands, needs nothing of the rest.
        headers = [device, get(b"app-version"), get(b"os-version"), get(b"user-agent")]
        if self._store_address is not StoreAddress.NO and head.client:
            headers.append((cut(head.client) if self._store_address is StoreAddress.CUT else head.client).encode())
        sender = encode_sender(claims.user_id, *headers)
        ack = (_read_ack(head.query) if head.query else None) or self._ack
        lines = self.origins.find_lines(head.headers)
        events_max = min(self._batch_events_max, COPIES_BYTES_MAX // count_bytes(sender))
        return Grant(claims, form, sender, ack, lines, limited_as, self.version, events_max)

    def _undecided_bytes_max(self, head: Head) -> int:
        holder = _find_holder(head, _find_authorization(head))
        return self._body_bytes_max if holder is None else min(self._body_bytes_max, holder.unproven_bytes_max)

    def _check_content(self, head: Head, bytes_max: int) -> Format:
        """Check the size, the coding and the type of a body; return its format."""
        length = head.headers.get(b"content-length")
        if length is not None and read_length(length) > bytes_max:
            raise too_large(bytes_max)
        coding = _find_coding(head)
        if coding is not None and coding not in CODINGS:
            detail = f"the content coding must be one of {ACCEPTED_CODINGS}, or none"
            headers = (("Accept-Encoding", ACCEPTED_CODINGS),)
            raise Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers=headers)
        form = _find_format(head)
        if form is None:
            raise _wrong_type(head.formats)
        return form if coding is None else Compressed(form, coding, self._body_bytes_max, self._unpacking)

    def _check_denials(self, head: Head) -> bytes | None:
        """Check that neither the device nor the address is shut out; return the device."""
        device = head.headers.get(b"device-uuid")
        if self._denials.is_denied(device, head.client or None):
            raise Rejection(HTTPStatus.FORBIDDEN, "the device or the address is shut out")
        return device


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
    if authorization is not None and authorization[:6].lower() == b"basic " and find_format(head).takes_basic:
        return _read_basic(authorization[6:])
    return authorization


def _read_basic(credentials: bytes) -> bytes | None:
    """Return the user name of Basic authentication as a token (RFC 7617, section 2)."""
    try:
        return b"Bearer " + base64.b64decode(credentials, validate=True).partition(b":")[0]
    except binascii.Error:
        return None


def find_format(head: Head) -> Format:
    """Return the format of a request, or the usual one of its address if it names none that is known."""
    return _find_format(head) or next(iter(head.formats.values()))


def join_lines(lines: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return header lines by their names in small letters."""
    headers = {name.lower(): value.rstrip(BLANKS) for name, value in lines}
    if len(headers) < len(lines) and b"content-encoding" in headers:
        # Lines that stand twice are one list (RFC 9110, section 5.3); of all others the last one counts.
        codings = [value for name, value in lines if name.lower() == b"content-encoding"]
        headers[b"content-encoding"] = b", ".join(codings)
    return headers


def too_large(bytes_max: int) -> Rejection:
    """Return the refusal of a body over a limit."""
    return Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {bytes_max} bytes")


def _find_holder(head: Head, authorization: bytes | None) -> HoldsToken | None:
    """Return the format in whose body the token is looked for; None if the head has one, or must have it."""
    if authorization is None:
        form = _find_format(head)
        if isinstance(form, HoldsToken) and _find_coding(head) is None:
            return form
    return None


def _find_format(head: Head) -> Format | None:
    content_type = head.headers.get(b"content-type")
    for form in head.formats.values():
        # Only some addresses have such a format.
        if isinstance(form, FormatOfHead) and form.marker in head.headers:
            return form.of_head(head.headers)
    if content_type is None:
        return next(iter(head.formats.values()))
    named = head.formats.get(content_type) or head.formats.get(content_type.partition(b";")[0].strip().lower())
    # The name of a header line is no media type.
    return None if isinstance(named, FormatOfHead) else named


def _find_coding(head: Head) -> str | None:
    coding = head.headers.get(b"content-encoding", b"").strip().lower()
    return None if coding in {b"", b"identity"} else coding.decode("latin-1")


def _wrong_type(formats: Formats) -> Rejection:
    types = [media_type.decode() for media_type in formats if b"/" in media_type]
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
