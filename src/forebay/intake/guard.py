"""The guard in front: decides from the head of a request whether it may go on, before its body is read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

from forebay.errors import Rejection
from forebay.intake.heads import Grant
from forebay.intake.limits import RequestLimits, read_length
from forebay.tokens.claims import Claims, Scope
from forebay.tokens.verifier import TokenVerifier

WRITE = Scope.WRITE


class Guard:
    """Checks the token, and the size and the coding that a head announces."""

    def __init__(self, verifier: TokenVerifier, limits: RequestLimits) -> None:
        self._verifier = verifier
        self._limits = limits

    def check(self, headers: Mapping[bytes, bytes]) -> Claims:
        """Return the claims of the sender.

        Raises:
            Rejection: 401 or 403 for the token, 503 if its key has to be fetched, 413 for a body over the limit, 415
                for a compressed one.
        """
        claims = self._verifier.verify(headers.get(b"authorization"), WRITE, is_last_try=True)
        length = headers.get(b"content-length")
        if length is not None and read_length(length) > self._limits.body_bytes_max:
            raise self.too_large()
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            detail = "the body must not be compressed"
            raise Rejection(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers=(("Accept-Encoding", "identity"),))
        return claims

    def still_holds(self, grant: Grant, body_bytes: int) -> bool:
        """Return whether a head that got a grant would get it now, with a body of that size."""
        return body_bytes <= self._limits.body_bytes_max and time.time() < grant.claims.valid_until

    def too_large(self) -> Rejection:
        """Return the refusal of a body over the limit."""
        detail = f"the body is larger than {self._limits.body_bytes_max} bytes"
        return Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
