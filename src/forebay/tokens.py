"""Tokens: who sends, and what the token allows.

HS256 only, with `exp` and `sub`. A verified token is kept, so that a client which sends the same one with each event
costs one verification; the cache is bounded, in tokens and in bytes, and a token in it ends when it would have without.
"""

from __future__ import annotations

import enum
import time
import warnings
from typing import Any, NamedTuple

import jwt

from forebay.errors import Rejection

CACHE_TOKENS_MAX = 10_000
CACHE_BYTES_MAX = 4 * 1024 * 1024
"""One valid token can be sent in thousands of ways, each with more spaces before it."""

CLOCK_LEEWAY_S = 30
"""How far the clock of whoever signs may differ from ours; `nbf` and `exp` are compared with so much to spare."""

SCHEME = b"bearer "

# Forebay warns about a short secret itself, once, at start-up.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)


class Scope(enum.StrEnum):
    """What a token may do."""

    WRITE = "events:write"
    READ = "events:read"
    ADMIN = "admin"


class Claims(NamedTuple):
    """What a verified token says: its `sub`, its scopes, and when it expires (seconds since 1970)."""

    user_id: str
    scopes: frozenset[str]
    expires_at: float


class TokenVerifier:
    """Verifies `Authorization` headers."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._verified: dict[bytes, Claims] = {}
        self._verified_bytes = 0

    def verify(self, authorization: bytes | None, *scopes: str) -> Claims:
        """Return the claims of a token that has one of `scopes`; of any valid token where none is named.

        Raises:
            Rejection: 401 for a token that is missing or not valid, 403 for one that does not suffice, each with
                `WWW-Authenticate` (RFC 6750, section 3).
        """
        claims = self._verified.get(authorization) if authorization is not None else None
        if claims is None:
            claims = self._read(authorization)
        elif claims.expires_at <= time.time() - CLOCK_LEEWAY_S:
            self._forget()
            raise _unauthorized("the token has expired")
        if scopes and claims.scopes.isdisjoint(scopes):
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'
            detail = f"the token does not have the scope {' or '.join(scopes)}"
            raise Rejection(403, detail, headers=(("WWW-Authenticate", challenge),))
        return claims

    def _read(self, authorization: bytes | None) -> Claims:
        if authorization is None:
            raise Rejection(401, "a bearer token is required", headers=(("WWW-Authenticate", "Bearer"),))
        if authorization[: len(SCHEME)].lower() != SCHEME:
            raise _unauthorized("the Authorization header is not of the form: Bearer <token>")
        claims = self._decode(authorization[len(SCHEME) :].strip())
        if len(self._verified) >= CACHE_TOKENS_MAX or self._verified_bytes + len(authorization) > CACHE_BYTES_MAX:
            self._forget()
        self._verified[authorization] = claims
        self._verified_bytes += len(authorization)
        return claims

    def _forget(self) -> None:
        # The tokens in use come back at the cost of one verification each.
        self._verified.clear()
        self._verified_bytes = 0

    def _decode(self, token: bytes) -> Claims:
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                leeway=CLOCK_LEEWAY_S,
                # `iat` proves nothing, and a clock that is far ahead of ours must not cost events.
                options={"require": ["exp", "sub"], "verify_iat": False},
            )
            claims = Claims(_read_user_id(found), _read_scopes(found), float(found["exp"]))
        except jwt.ExpiredSignatureError:
            raise _unauthorized("the token has expired") from None
        except jwt.MissingRequiredClaimError as error:
            raise _unauthorized(f"the token lacks the claim {error.claim}") from None
        except Exception:  # noqa: BLE001 - the key was tried at the start, so it is the token, whatever it breaks
            # Which check failed helps an attacker more than a developer.
            raise _unauthorized("the token is not valid") from None
        if not claims.user_id:
            raise _unauthorized("the token lacks the claim sub")
        return claims


def _read_user_id(claims: dict[str, Any]) -> str:
    """Return the `sub`; a half of a surrogate pair in it (a `ValueError`) could stand in no document."""
    user_id: str = claims["sub"]
    user_id.encode()
    return user_id


def _read_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes, a string with spaces (RFC 8693, section 4.2) or a list; none named: `events:write`."""
    named = claims.get("scope", Scope.WRITE)
    if isinstance(named, str):
        return frozenset(named.split())
    if isinstance(named, list):
        return frozenset(str(scope) for scope in named)
    raise ValueError("scope")


def _unauthorized(detail: str) -> Rejection:
    challenge = f'Bearer error="invalid_token", error_description="{detail}"'
    return Rejection(401, detail, headers=(("WWW-Authenticate", challenge),))
