"""Makes tokens that are signed with our own secret."""

from __future__ import annotations

import time
from collections.abc import Iterable

import jwt

from forebay.settings import Settings


def make_token(
    secret: str,
    subject: str,
    scopes: Iterable[str],
    lifetime_s: float,
    *,
    algorithm: str = "HS256",
    **claims: object,
) -> str:
    """Return a signed token that is valid from now on for `lifetime_s` seconds.

    Further claims go in as they are: `iss` and `aud` if the server asks for them, `jti`, and the token's own limits
    `origins`, `formats` and `rate`. Those that are None are left out.
    """
    now = time.time()
    named = {"sub": subject, "iat": int(now), "exp": int(now + lifetime_s), "scope": " ".join(scopes)}
    return jwt.encode(named | {name: value for name, value in claims.items() if value is not None}, secret, algorithm)


def make_own_token(
    settings: Settings, secret: str, subject: str, scopes: Iterable[str], lifetime_s: float, **claims: object
) -> str:
    """Return a token that the server of these settings takes: by its algorithm, from its issuer, for its audience."""
    named = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience} | claims
    return make_token(secret, subject, scopes, lifetime_s, algorithm=settings.jwt_algorithm, **named)
