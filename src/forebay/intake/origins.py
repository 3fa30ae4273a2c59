"""Origins: which pages may send from a browser, and the header lines by which a browser learns that (CORS).

Source: the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol. A request without `Origin` is from no
page: a server, a command or an application.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus

from forebay.errors import Rejection
from forebay.intake import refusals
from forebay.intake.answers import KnownTurn
from forebay.setting_values import EVERY_ORIGIN

# The last one is what Segment's clients add when they send once more.
HEADERS_TAKEN = b"authorization, content-type, content-encoding, device-uuid, app-version, os-version, x-retry-count"
HEADERS_SHOWN = b"retry-after, ratelimit, ratelimit-policy, www-authenticate"

PREFLIGHT_AGE_S = 86_400
"""How long a browser may remember the answer to a preflight; Chromium remembers two hours at most."""

_SHOWN_LINE = b"access-control-expose-headers: %b\r\n" % HEADERS_SHOWN
# It has no body, so no line about one (RFC 9110, section 8.6).
_PREFLIGHT_ANSWER = (
    HTTPStatus.NO_CONTENT.value,
    b"HTTP/1.1 204 No Content\r\n"
    b"access-control-allow-methods: POST\r\n"
    b"access-control-allow-headers: %b\r\n"
    b"access-control-max-age: %d\r\n" % (HEADERS_TAKEN, PREFLIGHT_AGE_S),
    b"",
)
_ASKED = b"access-control-request-method"


class Origins:
    """Knows the allowed origins.

    If there are none, pages are not told apart from other clients. A page of another origin can then read no answer,
    and send no token in a header: its browser forbids it.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)
        self._takes_every = EVERY_ORIGIN in allowed

    def find_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the header lines that let the page read the answer, whatever that is; none if it may not."""
        origin = headers.get(b"origin")
        if origin is None or not self._allowed:
            return b""
        if self._takes_every:
            return b"access-control-allow-origin: *\r\n" + _SHOWN_LINE
        if origin in self._allowed:
            return b"access-control-allow-origin: %b\r\nvary: origin\r\n%b" % (origin, _SHOWN_LINE)
        return b""

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Check that the page may send.

        A browser sends some requests without asking first, such as those of `sendBeacon`.

        Raises:
            Rejection: 403, its origin is not allowed.
        """
        origin = headers.get(b"origin")
        if origin is None or not self._allowed or self._takes_every or origin in self._allowed:
            return
        # A page that was served from this address sends its origin, too.
        host = origin.partition(b"://")[2]
        if not host or host != headers.get(b"host"):
            raise forbidden(origin, "is not allowed to send")

    def answer_preflight(self, headers: Mapping[bytes, bytes]) -> KnownTurn | None:
        """Return the answer to a browser that asks whether a page may send; None if this is no such question."""
        if not self._allowed or b"origin" not in headers or _ASKED not in headers:
            return None
        try:
            self.check(headers)
        except Rejection as error:
            return KnownTurn(answer=refusals.rejection(error))
        return KnownTurn(answer=_PREFLIGHT_ANSWER, origin_lines=self.find_lines(headers))


def forbidden(origin: bytes | None, reason: str) -> Rejection:
    """Return the refusal of a page by its origin."""
    who = "a client without an origin" if origin is None else f"the origin {origin.decode('latin-1')!r}"
    return Rejection(HTTPStatus.FORBIDDEN, f"{who} {reason}")
