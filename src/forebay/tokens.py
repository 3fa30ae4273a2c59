"""Tokens: made, and verified with each request.

HS256 only, with `exp` and `sub`. A verified token is cached, so that a client that sends the same one with each event
costs one verification. The cache is limited in tokens and in bytes, and a cached token expires like any other.
"""

from __future__ import annotations

import enum
import time
import warnings
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import jwt

from forebay.errors import Rejection

ALGORITHM = "HS256"

CACHE_TOKENS_MAX = 10_000
CACHE_BYTES_MAX = 4 * 1024 * 1024
"""One valid token can be sent in thousands of ways, each with more spaces before it."""

CLOCK_LEEWAY_S = 30
"""The most by which the clock that signed a token may differ from ours, for `nbf` and `exp`."""

BEARER = b"bearer "

# Forebay warns about a short secret itself, once, at start-up.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)


class Scope(enum.StrEnum):
    """A permission that a token carries."""

    WRITE = "events:write"
    READ = "events:read"
    ADMIN = "admin"


OPERATOR_SCOPES = (Scope.READ, Scope.ADMIN)
"""Each of these may read the server's health. A token that ships in an application has neither."""


class Claims(NamedTuple):
    """The content of a verified token: its `sub` and its scopes.

    Attributes:
        valid_until: the time up to which it is taken, in seconds since 1970: its `exp`, and `CLOCK_LEEWAY_S`.
    """

    user_id: str
    scopes: frozenset[str]
    valid_until: float
    origins: frozenset[str] | None = None
    formats: frozenset[str] | None = None


def make_token(secret: str, subject: str, scopes: Iterable[str], lifetime_s: float) -> str:
    """Return a signed token that is valid from now on for `lifetime_s` seconds."""
    now = time.time()
    claims = {"sub": subject, "iat": int(now), "exp": int(now + lifetime_s), "scope": " ".join(scopes)}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


class TokenVerifier:
    """Verifies `Authorization` headers."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._cache: dict[bytes, Claims] = {}
        self._cached_bytes = 0

    def verify(self, authorization: bytes | None, *scopes: str) -> Claims:
        """Return the claims of a token that has one of `scopes`. If none is given, any valid token will do.

        Raises:
            Rejection: 401 if the token is missing or not valid, 403 if it has none of the scopes, each with
                `WWW-Authenticate` (RFC 6750, section 3).
        """
        claims = self._cache.get(authorization) if authorization is not None else None
        if claims is None:
            claims = self._read(authorization)
        elif claims.valid_until <= time.time():
            self._clear_cache()
            raise _unauthorized("the token has expired")
        if scopes and claims.scopes.isdisjoint(scopes):
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'
            detail = f"the token does not have the scope {' or '.join(scopes)}"
            raise Rejection(HTTPStatus.FORBIDDEN, detail, headers=(("WWW-Authenticate", challenge),))
        return claims

    def _read(self, authorization: bytes | None) -> Claims:
        if authorization is None:
            challenge = ("WWW-Authenticate", "Bearer")
            raise Rejection(HTTPStatus.UNAUTHORIZED, "a bearer token is required", headers=(challenge,))
        if authorization[: len(BEARER)].lower() != BEARER:
            raise _unauthorized("the Authorization header is not of the form: Bearer <token>")
        claims = self._decode(authorization[len(BEARER) :].strip())
        if len(self._cache) >= CACHE_TOKENS_MAX or self._cached_bytes + len(authorization) > CACHE_BYTES_MAX:
            self._clear_cache()
        self._cache[authorization] = claims
        self._cached_bytes += len(authorization)
        return claims

    def _clear_cache(self) -> None:
        # The tokens in use come back at the cost of one verification each.
        self._cache.clear()
        self._cached_bytes = 0

    def _decode(self, token: bytes) -> Claims:
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                leeway=CLOCK_LEEWAY_S,
                # `iat` proves nothing, and a client's clock that is far ahead of ours must not cost events.
                options={"require": ["exp", "sub"], "verify_iat": False},
            )
            claims = Claims(_read_user_id(found), _read_scopes(found), float(found["exp"]) + CLOCK_LEEWAY_S)
        except jwt.ExpiredSignatureError:
            raise _unauthorized("the token has expired") from None
        except jwt.MissingRequiredClaimError as error:
            raise _unauthorized(f"the token lacks the claim {error.claim}") from None
        except Exception:  # noqa: BLE001 - the key was checked at start-up, so any error here is the token's fault
            # To name the check that failed would help an attacker more than a developer.
            raise _unauthorized("the token is not valid") from None
        if not claims.user_id:
            raise _unauthorized("the token lacks the claim sub")
        return claims


def _read_user_id(claims: dict[str, Any]) -> str:
    """Return the `sub`. Half of a surrogate pair in it is a `ValueError`: no document could hold it."""
    user_id: str = claims["sub"]
    user_id.encode()
    return user_id


def _read_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes, a string with spaces (RFC 8693, section 4.2) or a list; by default `events:write`."""
    named = claims.get("scope", Scope.WRITE)
    if isinstance(named, str):
        return frozenset(named.split())
    if isinstance(named, list):
        return frozenset(str(scope) for scope in named)
    raise ValueError("scope")


def _unauthorized(detail: str) -> Rejection:
    challenge = f'Bearer error="invalid_token", error_description="{detail}"'
    return Rejection(HTTPStatus.UNAUTHORIZED, detail, headers=(("WWW-Authenticate", challenge),))
